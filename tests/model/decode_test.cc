#include "brick/model/decode.h"

#include <gtest/gtest.h>

#include <cmath>

#include "brick/base/cpu.h"
#include "brick/model/transformer.h"
#include "model/expect_error.h"
#include "model/tiny_model.h"

namespace brick::model {
namespace {

const std::vector<int32_t> kPrompt{1, 20, 33, 4, 5, 60, 7, 8};

class DecodingABlock : public ::testing::Test {
 protected:
  void SetUp() override {
    if (active_isa() < Isa::kAvx2) GTEST_SKIP() << "BRICK_ISA or this CPU has no AVX2";
    block_.drop_pages = [this] { ++drops_; };
  }
  // Logits after the prompt and one more token.
  std::vector<float> logits(bool rounds) {
    kernels::Context context;
    context.set_rounds_activations(rounds);
    Decoder decoder(block_, context, {}, 32);
    EXPECT_EQ(decoder.weight_bytes() != block_.weight_bytes(), rounds);
    decoder.feed(kPrompt);
    const std::span<float> z = decoder.feed(std::vector<int32_t>{9});
    return {z.begin(), z.end()};
  }

  Model block_ = tiny_block(tiny_model(), 0.5, tensor::SparseCoding::kQ4, tensor::DType::kQ4_1);
  int drops_ = 0;
};

TEST_F(DecodingABlock, OfFourBitsStaysNearTheExactLogits) {
  const std::vector<float> exact = logits(false), rounded = logits(true);
  double error = 0, size = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    error += std::pow(double{rounded[i]} - exact[i], 2);
    size += std::pow(double{exact[i]}, 2);
  }
  EXPECT_GT(error, 0);
  EXPECT_LT(std::sqrt(error / size), 1e-2);
}

TEST_F(DecodingABlock, OfFourBitsMultipliesTheLayout) {
  kernels::Context context;
  Decoder stored(block_, context, {}, 32);  // made without rounding: no layouts
  context.set_rounds_activations(true);
  const auto run = [](Decoder& decoder) {
    decoder.feed(kPrompt);
    const std::span<float> z = decoder.feed(std::vector<int32_t>{9});
    return std::vector<float>(z.begin(), z.end());
  };
  const std::vector<float> int16 = run(stored);
  Decoder laid_out(block_, context, {}, 32);
  EXPECT_NE(run(laid_out), int16);
}

TEST_F(DecodingABlock, OfFourBitsGivesTheStoredPagesBack) {
  logits(false);
  EXPECT_EQ(drops_, 0);
  logits(true);
  EXPECT_EQ(drops_, 2);  // when laid out, and after the prompt
}

TEST(Decoding, NeedsAContext) {
  const Model model = tiny_model();
  kernels::Context context;
  for (const int64_t capacity : {0, -1})
    expect_error(ErrorCode::kInvalidInput, "a context of", [&] { Decoder(model, context, {}, capacity); });
}

TEST(Decoding, ALastLayerForTheRowsThatAreReadGivesTheSameRowsAndCache) {
  const Model model = tiny_model();
  kernels::Context context;
  const auto count = std::ssize(kPrompt);
  Transformer whole(model, context, count), cut(model, context, count);
  KvCache whole_cache(model, 2 * count), cut_cache(model, 2 * count);
  for (const int64_t first_read : {count - 1, int64_t{3}}) {  // the second time behind a cache
    const tensor::MatView wanted = whole.extend(kPrompt, {}, whole_cache);
    const tensor::MatView got = cut.extend(kPrompt, {}, cut_cache, first_read);
    for (int64_t i = 0; i < got.cols; ++i) {
      EXPECT_NE(got(first_read - 1, i), wanted(first_read - 1, i));  // it was left out
      for (int64_t t = first_read; t < count; ++t)
        ASSERT_NEAR(got(t, i), wanted(t, i), 1e-4) << t;  // float32; other kernels for few rows
    }
    ASSERT_EQ(cut_cache.length, whole_cache.length);
    for (size_t l = 0; l < model.layers.size(); ++l)
      for (int64_t t = 0; t < cut_cache.length; ++t)
        for (int64_t i = 0; i < cut_cache.keys[l].shape()[1]; ++i) {
          ASSERT_NEAR(cut_cache.keys[l].mat()(t, i), whole_cache.keys[l].mat()(t, i), 1e-5);
          ASSERT_NEAR(cut_cache.values[l].mat()(t, i), whole_cache.values[l].mat()(t, i), 1e-5);
        }
  }
}

TEST(Decoding, RefusesLogitsThatAreNotFinite) {
  for (const double temperature : {0.0, 1.0})
    for (const float value : {NAN, INFINITY}) {
      std::vector<float> logits{1, value, 2};
      Sampler sampler({.temperature = temperature});
      expect_error(ErrorCode::kNumeric, "not finite", [&] { sampler.pick(logits, {}); });
    }
}

}  // namespace
}  // namespace brick::model
