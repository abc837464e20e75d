// `brick prune` and `brick blocks`: blocks from a model.
#pragma once

#include "brick/pipeline/workbench.h"
#include "brick/prune/prune.h"

namespace brick::pipeline {

struct PruneJob {
  std::string model, out, calibration;  // calibration: text, or .npy of ids [N, L]
  int64_t samples = 32, length = 512;
  std::optional<uint64_t> calibration_seed;
  std::vector<double> sparsities;  // one for prune, unless there is a target
  prune::PruneConfig config;
  std::string target;        // of prune: what the block shall be (budget.h), instead of a sparsity; pattern may be auto
  bool values_free = false;  //   whether its values may be chosen too
  std::string profile;       //   file of `brick bench --calibrate` for a speed; empty: measured now
};

// Calibration ids that live as long as this, and their windows.
struct Calibration {
  std::vector<int32_t> ids;
  std::vector<std::span<const int32_t>> windows;
};
Calibration load_calibration(const PruneJob& job, const Workbench& bench);

// Writes the block to job.out. {"method", "sparsity", "nonzeros", "parameters", "bytes", "seconds"}; with OWL
// "layer_sparsities", with reconstruction "stream_errors" (prune.h). With a target it says in one line what it chose
// and why, and "target" is {"asked", "reason", "sparsity", "values", "pattern", "predicted_bytes",
// "predicted_nonzeros", "reached"}; of a speed also "predicted_speedup", and "reached" is by the profile.
nlohmann::json prune_one(const PruneJob& job, const RunSettings& settings, ProgressSink& sink);
// Error for what prune_one() refuses before it prunes, but for its output and a speed that is out of reach.
void check_prune(const PruneJob& job, const RunSettings& settings);
// Writes out/<percent> for each sparsity. {"blocks": [one as above with "path", each]}
nlohmann::json prune_blocks(const PruneJob& job, const RunSettings& settings, ProgressSink& sink);

// Folder name of a sparsity within a family: "25", "12.5".
std::string sparsity_name(double sparsity);

}  // namespace brick::pipeline
