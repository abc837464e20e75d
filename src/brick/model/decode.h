// Text generation: one sequence, keys and values cached.
#pragma once

#include <functional>
#include <vector>

#include "brick/base/rng.h"
#include "brick/kernels/few_rows.h"
#include "brick/model/transformer.h"

namespace brick::model {

struct SamplingConfig {
  double temperature = 0;  // 0: greedy
  int64_t top_k = 0;       // 0: all
  double top_p = 1;        // nucleus (Holtzman et al. 2020)
  double min_p = 0;        // relative to the likeliest token
  double repeat_penalty =
      1;  // divides positive (multiplies negative) logits of the last 64 tokens (Keskar et al. 2019)
  uint64_t seed = 0;
};

// Picks the next token from logits [V], which it may change. `recent` are the tokens so far. Error(kNumeric) for logits
// that are not finite.
class Sampler {
 public:
  explicit Sampler(const SamplingConfig& config) : config_(config), rng_(config.seed, stream_id({0x5A})) {}
  int32_t pick(std::span<float> logits, std::span<const int32_t> recent);

 private:
  SamplingConfig config_;
  Rng rng_;
};

class Decoder {
 public:
  // `capacity`: most tokens, prompt included; below 1 an Error(kInvalidInput). Lays out 4-bit and 2:4 sparse weights
  // for it (PreparedWeights), which takes a few tenths of a second a hundred million weights; other Decoders of the
  // model share that while this one lives.
  Decoder(const Model& model, kernels::Context& context, AdapterUse use, int64_t capacity);

  // Feeds ids and returns the logits [V] after the last one; valid until the next call.
  std::span<float> feed(std::span<const int32_t> ids);

  // Makes `ids` the whole sequence: what it shares with the tokens so far is kept, the rest fed, the last id at least.
  std::span<float> restart(std::span<const int32_t> ids);

  // Takes over the first cache.length rows as the keys and values of `ids`, which replace the tokens so far.
  void restore(std::span<const int32_t> ids, const KvCache& cache);

  const std::vector<int32_t>& tokens() const { return tokens_; }
  const KvCache& cache() const { return cache_; }
  const Model& model() const { return transformer_.model(); }
  int64_t length() const { return cache_.length; }
  int64_t capacity() const { return cache_.capacity; }
  int64_t weight_bytes() const { return model().weight_bytes() + prepared_.extra_bytes(); }  // as decoding holds them

 private:
  Transformer transformer_;
  kernels::PreparedWeights prepared_;
  AdapterUse use_;
  KvCache cache_;
  std::vector<int32_t> tokens_;  // those behind cache_
  std::vector<float> logits_;
};

// Makes `prompt` the decoder's sequence, then samples until `stop` says so (called with each new token; true ends after
// it), the capacity is reached or max_tokens are made. Returns the new tokens.
std::vector<int32_t> generate(Decoder& decoder, std::span<const int32_t> prompt, const SamplingConfig& sampling,
                              int64_t max_tokens, const std::function<bool(int32_t)>& stop);

}  // namespace brick::model
