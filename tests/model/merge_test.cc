#include "brick/model/merge.h"

#include <gtest/gtest.h>

#include "model/compare.h"
#include "model/expect_error.h"
#include "model/tiny_model.h"

namespace brick::model {
namespace {

using tensor::DType;
using tensor::SparseCoding;

constexpr float kF32Rounding = 2e-6f;   // sums of a few products of numbers below 4
constexpr float kBf16Rounding = 8e-3f;  // half a unit in the 8th bit of numbers below 4
constexpr float kQ4Rounding = 0.3f;     // half a step of a sixteenth of the range, and its f16 scales

Adapter filled_adapter(const Model& model, bool masked, std::vector<Proj> targets = {kProjs.begin(), kProjs.end()}) {
  Adapter adapter = make_adapter(model, {.rank = 3, .alpha = 2, .targets = std::move(targets), .masked = masked}, 1);
  randomise(adapter, 2, 0.3);
  return adapter;
}

// W + c (M *) B A in double, entry by entry.
tensor::Matrix expected(const tensor::Matrix& weight, const LoraPair& pair, double scale, bool masked) {
  tensor::Tensor out = weight.to_f32();
  for (int64_t r = 0; r < weight.rows(); ++r) {
    for (int64_t c = 0; c < weight.cols(); ++c) {
      if (masked && !weight.sparse_view().mask.kept(r, c)) continue;
      double delta = 0;
      for (int64_t k = 0; k < pair.a.shape()[0]; ++k) delta += double{pair.b.mat()(r, k)} * double{pair.a.mat()(k, c)};
      out.mat()(r, c) = static_cast<float>(double{out.mat()(r, c)} + scale * delta);
    }
  }
  return tensor::Matrix::dense(std::move(out));
}

void expect_merged(const Model& model, const Adapter& adapter, const std::string& values, DType dtype, bool sparse,
                   float tolerance) {
  const Model merged = merge(model, adapter, values);
  check_shapes(merged);
  for_each_pair(adapter, [&](int64_t layer, Proj proj, const LoraPair& pair) {
    const tensor::Matrix& before = model.layers[static_cast<size_t>(layer)][proj];
    const tensor::Matrix& after = merged.layers[static_cast<size_t>(layer)][proj];
    EXPECT_EQ(after.dtype(), dtype);
    EXPECT_EQ(after.is_sparse(), sparse);
    const tensor::Matrix wanted =
        expected(before, pair, double{adapter.config.scale()}, adapter.config.masked && before.is_sparse());
    EXPECT_LE(largest_difference(after, wanted), tolerance) << weight_name(layer, proj);
    EXPECT_GT(largest_difference(after, before), 10 * kF32Rounding);
  });
}

TEST(Merge, AddsTheDeltaToDenseWeights) {
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_1}) {
    SCOPED_TRACE(std::string(tensor::name(dtype)));
    const Model model = tiny_model({.dtype = dtype});
    const Adapter adapter = filled_adapter(model, false);
    expect_merged(model, adapter, "f32", DType::kF32, false, kF32Rounding);
    expect_merged(model, adapter, "bf16", DType::kBF16, false, kBf16Rounding);
    expect_merged(model, adapter, "keep", dtype, false, dtype == DType::kF32 ? kF32Rounding : kQ4Rounding);
  }
}

TEST(Merge, MaskedKeepsTheMask) {
  const Model parent = tiny_model({.dtype = DType::kQ4_1});
  struct Case {
    SparseCoding coding;
    DType dtype, kept;
    float tolerance;
  };
  for (const Case& c : {Case{SparseCoding::kValues, DType::kF32, DType::kF32, kF32Rounding},
                        Case{SparseCoding::kValues, DType::kBF16, DType::kBF16, kBf16Rounding},
                        Case{SparseCoding::kQ4, DType::kQ4_1, DType::kQ4_1, kQ4Rounding},
                        Case{SparseCoding::kParent, DType::kQ4_1, DType::kBF16, kBf16Rounding}}) {
    SCOPED_TRACE(std::string(tensor::name(c.coding)) + " " + std::string(tensor::name(c.dtype)));
    const Model block = tiny_block(parent, 0.5, c.coding, c.dtype);
    const Adapter adapter = filled_adapter(block, true);
    expect_merged(block, adapter, "f32", DType::kF32, true, kF32Rounding);
    expect_merged(block, adapter, "bf16", DType::kBF16, true, kBf16Rounding);
    expect_merged(block, adapter, "keep", c.kept, true, c.tolerance);
    const Model merged = merge(block, adapter, "f32");
    EXPECT_EQ(mask_hash(merged), mask_hash(block));
    EXPECT_EQ(merged.block.mask_hash, block.block.mask_hash);
    EXPECT_EQ(merged.nonzeros(), block.nonzeros());
    EXPECT_EQ(fingerprint(merged), fingerprint(block));
  }
}

TEST(Merge, UnmaskedMakesABlockDense) {
  const Model block = tiny_block(tiny_model());
  const Adapter adapter = filled_adapter(block, false);
  expect_merged(block, adapter, "keep", DType::kF32, false, kF32Rounding);
  const Model merged = merge(block, adapter, "f32");
  EXPECT_EQ(merged.block.mask_hash, "");
  EXPECT_EQ(merged.nonzeros(), merged.parameters());
}

TEST(Merge, LeavesOtherWeightsAlone) {
  const Model block = tiny_block(tiny_model());
  const Adapter adapter = filled_adapter(block, true, {Proj::kV});
  const Model merged = merge(block, adapter, "bf16");
  EXPECT_EQ(merged.layers[0][Proj::kV].dtype(), DType::kBF16);
  EXPECT_EQ(merged.layers[0][Proj::kQ].dtype(), DType::kF32);
  EXPECT_EQ(largest_difference(merged.layers[0][Proj::kQ], block.layers[0][Proj::kQ]), 0.0f);
  EXPECT_EQ(merged.block.mask_hash, block.block.mask_hash);
}

TEST(Merge, RefusesValuesThatTheTypeCannotHold) {
  const Model half = tiny_model({.dtype = DType::kF16}), block = tiny_block(tiny_model());
  Adapter adapter = filled_adapter(half, false), masked = filled_adapter(block, true);
  adapter.config.alpha = 1e9;
  expect_error(ErrorCode::kNumeric, "layers.0.self_attn.q_proj", [&] { merge(half, adapter, "keep"); });
  merge(half, adapter, "bf16");
  masked.config.alpha = 1e300;
  expect_error(ErrorCode::kNumeric, "layers.0.self_attn.q_proj", [&] { merge(block, masked, "f32"); });
}

TEST(Merge, RefusesStrangers) {
  const Model model = tiny_model(), block = tiny_block(model);
  expect_error(ErrorCode::kMismatch, "masked", [&] { merge(model, filled_adapter(block, true), "f32"); });
  expect_error(ErrorCode::kInvalidInput, "q4", [&] { merge(model, filled_adapter(model, false), "q4"); });
}

}  // namespace
}  // namespace brick::model
