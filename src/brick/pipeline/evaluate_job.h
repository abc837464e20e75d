// `brick eval`: perplexity of a text, response loss of records, multiple choice.
#pragma once

#include "brick/pipeline/evaluate_tasks.h"
#include "brick/pipeline/workbench.h"

namespace brick::pipeline {

struct EvaluateJob {
  std::string model, adapter, text, data, chat_template;
  int64_t length = 512, samples = 0;  // samples 0: all windows
  int64_t limit = 0;                  // records, items of each task; 0: all
  TasksJob tasks;
};

// {"perplexity", "nll", "tokens"} of the text or of the records (both: the records' under "data").
// {"tasks": …} of evaluate_tasks() where tasks are named.
nlohmann::json evaluate(const EvaluateJob& job, const RunSettings& settings, ProgressSink& sink);

}  // namespace brick::pipeline
