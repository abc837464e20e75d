#include "brick/model/model.h"

#include <gtest/gtest.h>

#include "model/expect_error.h"
#include "model/tiny_model.h"

namespace brick::model {
namespace {

TEST(Model, CountsItsWeights) {
  const Model model = tiny_model();
  const int64_t linear = 2 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 64 * 32), rest = 96 * 32 + 5 * 32;
  EXPECT_EQ(model.linear_parameters(), linear);
  EXPECT_EQ(model.parameters(), linear + rest);
  EXPECT_EQ(model.nonzeros(), linear + rest);
  EXPECT_EQ(model.weight_bytes(), 4 * (linear + rest));
  EXPECT_EQ(tiny_model({.tied = false}).parameters(), linear + rest + 96 * 32);
  const Model block = tiny_block(model, 0.5);
  EXPECT_EQ(block.parameters(), linear + rest);
  EXPECT_NEAR(static_cast<double>(block.nonzeros() - rest), 0.5 * linear, 0.05 * linear);
}

TEST(Fingerprint, SeesWhatPruningLeavesAlone) {
  const Model model = tiny_model();
  const std::string own = fingerprint(model);
  EXPECT_EQ(own, fingerprint(tiny_block(model)));
  EXPECT_NE(own, fingerprint(tiny_model({.seed = 1})));
  EXPECT_NE(own, fingerprint(tiny_model({.vocab = 97})));
  Model rounded = model;
  rounded.embedding = tensor::Matrix::dense(tensor::convert(model.embedding.tensor_view(), tensor::DType::kBF16));
  EXPECT_EQ(own, fingerprint(rounded));
  Model changed = model;
  changed.final_norm[3] += 0.1f;
  EXPECT_NE(own, fingerprint(changed));
}

TEST(MaskHash, IsOfTheMasksAlone) {
  const Model model = tiny_model();
  EXPECT_EQ(mask_hash(model), "");
  const Model block = tiny_block(model);
  EXPECT_EQ(mask_hash(block).size(), 64u);
  EXPECT_EQ(mask_hash(block), mask_hash(tiny_block(tiny_model({.seed = 5}))));
  EXPECT_EQ(mask_hash(block), mask_hash(tiny_block(model, 0.5, tensor::SparseCoding::kValues, tensor::DType::kBF16)));
  EXPECT_NE(mask_hash(block), mask_hash(tiny_block(model, 0.5, tensor::SparseCoding::kValues, tensor::DType::kF32, 1)));
  Model swapped = block;
  std::swap(swapped.layers[0], swapped.layers[1]);
  EXPECT_NE(mask_hash(block), mask_hash(swapped));
}

TEST(CheckShapes, NamesTheMatrix) {
  const auto faulty = [](const std::string& part, auto&& edit) {
    Model model = tiny_model();
    check_shapes(model);
    edit(model);
    expect_error(ErrorCode::kCorrupt, part, [&] { check_shapes(model); });
  };
  faulty("model.layers.1.mlp.up_proj.weight is 32 x 64",
         [](Model& m) { m.layers[1][Proj::kUp] = m.layers[1][Proj::kDown]; });
  faulty("model.layers.0.self_attn.v_proj.weight is missing", [](Model& m) { m.layers[0][Proj::kV] = {}; });
  faulty("model.embed_tokens.weight", [](Model& m) { m.embedding = m.layers[0][Proj::kQ]; });
  faulty("lm_head.weight", [](Model& m) { m.config.tied_head = false; });
  faulty("lm_head.weight", [](Model& m) { m.own_head = m.embedding; });
  faulty("model.norm.weight", [](Model& m) { m.final_norm.pop_back(); });
  faulty("model.layers.1.input_layernorm.weight", [](Model& m) { m.layers[1].attention_norm.push_back(1); });
  faulty("1 layers", [](Model& m) { m.layers.pop_back(); });
  faulty("layer 0", [](Model& m) { m.layers[0].shape.kv_heads = 3; });
  faulty("head size", [](Model& m) { m.layers[0].shape.head_dim = 16; });
}

}  // namespace
}  // namespace brick::model
