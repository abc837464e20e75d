// Training with activations held in bfloat16, beside float32's and PEFT's golden values.
#include "brick/model/bf16_layers.h"

#include <gtest/gtest.h>

#include "brick/base/cpu.h"
#include "model/tiny_model.h"
#include "train/golden.h"
#include "train/gradients.h"

namespace brick::train {
namespace {

using kernels::Compute;
using model::Activations;

const Golden& golden() {
  static const Golden loaded = load_golden();
  return loaded;
}

// Activations and operands have eight bits, layers two or three: a percent of a gradient's length, 0.3 % of the loss.
constexpr double kAngle = 1e-3, kNorm = 2e-2, kLoss = 3e-3;

class Bf16Layers : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!has_bf16_arithmetic()) GTEST_SKIP() << "no bfloat16 arithmetic on " << name(active_isa());
  }
};

void expect_near(const LossAndGradients& got, double loss, const model::Adapter& gradients) {
  EXPECT_NEAR(got.loss, loss, kLoss * loss);
  const Difference worst = worst_difference(got.gradients, gradients);
  EXPECT_LE(worst.angle, kAngle);
  EXPECT_LE(worst.norm, kNorm);
}

LossAndGradients in_bf16(const model::Model& model, const model::Adapter& adapter,
                         std::span<const data::TokenSequence> sequences, Activations activations = Activations::kKeep,
                         bool cut = true) {
  return loss_and_gradients(model, {&adapter, true}, sequences, activations, cut, Compute::kBf16);
}
// Of the golden batch.
LossAndGradients in_bf16(const model::Adapter& adapter, Activations activations = Activations::kKeep, bool cut = true) {
  return in_bf16(golden().model, adapter, golden().sequences, activations, cut);
}

TEST_F(Bf16Layers, LossAndGradientsMatchPeftInFloat32) {
  const auto got = in_bf16(golden().adapter);
  expect_near(got, golden().loss, golden().gradients);
  EXPECT_NE(got.loss, golden().loss);
}

TEST_F(Bf16Layers, RecomputedActivationsGiveTheSameBits) {
  const auto kept = in_bf16(golden().adapter);
  const auto again = in_bf16(golden().adapter, Activations::kRecompute);
  EXPECT_EQ(kept.loss, again.loss);
  EXPECT_TRUE(same_bits(kept.gradients, again.gradients));
}

TEST_F(Bf16Layers, WholeAndCutLastLayersAgree) {
  const auto cut = in_bf16(golden().adapter);
  const auto whole = in_bf16(golden().adapter, Activations::kKeep, false);
  expect_near(cut, whole.loss, whole.gradients);
}

TEST_F(Bf16Layers, UnequalWidthsFewTargetsAndOddSizes) {
  model::Model model = model::tiny_model({.layers = 3});
  model.layers[1] = model::tiny_model({.heads = 2, .kv_heads = 1, .ffn = 40, .seed = 4}).layers[0];
  const auto sequences = random_sequences(3, model.config.vocab, 2);
  for (const char* targets : {"all", "q_proj,down_proj", "v_proj"}) {
    model::Adapter adapter = model::make_adapter(model, {.rank = 3, .targets = model::parse_targets(targets)}, 0);
    model::randomise(adapter, 1);
    const auto want = loss_and_gradients(model, {&adapter, true}, sequences);
    expect_near(in_bf16(model, adapter, sequences), want.loss, want.gradients);
  }
}

TEST_F(Bf16Layers, MaskedAdaptersOfABlock) {
  const model::Model block = model::tiny_block(model::tiny_model({.layers = 3}), 0.5);
  const auto sequences = random_sequences(3, block.config.vocab, 2);
  for (const char* targets : {"all", "q_proj,down_proj"}) {
    model::Adapter adapter =
        model::make_adapter(block, {.rank = 3, .targets = model::parse_targets(targets), .masked = true}, 0);
    model::randomise(adapter, 1);
    const auto want = loss_and_gradients(block, {&adapter, true}, sequences);
    const auto kept = in_bf16(block, adapter, sequences);
    expect_near(kept, want.loss, want.gradients);
    EXPECT_TRUE(same_bits(kept.gradients, in_bf16(block, adapter, sequences, Activations::kRecompute).gradients));
    adapter.config.masked = false;
    EXPECT_GT(worst_difference(in_bf16(block, adapter, sequences).gradients, want.gradients).angle, 2 * kAngle);
  }
}

// A prompt in two pieces that fill the cache, then two continuations side by side, of heads of odd sizes.
TEST_F(Bf16Layers, CachedPiecesMatchTheWholePrompt) {
  constexpr double kHidden = 3e-2;  // of the largest value; eight bits through two layers
  for (const int64_t head_dim : {8, 40}) {
    const model::Model model = model::tiny_model({.head_dim = head_dim});
    model::Adapter adapter = model::make_adapter(model, {.rank = 3, .targets = model::parse_targets("all")}, 0);
    model::randomise(adapter, 1);
    std::vector<int32_t> ids = random_sequences(1, model.config.vocab, 5, 60)[0].ids;
    ids.resize(60);
    const std::vector<int64_t> whole{0, 60};
    kernels::Context exact, narrow(Compute::kBf16);
    model::Transformer wanted_by(model, exact, 60), by_pieces(model, narrow, 60);
    const tensor::MatView wanted = wanted_by.forward({ids, whole}, {&adapter});
    double largest = 0;
    for (int64_t t = 0; t < 60; ++t)
      for (int64_t i = 0; i < wanted.cols; ++i) largest = std::max(largest, std::fabs(double{wanted(t, i)}));
    const auto expect_rows = [&](tensor::MatView got, int64_t first) {
      for (int64_t t = 0; t < got.rows; ++t)
        for (int64_t i = 0; i < got.cols; ++i)
          ASSERT_NEAR(got(t, i), wanted(first + t, i), kHidden * largest) << head_dim << " " << first + t;
    };
    model::KvCache cache(model, 60);
    expect_rows(by_pieces.extend(std::span(ids).first(40), {&adapter}, cache), 0);
    EXPECT_NE(cache.keys[0].f32()[0], 0.0f);
    // Each of two continues the 40 cached tokens on its own.
    std::vector<int32_t> twice(ids.begin() + 40, ids.end());
    twice.insert(twice.end(), ids.begin() + 40, ids.end());
    const std::vector<int64_t> offsets{0, 20, 40};
    const tensor::MatView both = by_pieces.extend_each({twice, offsets}, {&adapter}, cache);
    expect_rows(both.row_range(0, 20), 40);
    expect_rows(both.row_range(20, 40), 40);
    expect_rows(by_pieces.extend(std::span(ids).subspan(40), {&adapter}, cache), 40);
  }
}

// As calibration walks: a layer alone, two sequences side by side.
TEST_F(Bf16Layers, HooksSeeTheInputsOfALayer) {
  constexpr double kInput = 2e-2;  // of the largest value
  const model::Model model = model::tiny_model();
  const std::vector<int32_t> ids = random_sequences(1, model.config.vocab, 5, 60)[0].ids;
  const std::vector<int64_t> offsets{0, 25, 60};
  const auto seen_in = [&](Compute compute) {
    kernels::Context context(compute);
    model::Transformer transformer(model, context, 60);
    tensor::Tensor x = tensor::matrix(60, model.config.hidden);
    transformer.embed(std::span(ids).first(60), x.mat());
    std::vector<std::pair<model::Proj, tensor::Tensor>> seen;
    transformer.layer_forward(0, offsets, x.mat(), [&](int64_t layer, model::Proj proj, tensor::ConstMatView inputs) {
      EXPECT_EQ(layer, 0);
      tensor::Tensor copy = tensor::matrix(inputs.rows, inputs.cols);
      for (int64_t t = 0; t < inputs.rows; ++t) std::copy_n(inputs.row(t), inputs.cols, copy.mat().row(t));
      seen.emplace_back(proj, std::move(copy));
    });
    seen.emplace_back(model::Proj::kDown, std::move(x));  // the layer's output
    return seen;
  };
  const auto want = seen_in(Compute::kF32), got = seen_in(Compute::kBf16);
  ASSERT_EQ(want.size(), 5u);
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) {
    EXPECT_EQ(got[i].first, want[i].first);
    ASSERT_EQ(got[i].second.shape(), want[i].second.shape());
    const Difference d = difference(got[i].second, want[i].second);
    EXPECT_LE(d.angle, kInput * kInput) << i;
    EXPECT_LE(d.norm, kInput) << i;
    EXPECT_GT(d.angle, 0) << i;  // bfloat16 it was
  }
}

TEST_F(Bf16Layers, NegativeControlOneChangedFactorIsSeen) {
  model::Adapter changed = golden().adapter.clone();
  tensor::Tensor& b = changed.layers[0][static_cast<size_t>(model::Proj::kGate)].b;
  for (int64_t i = 0; i < b.size(); ++i) b.f32()[i] += 0.1f;
  const auto got = in_bf16(changed);
  EXPECT_GT(worst_difference(got.gradients, golden().gradients).angle, 2 * kAngle);
}

}  // namespace
}  // namespace brick::train
