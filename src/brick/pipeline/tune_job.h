// `brick tune`: an adapter from a model or block and a data file.
#pragma once

#include "brick/pipeline/workbench.h"

namespace brick::pipeline {

struct TuneJob {
  std::string model, data, validation, init, out, log;
  train::TuneConfig config;
  int64_t save_every = 0;
  bool resume = false;
};

// Writes the adapter to job.out. {"loss_first", "loss_last", "steps", "tokens", "supervised_tokens",
// "tokens_per_second", "peak_rss_mb", ...}. Error(kNumeric) if training stopped early; the last good adapter is saved.
nlohmann::json tune(const TuneJob& job, const RunSettings& settings, ProgressSink& sink);

}  // namespace brick::pipeline
