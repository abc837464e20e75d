#include "brick/model/from_zeros.h"

#include <gtest/gtest.h>

#include <limits>

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

TEST(FromZeros, RefusesDenseModelsAndBlocks) {
  const TempFolder folder;
  expect_error(ErrorCode::kInvalidInput, "0.0 %", [] { block_from_zeros(tiny_model(), DType::kF32); });
  expect_error(ErrorCode::kInvalidInput, "random", [] { block_from_zeros(tiny_block(tiny_model()), DType::kF32); });
  Model huge = pruned_elsewhere(folder, 0.5);
  expect_error(ErrorCode::kInvalidInput, "q8_0", [&] { block_from_zeros(huge, DType::kQ8_0); });
  tensor::Tensor values = huge.layers[1][Proj::kV].to_f32();
  values.f32()[3] = 1e6f;
  huge.layers[1][Proj::kV] = tensor::Matrix::dense(std::move(values));
  expect_error(ErrorCode::kNumeric, "layers.1.self_attn.v_proj", [&] { block_from_zeros(huge, DType::kF16); });
}

}  // namespace
}  // namespace brick::model
