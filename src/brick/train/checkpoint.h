// A training run at rest: everything that its next step depends on. Random numbers are counter-based, so the step says
// all about them.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "brick/train/optimizer.h"

namespace brick::train {

struct Progress {
  int64_t step = 0;  // optimizer steps done
  int64_t tokens = 0, supervised_tokens = 0;
  double loss_first = 0, loss_last = 0;
  double seconds = 0;    // of all sessions
  std::string run_hash;  // of model, data, configuration and seed: another run's checkpoint is refused
};

// Replaces `folder` atomically.
void save_checkpoint(const std::filesystem::path& folder, const Progress& progress, const model::Adapter& parameters,
                     AdamW& optimizer);

// Fills parameters and moments, which must have their shapes already. None if there is no checkpoint; Error(kMismatch)
// if it belongs to another run, kCorrupt if it is damaged or has gone further than `most_steps`.
std::optional<Progress> load_checkpoint(const std::filesystem::path& folder, const std::string& run_hash,
                                        int64_t most_steps, model::Adapter& parameters, AdamW& optimizer);

// Error(kExists) where something else lies in a checkpoint's place: what a run may replace or remove is a checkpoint,
// or what a kill left of one.
void check_is_checkpoint(const std::filesystem::path& folder);
// So that one that is half gone is none.
void remove_checkpoint(const std::filesystem::path& folder);

}  // namespace brick::train
