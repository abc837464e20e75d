// What `brick tune` and `brick recover` share: a training run's files, words and figures.
#pragma once

#include "brick/pipeline/workbench.h"
#include "brick/train/trainer.h"

namespace brick::pipeline {

struct TrainingFiles {
  std::string out;  // what the run makes
  std::string log;  // JSONL, a line a step; empty for none
  int64_t save_every = 0;
  bool resume = false;
};

std::filesystem::path checkpoint_of(const TrainingFiles& files);  // <out>.checkpoint

// Trains with checkpoint and log as `files` say; seed, checkpoint, identity and on_step of `options` are set here. Says
// what is trained on and how much memory it takes. A resumed run goes on with its log behind the checkpoint's step.
// Error(kExists) for a checkpoint or log that neither resume nor force allows, and for what is none in the place of
// one; kInvalidInput for a log inside the output. Once `files.out` is on disk,
// checkpoint_of(files) can go.
train::TuneResult run_training(const model::Model& model, const data::EncodedRecords& records,
                               const train::TuneConfig& config, const TrainingFiles& files, train::TuneOptions options,
                               const RunSettings& settings, kernels::Context& context, ProgressSink& sink);

// Where `length` cut records short, or left no answer of them.
void tell_of_length(const data::EncodedRecords& records, int64_t length, ProgressSink& sink);

// {"loss_first", "loss_last", "steps", "tokens", "supervised_tokens", "tokens_per_second", "seconds", "compute",
// "parameters", "masked"}
nlohmann::json training_json(const train::TuneResult& result, const kernels::Context& context);

}  // namespace brick::pipeline
