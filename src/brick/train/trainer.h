// LoRA fine-tuning of a model or block: (model, sequences, configuration, seed) -> adapter.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>

#include "brick/base/log.h"
#include "brick/data/sequences.h"
#include "brick/model/transformer.h"
#include "brick/train/config.h"
#include "brick/train/objective.h"

namespace brick::train {

struct StepRecord {
  int64_t step = 0, tokens = 0;  // from 1; tokens of this step
  double loss = 0;               // mean over the step's supervised tokens, before its update
  double lr = 0, grad_norm = 0, seconds = 0;
};

// How a run's batches are computed: in parts of whole records, one after another, whose gradients add up.
struct MemoryPlan {
  int64_t part_tokens = 0;  // most tokens of a part
  model::Activations activations = model::Activations::kKeep;
  std::optional<int64_t> bf16_rank = {};  // activations in bfloat16 (Transformer)
  int64_t model_bytes = 0;                // its weights, which a mapped file has in memory once they are used
  int64_t adapter_bytes = 0;              // with gradients, moments and the last good one
  int64_t buffer_bytes = 0;               // activations and scratch
  int64_t objective_bytes = 0;            // a teacher's

  int64_t bytes() const { return model_bytes + adapter_bytes + buffer_bytes + objective_bytes; }
};

struct TuneOptions {
  uint64_t seed = 0;
  const model::Adapter* init = nullptr;            // continue from it: all is its own but dropout and `masked`
  std::filesystem::path checkpoint;                // folder; empty for none
  int64_t save_every = 0;                          // steps between checkpoints, the last step's too; 0 for none
  bool resume = false;                             // continue from the checkpoint where there is one
  std::function<void(const StepRecord&)> on_step;  // after each step
  std::string run_identity;                        // what a checkpoint must agree on besides configuration and data
  Objective* objective = nullptr;                  // none: cross-entropy
  std::optional<MemoryPlan> plan;                  // plan_memory()'s, where it was asked before
  // Above 0: instead of epochs and steps, as many steps as this time holds, over all sessions of a resumed run. Their
  // number is foreseen anew from the mean step so far, and the schedule with it, so that it ends when the time does.
  double minutes = 0;
};

struct TuneResult {
  model::Adapter adapter;
  int64_t steps = 0, tokens = 0, supervised_tokens = 0;
  double loss_first = 0, loss_last = 0;
  double seconds = 0;         // of all sessions
  int64_t planned_bytes = 0;  // of the plan
  std::string stopped;        // why training ended early (a loss that is no number); the adapter is the last good one
};

// As --memory says: fast takes a batch as one part and keeps its activations; auto takes parts of 256 tokens (512 with
// products in bfloat16) and keeps activations where twice what that takes beside the model is available; low takes as
// many and recomputes. The parts, and so the results, do not depend on what is available. Error(kInvalidInput) where
// the plan does not fit, naming a setting that would.
MemoryPlan plan_memory(const model::Model& model, std::span<const data::TokenSequence> sequences,
                       const TuneConfig& config, const TuneOptions& options, kernels::Compute compute);

// Error(kInvalidInput) for a bad configuration or no data; kMismatch for an init that does not fit. The checkpoint
// stays: resumed from the last step's, a run gives its result at once. The caller removes it when that is on disk.
TuneResult tune(const model::Model& model, std::span<const data::TokenSequence> sequences, const TuneConfig& config,
                const TuneOptions& options, kernels::Context& context, ProgressSink& sink);

// The configuration of the adapter that tune() would make for this model.
model::LoraConfig lora_config(const model::Model& model, const TuneConfig& config);

}  // namespace brick::train
