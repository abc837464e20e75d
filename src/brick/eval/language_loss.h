// Perplexity of a text and response loss of records.
#pragma once

#include <span>
#include <vector>

#include "brick/base/log.h"
#include "brick/data/sequences.h"
#include "brick/model/transformer.h"

namespace brick::eval {

struct TextScore {
  double nll = 0;  // mean over the scored tokens
  int64_t tokens = 0;
  double perplexity() const;
};

// Each window [L] predicts its last L - 1 tokens from those before them in the window.
TextScore score_windows(const model::Model& model, const model::AdapterUse& use,
                        std::span<const std::span<const int32_t>> windows, kernels::Context& context,
                        ProgressSink& sink);

struct RecordScore {
  double sum = 0;  // of the negative log-likelihoods of the record's supervised tokens
  int64_t tokens = 0;
  double mean() const { return tokens > 0 ? sum / static_cast<double>(tokens) : 0; }
};

// One score a sequence, in order.
std::vector<RecordScore> score_records(const model::Model& model, const model::AdapterUse& use,
                                       std::span<const data::TokenSequence> sequences, kernels::Context& context,
                                       ProgressSink& sink);

// Mean over all tokens of all records.
RecordScore total(std::span<const RecordScore> scores);

}  // namespace brick::eval
