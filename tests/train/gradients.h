// Loss and gradients of a packed batch, and what two sets of adapter matrices differ by.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "brick/data/batches.h"
#include "brick/model/loss.h"
#include "brick/model/transformer.h"

namespace brick::train {

// `cut`: the last layer leaves out what is not scored, as in training. In bfloat16 activations are held as in training.
struct LossAndGradients {
  double loss = 0;  // mean over the supervised tokens
  model::Adapter gradients;
};

inline LossAndGradients loss_and_gradients(const model::Model& model, const model::AdapterUse& use,
                                           std::span<const data::TokenSequence> sequences,
                                           model::Activations activations = model::Activations::kKeep, bool cut = true,
                                           kernels::Compute compute = kernels::Compute::kF32) {
  std::vector<int64_t> all(sequences.size());
  std::iota(all.begin(), all.end(), 0);
  const data::Batch batch = data::make_batch(sequences, all);
  const auto scored = model::scored_tokens(batch.ids, batch.supervised, batch.offsets);
  const auto first_read = model::first_read_rows(scored, batch.offsets);
  model::TokenBatch tokens{batch.ids, batch.offsets};
  if (cut) tokens.first_read = first_read;

  kernels::Context context(compute);
  const model::LoraConfig& lora = use.adapter->config;
  model::Transformer transformer(model, context, batch.tokens(), true, activations,
                                 model::holds_bf16(compute, lora) ? std::optional(lora.rank) : std::nullopt);
  LossAndGradients result{0, zeros_like(*use.adapter)};
  std::vector<float> losses(scored.size());
  const tensor::MatView hidden = transformer.forward(tokens, use);
  tensor::Tensor d_hidden = tensor::matrix(hidden.rows, hidden.cols);
  const auto weight = static_cast<float>(1.0 / static_cast<double>(scored.size()));
  model::token_losses(context, model, hidden, scored, losses, weight, d_hidden.mat());
  transformer.backward(tokens, use, d_hidden.mat(), result.gradients);
  result.loss = std::accumulate(losses.begin(), losses.end(), 0.0) / static_cast<double>(scored.size());
  return result;
}

// The loss alone.
inline double mean_loss(const model::Model& model, const model::AdapterUse& use,
                        std::span<const data::TokenSequence> sequences) {
  std::vector<int64_t> all(sequences.size());
  std::iota(all.begin(), all.end(), 0);
  const data::Batch batch = data::make_batch(sequences, all);
  const auto scored = model::scored_tokens(batch.ids, batch.supervised, batch.offsets);
  kernels::Context context;
  model::Transformer transformer(model, context, batch.tokens());
  std::vector<float> losses(scored.size());
  const auto first_read = model::first_read_rows(scored, batch.offsets);
  model::token_losses(context, model, transformer.forward({batch.ids, batch.offsets, first_read}, use), scored, losses);
  return std::accumulate(losses.begin(), losses.end(), 0.0) / static_cast<double>(scored.size());
}

// Of one matrix against its reference: 1 - cosine, and | |x| / |reference| - 1 |.
struct Difference {
  double angle = 0, norm = 0;
};

inline Difference difference(const tensor::Tensor& x, const tensor::Tensor& reference) {
  EXPECT_EQ(x.shape(), reference.shape());
  double xx = 0, rr = 0, xr = 0;
  for (int64_t i = 0; i < x.size(); ++i) {
    const double a = x.f32()[i], b = reference.f32()[i];
    xx += a * a, rr += b * b, xr += a * b;
  }
  return {1 - xr / std::sqrt(xx * rr), std::abs(std::sqrt(xx / rr) - 1)};
}

// The worst of all matrices; both adapters must have the same ones.
inline Difference worst_difference(const model::Adapter& adapter, const model::Adapter& reference) {
  Difference worst;
  int64_t matrices = 0, wanted = 0;
  for_each_pair(reference, [&](int64_t, model::Proj, const model::LoraPair&) { wanted += 2; });
  for_each_pair(adapter, [&](int64_t layer, model::Proj proj, const model::LoraPair& pair) {
    for (auto part : {&model::LoraPair::a, &model::LoraPair::b}) {
      const Difference d = difference(pair.*part, reference.at(layer, proj).*part);
      worst.angle = std::isfinite(d.angle) ? std::max(worst.angle, d.angle) : d.angle;
      worst.norm = std::isfinite(d.norm) ? std::max(worst.norm, d.norm) : d.norm;
      ++matrices;
    }
  });
  EXPECT_EQ(matrices, wanted);
  return worst;
}

inline bool same_bits(const model::Adapter& a, const model::Adapter& b) {
  bool same = a.layers.size() == b.layers.size();
  for_each_pair(a, [&](int64_t layer, model::Proj proj, const model::LoraPair& pair) {
    for (auto part : {&model::LoraPair::a, &model::LoraPair::b}) {
      const tensor::Tensor &x = pair.*part, &y = b.at(layer, proj).*part;
      same = same && x.shape() == y.shape() && std::memcmp(x.bytes().data(), y.bytes().data(), x.bytes().size()) == 0;
    }
  });
  return same;
}

inline bool all_finite(const model::Adapter& adapter) {
  bool finite = true;
  for_each_pair(adapter, [&](int64_t, model::Proj, const model::LoraPair& pair) {
    for (const tensor::Tensor* t : {&pair.a, &pair.b})
      for (int64_t i = 0; i < t->size(); ++i) finite = finite && std::isfinite(t->f32()[i]);
  });
  return finite;
}

// `count` sequences of unequal lengths; the first third of each is not supervised.
inline std::vector<data::TokenSequence> random_sequences(int64_t count, int64_t vocab, uint64_t seed,
                                                         int64_t shortest = 6) {
  Rng rng(seed, stream_id({0x81}));
  std::vector<data::TokenSequence> sequences;
  for (int64_t s = 0; s < count; ++s) {
    const auto length = static_cast<size_t>(shortest + 3 * (s % 4));
    data::TokenSequence sequence;
    for (size_t t = 0; t < length; ++t) {
      sequence.ids.push_back(static_cast<int32_t>(rng.below(static_cast<uint64_t>(vocab))));
      sequence.supervised.push_back(t > length / 3 ? 1 : 0);
    }
    sequences.push_back(std::move(sequence));
  }
  return sequences;
}

}  // namespace brick::train
