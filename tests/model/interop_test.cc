// With other people's software: files that transformers and PEFT wrote (tests/golden/make_peft.py), and files
// for tests/golden/check_interop.py to read.
#include <gtest/gtest.h>

#include <cstdlib>

#include "brick/io/npy.h"
#include "brick/io/safetensors.h"
#include "brick/model/load.h"
#include "brick/model/merge.h"
#include "brick/model/save.h"
#include "model/compare.h"
#include "model/cut_model.h"
#include "model/logits.h"
#include "model/tiny_model.h"

namespace brick::model {
namespace {

using tensor::DType;

constexpr float kMergeTolerance = 1e-6f;  // float32 sums of four products below 0.1 in another order

std::string golden(const std::string& name) { return std::string(BRICK_TEST_SOURCE_DIR) + "/golden/peft/" + name; }

// The largest difference from PEFT's merged weights.
float difference_from_peft(const Model& model, const std::string& adapter) {
  const auto merged = io::SafetensorsFile::open(golden(adapter + "/merged.safetensors"));
  float worst = 0;
  for (size_t i = 0; i < model.layers.size(); ++i)
    for (Proj proj : kProjs) {
      const auto wanted = tensor::Matrix::dense(merged.tensor(weight_name(int64_t(i), proj)), nullptr);
      worst = std::max(worst, largest_difference(model.layers[i][proj], wanted));
    }
  return worst;
}

TEST(Golden, TransformersFolderLoads) {
  const Model base = load_model(golden("base"), {.tokenizer = false});
  EXPECT_EQ(base.config.layers, 2);
  EXPECT_EQ(base.config.head_dim, 4);
  EXPECT_EQ(base.config.rope_theta, 500.0f);
  EXPECT_NE(base.config.rope_scaling.find("llama3"), std::string::npos);
  EXPECT_TRUE(base.own_head.has_value());
}

TEST(Golden, PeftsAdaptersMergeAsInPeft) {
  const Model base = load_model(golden("base"), {.tokenizer = false});
  for (const std::string name : {"plain", "rslora"}) {
    Adapter adapter = load_adapter(golden(name));
    EXPECT_EQ(adapter.config.rank, name == "plain" ? 4 : 3);
    EXPECT_EQ(adapter.config.rslora, name == "rslora");
    EXPECT_EQ(adapter.config.targets.size(), name == "plain" ? 3u : 7u);
    EXPECT_LE(difference_from_peft(merge(base, adapter, "f32"), name), kMergeTolerance) << name;
    // Negative control: one changed factor is seen.
    adapter.at(1, Proj::kDown).b.f32()[0] += 0.01f;
    EXPECT_GT(difference_from_peft(merge(base, adapter, "f32"), name), kMergeTolerance) << name;
  }
}

TEST(Interop, WritesFoldersForOthers) {
  const char* root = std::getenv("BRICK_INTEROP_DIR");
  if (root == nullptr) GTEST_SKIP() << "set BRICK_INTEROP_DIR to a new folder, for tests/golden/check_interop.py";
  const auto folder = [&](const std::string& name) {
    const auto path = std::filesystem::path(root) / name;
    std::filesystem::create_directories(path);
    return path.string();
  };
  const Model model = tiny_model({.tied = false, .tokenizer = true});
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16})
    export_hf(model, dtype, folder("hf-" + std::string(tensor::name(dtype))));
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_1})
    export_gguf(model, dtype, std::string(root) + "/" + std::string(tensor::name(dtype)) + ".gguf");
  for (const bool rslora : {false, true}) {
    const std::string name = rslora ? "rslora" : "plain";
    Adapter adapter =
        make_adapter(model, {.rank = 3, .alpha = 2.5, .rslora = rslora, .targets = parse_targets("all")}, 0);
    randomise(adapter, 1);
    save_adapter(adapter, folder("hf-f32"), folder("adapter-" + name));
    export_hf(merge(model, adapter, "f32"), DType::kF32, folder("merged-" + name));
  }
  const Model uneven = tiny_cut_block();
  export_hf(uneven, DType::kF32, folder("padded"), true);
  const tensor::Tensor said = logits_of(uneven);
  io::NpyWriter writer(std::string(root) + "/padded.npy", said.shape()[0], said.shape()[1]);
  writer.append({said.f32(), static_cast<size_t>(said.size())});
  writer.commit();
  const Model block = tiny_block(model);
  save_block(block, folder("block"));
  save_adapter(make_adapter(block, {.targets = parse_targets("all"), .masked = true}, 0), "", folder("adapter-masked"));
}

}  // namespace
}  // namespace brick::model
