#include "brick/model/decode.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "brick/base/error.h"
#include "brick/kernels/vector_ops.h"
#include "brick/model/loss.h"

namespace brick::model {
namespace {

constexpr int64_t kPrefillPiece = 512;
constexpr size_t kRepeatWindow = 64;

void penalise_repeats(std::span<float> logits, std::span<const int32_t> recent, double penalty) {
  if (penalty == 1) return;
  std::vector<int32_t> window(recent.end() - static_cast<std::ptrdiff_t>(std::min(recent.size(), kRepeatWindow)),
                              recent.end());
  std::sort(window.begin(), window.end());
  window.erase(std::unique(window.begin(), window.end()), window.end());
  for (int32_t id : window) {
    float& z = logits[static_cast<size_t>(id)];
    z = z > 0 ? z / static_cast<float>(penalty) : z * static_cast<float>(penalty);
  }
}

// But for those with a masked adapter: project() adds it to the stored rows.
kernels::PreparedWeights prepare_weights(const Model& model, const kernels::Context& context, const AdapterUse& use) {
  std::vector<const tensor::Matrix*> weights;
  for (size_t l = 0; l < model.layers.size(); ++l)
    for (const Proj proj : kProjs)
      if (use.adapter == nullptr || !use.adapter->config.masked ||
          !use.adapter->at(static_cast<int64_t>(l), proj).present())
        weights.push_back(&model.layers[l][proj]);
  return {context, weights};
}

int64_t checked_capacity(int64_t capacity) {
  if (capacity < 1) fail(ErrorCode::kInvalidInput, "a context of {} tokens: expected 1 or more", capacity);
  return capacity;
}

}  // namespace

int32_t Sampler::pick(std::span<float> logits, std::span<const int32_t> recent) {
  if (!kernels::all_finite(logits.data(), std::ssize(logits)))
    fail(ErrorCode::kNumeric,
         "the next token's logits are not finite: weights of the model or the adapter are damaged");
  penalise_repeats(logits, recent, config_.repeat_penalty);
  if (config_.temperature <= 0)
    return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());

  // Likeliest first; ties by id, so that the order is fixed.
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto likelier = [&](int32_t a, int32_t b) {
    const float za = logits[static_cast<size_t>(a)], zb = logits[static_cast<size_t>(b)];
    return za > zb || (za == zb && a < b);
  };
  const size_t keep = config_.top_k > 0 ? std::min(order.size(), static_cast<size_t>(config_.top_k)) : order.size();
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(keep), order.end(), likelier);
  order.resize(keep);

  std::vector<double> weight(order.size());
  const double top = logits[static_cast<size_t>(order[0])];
  double total = 0;
  for (size_t i = 0; i < order.size(); ++i)
    total += weight[i] = std::exp((logits[static_cast<size_t>(order[i])] - top) / config_.temperature);
  double kept = 0;
  size_t count = 0;
  while (count < order.size() && (count == 0 || (kept < config_.top_p * total && weight[count] >= config_.min_p)))
    kept += weight[count++];

  double draw = rng_.uniform() * kept;
  for (size_t i = 0; i < count; ++i)
    if ((draw -= weight[i]) < 0) return order[i];
  return order[count - 1];
}

Decoder::Decoder(const Model& model, kernels::Context& context, AdapterUse use, int64_t capacity)
    : transformer_(model, context, std::min(checked_capacity(capacity), kPrefillPiece)),
      prepared_(prepare_weights(model, context, use)),
      use_(use),
      cache_(model, capacity),
      logits_(static_cast<size_t>(model.config.vocab)) {
  if (!prepared_.empty()) model.drop_pages();
}

std::span<float> Decoder::feed(std::span<const int32_t> ids) {
  if (ids.empty()) fail(ErrorCode::kInvalidInput, "nothing to continue from: the prompt has no tokens");
  for (size_t begin = 0; begin < ids.size(); begin += static_cast<size_t>(transformer_.max_tokens())) {
    const size_t count = std::min(ids.size() - begin, static_cast<size_t>(transformer_.max_tokens()));
    const auto piece = ids.subspan(begin, count);
    const tensor::MatView hidden = transformer_.extend(piece, use_, cache_, std::ssize(piece) - 1);
    tokens_.insert(tokens_.end(), piece.begin(), piece.end());
    if (begin + count == ids.size())
      logits(transformer_.context(), transformer_.model(), hidden.row_range(hidden.rows - 1, hidden.rows),
             {logits_.data(), 1, static_cast<int64_t>(logits_.size())});
  }
  // Only longer pieces read the stored form of prepared weights.
  if (!prepared_.empty() && std::ssize(ids) > kernels::kFewRows) model().drop_pages();
  return logits_;
}

std::span<float> Decoder::restart(std::span<const int32_t> ids) {
  const auto shared = std::mismatch(ids.begin(), ids.end(), tokens_.begin(), tokens_.end()).first - ids.begin();
  const auto kept = static_cast<size_t>(std::max<int64_t>(0, std::min<int64_t>(shared, std::ssize(ids) - 1)));
  tokens_.resize(kept);
  cache_.length = static_cast<int64_t>(kept);
  return feed(ids.subspan(kept));
}

void Decoder::restore(std::span<const int32_t> ids, const KvCache& cache) {
  BRICK_ASSERT(std::ssize(ids) == cache.length && cache.length <= cache_.capacity);
  for (size_t l = 0; l < cache_.keys.size(); ++l) {
    const auto bytes = static_cast<size_t>(cache.length * cache.keys[l].shape()[1]) * sizeof(float);
    std::memcpy(cache_.keys[l].bytes().data(), cache.keys[l].bytes().data(), bytes);
    std::memcpy(cache_.values[l].bytes().data(), cache.values[l].bytes().data(), bytes);
  }
  tokens_.assign(ids.begin(), ids.end());
  cache_.length = cache.length;
}

std::vector<int32_t> generate(Decoder& decoder, std::span<const int32_t> prompt, const SamplingConfig& sampling,
                              int64_t max_tokens, const std::function<bool(int32_t)>& stop) {
  Sampler sampler(sampling);
  std::vector<int32_t> tokens(prompt.begin(), prompt.end());
  std::span<float> next = decoder.restart(prompt);
  for (int64_t made = 0; made < max_tokens; ++made) {
    tokens.push_back(sampler.pick(next, tokens));
    if (stop(tokens.back()) || made + 1 == max_tokens || decoder.length() == decoder.capacity()) break;
    next = decoder.feed(std::span(tokens).last(1));
  }
  return {tokens.begin() + static_cast<std::ptrdiff_t>(prompt.size()), tokens.end()};
}

}  // namespace brick::model
