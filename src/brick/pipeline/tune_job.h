// `brick tune`: an adapter from a model or block and a data file.
#pragma once

#include "brick/pipeline/training.h"

namespace brick::pipeline {

struct TuneJob {
  std::string model, data, validation, init;
  TrainingFiles files;
  train::TuneConfig config;
};

// Writes the adapter to job.files.out. {"loss_first", "loss_last", "steps", "tokens", "supervised_tokens",
// "tokens_per_second", "peak_rss_mb", ...}. Error(kNumeric) if training stopped early; the last good adapter is saved.
nlohmann::json tune(const TuneJob& job, const RunSettings& settings, ProgressSink& sink);

}  // namespace brick::pipeline
