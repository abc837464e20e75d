// LoRA adapters as GGUF, read back as llama.cpp's llama-adapter.cpp reads them.
#include <gtest/gtest.h>

#include <algorithm>

#include "brick/io/gguf.h"
#include "brick/model/gguf_layout.h"
#include "brick/model/load.h"
#include "brick/model/merge.h"
#include "brick/model/save.h"
#include "model/compare.h"
#include "model/expect_error.h"
#include "model/tiny_model.h"

namespace brick::model {
namespace {

using tensor::DType;

constexpr LoadOptions kNoTokenizer{.tokenizer = false};
constexpr float kRounding = 1e-6f;  // float32 sums of a few products in another order

Adapter filled(const Model& model, LoraConfig config) {
  config.targets = parse_targets("all");
  Adapter adapter = make_adapter(model, config, 0);
  randomise(adapter, 1);
  return adapter;
}

// base + alpha / rank * B A, all from the two files alone.
float difference_to_merged(const std::string& base_file, const std::string& adapter_file,
                           const std::string& merged_file) {
  const io::GgufFile base = io::GgufFile::open(base_file), lora = io::GgufFile::open(adapter_file),
                     merged = io::GgufFile::open(merged_file);
  float largest = 0;
  for (const io::GgufTensorInfo& info : lora.tensors()) {
    if (!info.name.ends_with(".lora_a")) continue;
    const std::string name = info.name.substr(0, info.name.size() - 7);
    const tensor::Tensor a = tensor::to_f32(lora.tensor(info)), b = tensor::to_f32(lora.tensor(name + ".lora_b"));
    const tensor::Tensor from = tensor::to_f32(base.tensor(name)), to = tensor::to_f32(merged.tensor(name));
    const float scale = lora.require_f32("adapter.lora.alpha") / static_cast<float>(b.shape()[1]);
    for (int64_t r = 0; r < from.shape()[0]; ++r)
      for (int64_t c = 0; c < from.shape()[1]; ++c) {
        float sum = 0;
        for (int64_t k = 0; k < b.shape()[1]; ++k) sum += b.mat()(r, k) * a.mat()(k, c);
        largest = std::max(largest, std::fabs(from.mat()(r, c) + scale * sum - to.mat()(r, c)));
      }
  }
  return largest;
}

TEST(AdapterGguf, IsTheMergedModelsDifference) {
  const TempFolder folder;
  const Model model = tiny_model();
  export_gguf(model, DType::kF32, folder.file("base.gguf"));
  for (const bool rslora : {false, true}) {
    const Adapter adapter = filled(model, {.rank = 3, .alpha = 2.5, .rslora = rslora});
    export_adapter_gguf(adapter, model, DType::kF32, folder.file("lora.gguf"), true);
    export_gguf(merge(model, adapter, "f32"), DType::kF32, folder.file("merged.gguf"), true);
    EXPECT_LE(difference_to_merged(folder.file("base.gguf"), folder.file("lora.gguf"), folder.file("merged.gguf")),
              kRounding);
    const io::GgufFile file = io::GgufFile::open(folder.file("lora.gguf"));
    EXPECT_EQ(file.require_str("general.type"), "adapter");
    EXPECT_EQ(file.require_str("adapter.type"), "lora");
    EXPECT_EQ(file.require_str("general.architecture"), "llama");
    EXPECT_EQ(file.tensors().size(), 2u * 2 * kProjCount);
    // Negative control: rows that stay in Hugging Face's order are seen.
    Adapter other = filled(model, {.rank = 3, .alpha = 2.5, .rslora = rslora});
    float* b = other.at(1, Proj::kQ).b.f32();
    std::swap_ranges(b, b + 3, b + 3);
    export_adapter_gguf(other, model, DType::kF32, folder.file("other.gguf"), true);
    EXPECT_GT(difference_to_merged(folder.file("base.gguf"), folder.file("other.gguf"), folder.file("merged.gguf")),
              kRounding);
  }
}

TEST(AdapterGguf, HalvesAndRefusals) {
  const TempFolder folder;
  const Model model = tiny_model();
  const Adapter adapter = filled(model, {.rank = 2});
  export_adapter_gguf(adapter, model, DType::kF16, folder.file("a.gguf"));
  EXPECT_EQ(io::GgufFile::open(folder.file("a.gguf")).tensor("blk.0.attn_q.weight.lora_b").dtype, DType::kF16);
  expect_error(ErrorCode::kExists, "a.gguf",
               [&] { export_adapter_gguf(adapter, model, DType::kF16, folder.file("a.gguf")); });
  expect_error(ErrorCode::kInvalidInput, "q8_0",
               [&] { export_adapter_gguf(adapter, model, DType::kQ8_0, folder.file("b.gguf")); });
  expect_error(ErrorCode::kMismatch, "",
               [&] { export_adapter_gguf(adapter, tiny_model({.ffn = 96}), DType::kF32, folder.file("b.gguf")); });
  const Model block = tiny_block(model);
  const Adapter masked = make_adapter(block, {.targets = parse_targets("all"), .masked = true}, 0);
  expect_error(ErrorCode::kUnsupported, "masked",
               [&] { export_adapter_gguf(masked, block, DType::kF32, folder.file("b.gguf")); });
  EXPECT_FALSE(std::filesystem::exists(folder.file("b.gguf")));
}

}  // namespace
}  // namespace brick::model
