// `brick compare`: models, blocks and finished runs side by side.
#pragma once

#include "brick/pipeline/evaluate_tasks.h"
#include "brick/pipeline/workbench.h"

namespace brick::pipeline {

struct CompareJob {
  std::vector<std::string> paths;     // models and blocks, measured now; runs of `brick simulate` and `shrink`, read
  std::string text;                   // for perplexity, as of `brick eval`; empty: none
  int64_t length = 512, samples = 0;  // of its windows; samples 0: all
  TasksJob tasks;                     // of `brick eval`, but for its log; for accuracy
  bool speed = false;                 // decode and train tokens/s, as of `brick bench`
  std::string out;                    // page; empty: none
  std::string cache;                  // folder that keeps what was measured; empty: none
};

// {"rows": report/comparison.h, "tool_version", "compute", "machine", "table", "report": the page, if asked for}.
// With a cache, a row that was measured there of the same bytes, text and settings (speeds also: machine and threads;
// of the tasks' files their folder's path alone) is taken from it, so that an interrupted comparison goes on. Errors:
// kInvalidInput for a path named twice, a run without an end and unknown tasks, kExists or kMismatch for a cache that
// is something else; those of the models and of the texts.
nlohmann::json compare(const CompareJob& job, const RunSettings& settings, ProgressSink& sink);

}  // namespace brick::pipeline
