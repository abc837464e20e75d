// How likely a model finds given continuations of a prompt: what multiple-choice tasks ask.
#pragma once

#include <span>
#include <vector>

#include "brick/model/transformer.h"

namespace brick::model {

struct ContinuationScore {
  double log_likelihood = 0;  // sum of log p(token | prompt and the continuation's tokens before it)
  bool greedy = true;         // each token is a likeliest one
};

// The prompt runs once and its continuations together over its cached keys and values; what one prompt shares with the
// one before is kept. The model and context must outlive it.
class ContinuationScorer {
 public:
  // `capacity`: most tokens of a prompt and one of its continuations.
  ContinuationScorer(const Model& model, kernels::Context& context, AdapterUse use, int64_t capacity);

  // One score a continuation, in order; that of an empty one is 0. Error(kInvalidInput) for an empty prompt, an id
  // outside the vocabulary, or more than `capacity` tokens.
  std::vector<ContinuationScore> score(std::span<const int32_t> prompt,
                                       std::span<const std::vector<int32_t>> continuations);

 private:
  void feed_prompt(std::span<const int32_t> ids);
  void add_scores(tensor::ConstMatView hidden, std::span<const int32_t> targets, std::span<const size_t> owners,
                  std::vector<ContinuationScore>& scores);
  void score_long(int32_t last, std::span<const int32_t> continuation, size_t owner,
                  std::vector<ContinuationScore>& scores);

  Transformer transformer_;
  AdapterUse use_;
  KvCache cache_;
  std::vector<int32_t> cached_;  // ids behind cache_
};

}  // namespace brick::model
