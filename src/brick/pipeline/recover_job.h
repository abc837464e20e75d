// `brick recover`: a pruned block trained to be like the model that it came from again.
#pragma once

#include "brick/pipeline/training.h"

namespace brick::pipeline {

struct RecoverConfig {
  std::string objective = "forward-kl";
  double distill = 0.5;
  int64_t top_tokens = 32;
  double hidden_weight = 0;

  template <class Visit>
  void fields(Visit&& visit) {
    visit("objective", objective, "forward-kl (distillation mixed with cross-entropy) or cross-entropy alone");
    visit("distill", distill, "forward-kl: share of the teacher's term, in [0, 1]");
    visit("top_tokens", top_tokens, "forward-kl: likeliest tokens of the teacher that are kept, the others as one");
    visit("hidden_weight", hidden_weight,
          "forward-kl: weight of the mean squared difference from what the teacher's head reads");
  }
};

// Defaults of `recover` where they are not tune's.
train::TuneConfig recovery_defaults();

struct RecoverJob {
  std::string block, teacher;
  std::string text, data;  // plain text in windows of config.length, records; one of them at least
  std::string cache;   // folder of the teacher's logits; empty: <out>.teacher, removed at the end unless it was there
  std::string values;  // of the merged weights (model/merge.h); empty: keep for a block of q4 values, else bf16
  double minutes = 0;  // above 0: instead of epochs and steps
  TrainingFiles files;
  RecoverConfig recover;
  train::TuneConfig config = recovery_defaults();
};

// LoRA with distillation, merged and written to job.files.out as a block. A sparse block keeps its mask unless
// config.masked is off. As tune(), and {"nonzeros", "bytes", "teacher_tokens", "teacher_seconds"}, what ran through the
// teacher: none where the cache had all. Error(kMismatch) for a teacher with another vocabulary, or another width
// where there is a hidden_weight, and for another teacher's cache; kNumeric if training stopped early: nothing is
// written then.
nlohmann::json recover(const RecoverJob& job, const RunSettings& settings, ProgressSink& sink);

}  // namespace brick::pipeline
