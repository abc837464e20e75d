// `brick shrink`: a model pruned, recovered, measured and exported in one go.
#pragma once

#include <string>
#include <vector>

#include "brick/pipeline/workbench.h"

namespace brick::pipeline {

struct ShrinkJob {
  std::string model, out;

  std::string method = "sparsegpt", calibration;  // as of PruneJob
  int64_t samples = 32, length = 512;             //   length also of what recovery and evaluation read
  double sparsity = 0, structured_sparsity = 0;
  std::string target, profile;  //   instead of a sparsity
  std::string values;           //   empty: bf16, or what the target needs
  std::string pattern = "unstructured";

  std::string text, data;  // as of RecoverJob; neither: nothing is recovered
  int64_t steps = 0;
  double minutes = 0;

  std::string eval;  // text for perplexity; empty: none
  int64_t eval_samples = 0;

  std::vector<std::string> gguf;  // types to export, of the recovered block if there is one
  bool resume = false;
};

// prune_one(), recover() with the model as teacher and values as the block has them, compare() on each, export_model().
// out/block, out/recovered and out/model-<type>.gguf are what these make, in all else with their defaults. A finished
// stage is recorded (run_folder.h) and not done again with `resume`; recovery goes on from its last checkpoint.
//
// Writes out/summary.json and returns it with "table": {"model", "rows": as compare()'s, named dense, block, recovered
// and by the exports' files, "stages": [{"stage", "seconds"}], "prune", "recover": what these returned, "seconds",
// "tool_version"}. Errors: those of the stages, naming the stage but for the first, which leaves no `out` where there
// was none; kMismatch to resume another run.
nlohmann::json shrink(const ShrinkJob& job, const RunSettings& settings, ProgressSink& sink);

}  // namespace brick::pipeline
