// The multiple-choice part of `brick eval`: which items are scored, their log, the table.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "brick/model/transformer.h"
#include "brick/pipeline/workbench.h"

namespace brick::pipeline {

struct TasksJob {
  std::vector<std::string> tasks;  // names of eval/task_registry.cc
  std::string folder;              // of the data sets
  int64_t limit = 0;               // first items of each task; 0: all
  int64_t shots = -1;              // few-shot examples; -1: the task's own number
  std::string log;                 // JSONL, a line an item; empty: none
  bool resume = false;             // take from the log what it has
};

// Error(kInvalidInput) for an unknown task and for tasks without a folder.
void check_tasks(const TasksJob& job);

// {name: {"acc", "acc_norm", "stderr", "acc_norm_stderr", "n", "num_fewshot"}}, and "subjects" {name: {"acc", "n"}} for
// a task that has them. `identity` says what was scored and how: it is the log's first line and must be the same where
// a run is resumed. Items end up in the log as they are scored, so that a killed run loses at most one. Errors: as the
// readers; kExists for a log that is there without `resume` or settings.force; kMismatch for a log of another run,
// kCorrupt for one that is no log.
nlohmann::json evaluate_tasks(const TasksJob& job, const nlohmann::json& identity, const Workbench& bench,
                              const model::AdapterUse& use, const RunSettings& settings, kernels::Context& context,
                              ProgressSink& sink);

// The table of the result, for a terminal.
std::string tasks_table(const nlohmann::json& tasks);

}  // namespace brick::pipeline
