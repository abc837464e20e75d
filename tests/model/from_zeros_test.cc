#include "brick/model/from_zeros.h"

#include <gtest/gtest.h>

#include <set>

#include "brick/base/cpu.h"
#include "brick/kernels/sparse_pairs.h"
#include "brick/model/load.h"
#include "brick/model/save.h"
#include "model/compare.h"
#include "model/expect_error.h"
#include "model/tiny_model.h"

namespace brick::model {
namespace {

using tensor::DType;

constexpr LoadOptions kNoTokenizer{.tokenizer = false};

// What another tool leaves: a dense folder with zeros in it.
Model pruned_elsewhere(const TempFolder& folder, double sparsity) {
  export_hf(tiny_block(tiny_model(), sparsity), DType::kF32, folder.folder("dense"));
  return load_model(folder.file("dense"), kNoTokenizer);
}

TEST(FromZeros, FindsTheMasks) {
  const TempFolder folder;
  const Model known = tiny_block(tiny_model(), 0.5), dense = pruned_elsewhere(folder, 0.5);
  const Model block = block_from_zeros(dense, DType::kF32);
  expect_same_model(known, block);
  EXPECT_EQ(block.nonzeros(), known.nonzeros());
  EXPECT_EQ(block.block.mask_hash, known.block.mask_hash);
  EXPECT_EQ(block.block.parent, known.block.parent);
  EXPECT_EQ(block.block.method, "zeros");
  EXPECT_NEAR(block.block.sparsity, 0.5, 0.02);
  save_block(block, folder.folder("block"));
  expect_same_model(known, load_model(folder.file("block"), kNoTokenizer));
  EXPECT_EQ(block_from_zeros(dense, DType::kBF16).layers[1][Proj::kUp].dtype(), DType::kBF16);
}

TEST(FromZeros, MatricesWithoutZerosStay) {
  const TempFolder folder;
  Model model = pruned_elsewhere(folder, 0.5);
  model.layers[0][Proj::kQ] = tiny_model().layers[0][Proj::kQ];
  const Model block = block_from_zeros(model, DType::kF32);
  EXPECT_FALSE(block.layers[0][Proj::kQ].is_sparse());
  EXPECT_TRUE(block.layers[0][Proj::kK].is_sparse());
}

// Linear weights with zeros where (row + column) % group is in `dropped`.
Model without(const std::set<int64_t>& dropped, int64_t group) {
  Model model = tiny_model();
  for (Layer& layer : model.layers)
    for (tensor::Matrix& weight : layer.projections) {
      tensor::Tensor values = weight.to_f32();
      for (int64_t r = 0; r < weight.rows(); ++r)
        for (int64_t c = 0; c < weight.cols(); ++c)
          if (dropped.contains((r + c) % group)) values.mat()(r, c) = 0.0f;
      weight = tensor::Matrix::dense(std::move(values));
    }
  return model;
}

void put(tensor::Matrix& weight, int64_t r, int64_t c, float value) {
  tensor::Tensor values = weight.to_f32();
  values.mat()(r, c) = value;
  weight = tensor::Matrix::dense(std::move(values));
}

TEST(FromZeros, FindsNOfM) {
  const auto pattern_of = [](const Model& model) { return block_from_zeros(model, DType::kBF16).block.pattern; };
  Model model = without({0, 3}, 4);
  EXPECT_EQ(pattern_of(model), "2:4");
  EXPECT_EQ(pattern_of(without({0, 1, 2, 3}, 8)), "4:8");
  EXPECT_EQ(pattern_of(without({0, 1, 2}, 4)), "unstructured");
  EXPECT_EQ(pattern_of(without({0}, 4)), "unstructured");
  model.layers[0][Proj::kQ] = tiny_model().layers[0][Proj::kQ];  // not pruned
  EXPECT_EQ(pattern_of(model), "2:4");
  put(model.layers[1][Proj::kUp], 2, 2, 1.0f);  // (2 + 2) % 4 is dropped
  EXPECT_EQ(pattern_of(model), "unstructured");
}

TEST(FromZeros, KeepsAZeroWhereTwoOfFourLackAWeight) {
  Model model = without({0, 3}, 4);
  put(model.layers[1][Proj::kUp], 2, 3, 0.0f);  // (2 + 3) % 4 is kept
  const Model block = block_from_zeros(model, DType::kBF16);
  EXPECT_EQ(block.block.pattern, "2:4");
  EXPECT_EQ(block.block.sparsity, 0.5);
  for (const Layer& layer : block.layers)
    for (const tensor::Matrix& weight : layer.projections) {
      EXPECT_EQ(2 * weight.nonzeros(), weight.rows() * weight.cols());
      if (active_isa() >= Isa::kAvx2) {
        EXPECT_TRUE(kernels::SparsePairs::fits(weight.sparse_view()));
      }
    }
  expect_same_model(model, block_from_zeros(model, DType::kF32));
}

TEST(FromZeros, RefusesDenseModelsAndBlocks) {
  const TempFolder folder;
  expect_error(ErrorCode::kInvalidInput, "0.0 %", [] { block_from_zeros(tiny_model(), DType::kF32); });
  expect_error(ErrorCode::kInvalidInput, "random", [] { block_from_zeros(tiny_block(tiny_model()), DType::kF32); });
  Model huge = pruned_elsewhere(folder, 0.5);
  expect_error(ErrorCode::kInvalidInput, "q8_0", [&] { block_from_zeros(huge, DType::kQ8_0); });
  put(huge.layers[1][Proj::kV], 0, 3, 1e6f);
  expect_error(ErrorCode::kNumeric, "layers.1.self_attn.v_proj", [&] { block_from_zeros(huge, DType::kF16); });
}

}  // namespace
}  // namespace brick::model
