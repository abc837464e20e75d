#include "brick/model/loss.h"

#include <algorithm>
#include <cstring>

#include "brick/base/error.h"
#include "brick/kernels/bf16_linear.h"
#include "brick/kernels/bf16_ops.h"
#include "brick/kernels/cross_entropy.h"
#include "brick/kernels/linear.h"
#include "brick/kernels/norm.h"

namespace brick::model {
namespace {

using tensor::ConstMatView;
using tensor::MatView;

constexpr int64_t kLogitFloats = 12 << 20;  // about 50 MB of logits at a time
constexpr int64_t kLine = 16;               // floats of a cache line

// Rows that start at unlike places of a page, so that they don't compete for the same lines of the cache.
int64_t logit_stride(int64_t vocab) { return ((vocab / kLine + 1) | 1) * kLine; }

// d_normed = dz head; in bfloat16 dz is rounded where it lies.
void head_backward(kernels::Context& context, const Model& model, MatView dz, MatView d_normed) {
  if (context.compute() != kernels::Compute::kBf16)
    return kernels::linear_backward(context, model.head(), dz, 0.0f, d_normed);
  const kernels::LoraWeight head{&model.head()};
  kernels::linear_backward(context, {&head, 1}, {}, kernels::to_bf16_in_place(dz), d_normed);
}

}  // namespace

std::vector<ScoredToken> scored_tokens(std::span<const int32_t> ids, std::span<const uint8_t> supervised,
                                       std::span<const int64_t> offsets, std::vector<ScoredToken> scored) {
  scored.clear();
  for (size_t s = 0; s + 1 < offsets.size(); ++s)
    for (int64_t t = offsets[s] + 1; t < offsets[s + 1]; ++t)
      if (supervised[static_cast<size_t>(t)] != 0) scored.push_back({t - 1, ids[static_cast<size_t>(t)]});
  return scored;
}

std::vector<int64_t> first_read_rows(std::span<const ScoredToken> scored, std::span<const int64_t> offsets,
                                     std::vector<int64_t> first) {
  first.assign(offsets.begin() + 1, offsets.end());
  size_t next = 0;
  for (size_t s = 0; s < first.size(); ++s) {
    if (next < scored.size()) first[s] = std::min(first[s], scored[next].row);
    while (next < scored.size() && scored[next].row < offsets[s + 1]) ++next;
  }
  return first;
}

void for_each_logits(kernels::Context& context, const Model& model, ConstMatView hidden,
                     std::span<const ScoredToken> scored, const LogitsFunction& piece, MatView d_hidden) {
  const int64_t width = model.config.hidden, vocab = model.config.vocab, total = static_cast<int64_t>(scored.size());
  const int64_t most = std::clamp<int64_t>(kLogitFloats / vocab, 1, std::max<int64_t>(1, total));
  const bool backward = d_hidden.data != nullptr;
  if (backward)
    for (int64_t t = 0; t < d_hidden.rows; ++t) std::fill_n(d_hidden.row(t), width, 0.0f);

  const int64_t stride = logit_stride(vocab);
  float* memory = context.scratch(kernels::Context::kHead, most * (stride + 4 * width + 2));
  for (int64_t begin = 0; begin < total; begin += most) {
    const int64_t count = std::min(most, total - begin);
    float* next = memory;
    const auto take = [&](int64_t cols) {
      const MatView view(next, count, cols);
      next += most * cols;
      return view;
    };
    const MatView z(take(stride).data, count, vocab, stride), x = take(width), normed = take(width),
                                                              d_normed = take(width), dx = take(width);
    float* rms = next;
    auto* targets = reinterpret_cast<int32_t*>(rms + most);
    for (int64_t i = 0; i < count; ++i) {
      const ScoredToken& token = scored[static_cast<size_t>(begin + i)];
      if (token.target < 0 || token.target >= vocab)
        fail(ErrorCode::kInvalidInput, "token id {}: the vocabulary has {}", token.target, vocab);
      targets[i] = token.target;
      std::memcpy(x.row(i), hidden.row(token.row), static_cast<size_t>(width) * sizeof(float));
    }
    kernels::rms_norm(x, model.final_norm.data(), model.config.norm_eps, normed, rms);
    kernels::linear(context, model.head(), normed, 0.0f, z);
    piece(begin, targets, z);
    if (!backward) continue;
    head_backward(context, model, z, d_normed);
    std::fill_n(dx.data, count * width, 0.0f);
    kernels::rms_norm_backward(x, model.final_norm.data(), rms, d_normed, dx);
    for (int64_t i = 0; i < count; ++i)
      std::memcpy(d_hidden.row(scored[static_cast<size_t>(begin + i)].row), dx.row(i),
                  static_cast<size_t>(width) * sizeof(float));
  }
}

void token_losses(kernels::Context& context, const Model& model, ConstMatView hidden,
                  std::span<const ScoredToken> scored, std::span<float> losses, float weight, MatView d_hidden) {
  for_each_logits(
      context, model, hidden, scored,
      [&](int64_t begin, const int32_t* targets, MatView z) {
        if (d_hidden.data == nullptr)
          kernels::cross_entropy(z, targets, losses.data() + begin);
        else
          kernels::cross_entropy_backward(z, targets, weight, losses.data() + begin);
      },
      d_hidden);
}

void logits(kernels::Context& context, const Model& model, ConstMatView hidden, MatView out) {
  const int64_t width = model.config.hidden;
  float* memory = context.scratch(kernels::Context::kHead, hidden.rows * (width + 1));
  const MatView normed(memory, hidden.rows, width);
  kernels::rms_norm(hidden, model.final_norm.data(), model.config.norm_eps, normed, memory + hidden.rows * width);
  kernels::linear(context, model.head(), normed, 0.0f, out);
}

}  // namespace brick::model
