// Blocks on disk: what is saved comes back, and what was altered is refused.
#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "brick/io/json_file.h"
#include "brick/io/safetensors.h"
#include "brick/model/load.h"
#include "brick/model/save.h"
#include "model/compare.h"
#include "model/expect_error.h"
#include "model/tiny_model.h"

namespace brick::model {
namespace {

using nlohmann::json;
using tensor::DType;
using tensor::SparseCoding;

constexpr LoadOptions kNoTokenizer{.tokenizer = false};

Model reloaded(const Model& model) {
  static const TempFolder folder;
  static int count = 0;
  const std::string path = folder.folder(std::to_string(count++));
  save_block(model, path);
  Model back = load_model(path, {.tokenizer = model.tokenizer.has_value()});
  back.drop_pages();  // the weights are read again
  return back;
}

void expect_same_bytes(const tensor::Matrix& a, const tensor::Matrix& b) {
  ASSERT_EQ(a.is_sparse(), b.is_sparse());
  ASSERT_EQ(a.dtype(), b.dtype());
  ASSERT_EQ(a.bytes(), b.bytes());
  if (!a.is_sparse()) {
    EXPECT_EQ(std::memcmp(a.dense_view().data, b.dense_view().data, size_t(a.bytes())), 0);
    return;
  }
  EXPECT_EQ(a.sparse_view().coding, b.sparse_view().coding);
  const auto x = a.sparse_matrix().value_bytes(), y = b.sparse_matrix().value_bytes();
  ASSERT_EQ(x.size(), y.size());
  EXPECT_EQ(std::memcmp(x.data(), y.data(), x.size()), 0);
}

TEST(Block, EveryCodingComesBackBitForBit) {
  struct Case {
    DType dense;
    SparseCoding coding;
    DType dtype;
  };
  for (const Case& c :
       {Case{DType::kF32, SparseCoding::kValues, DType::kF32}, Case{DType::kF32, SparseCoding::kValues, DType::kBF16},
        Case{DType::kF16, SparseCoding::kValues, DType::kF16}, Case{DType::kF32, SparseCoding::kQ4, DType::kQ4_1},
        Case{DType::kQ4_1, SparseCoding::kParent, DType::kQ4_1},
        Case{DType::kQ4_0, SparseCoding::kParent, DType::kQ4_0},
        Case{DType::kQ8_0, SparseCoding::kParent, DType::kQ8_0}}) {
    SCOPED_TRACE(std::string(tensor::name(c.coding)) + " " + std::string(tensor::name(c.dtype)));
    const Model block =
        tiny_block(tiny_model({.dtype = c.dense, .embedding_dtype = DType::kQ8_0}), 0.6, c.coding, c.dtype);
    const Model back = reloaded(block);
    expect_same_model(block, back);
    expect_same_bytes(block.embedding, back.embedding);
    for (size_t i = 0; i < block.layers.size(); ++i)
      for (Proj proj : kProjs) expect_same_bytes(block.layers[i][proj], back.layers[i][proj]);
    EXPECT_EQ(fingerprint(back), block.block.parent);
    EXPECT_EQ(back.block.mask_hash, mask_hash(block));
    EXPECT_EQ(back.nonzeros(), block.nonzeros());
  }
}

TEST(Block, KeepsItsSpecAndPartialMasks) {
  Model block = tiny_block(tiny_model({.tied = false, .tokenizer = true}));
  block.layers[1][Proj::kO] = tiny_model().layers[1][Proj::kO];
  block.block = {.method = "sparsegpt",
                 .pattern = "2:4",
                 .sparsity = 0.55,
                 .values = "f32",
                 .parent = "p",
                 .mask_hash = mask_hash(block),
                 .cut = std::nullopt,
                 .provenance = R"({"seed":1})"};
  const Model back = reloaded(block);
  expect_same_model(block, back);
  EXPECT_FALSE(back.layers[1][Proj::kO].is_sparse());
  EXPECT_EQ(back.block.method, "sparsegpt");
  EXPECT_EQ(back.block.pattern, "2:4");
  EXPECT_EQ(back.block.sparsity, 0.55);
  EXPECT_EQ(back.block.values, "f32");
  EXPECT_EQ(back.block.parent, "p");
  EXPECT_EQ(back.block.provenance, R"({"seed":1})");
  EXPECT_EQ(back.tokenizer->tokens, block.tokenizer->tokens);
  EXPECT_EQ(back.tokenizer->chat_template, block.tokenizer->chat_template);
  EXPECT_EQ(back.tokenizer->eos, block.tokenizer->eos);
}

TEST(Block, LayersMayDifferInWidth) {
  Model block = tiny_model();
  Rng rng(0);
  const auto matrix = [&](int64_t rows, int64_t cols) {
    return tensor::Matrix::dense(random_tensor(rows, cols, 0.1, DType::kF32, rng));
  };
  Layer& layer = block.layers[1];
  layer.shape = {2, 1, 8, 40};
  layer[Proj::kQ] = matrix(16, 32);
  layer[Proj::kK] = matrix(8, 32);
  layer[Proj::kV] = matrix(8, 32);
  layer[Proj::kO] = matrix(32, 16);
  layer[Proj::kGate] = matrix(40, 32);
  layer[Proj::kUp] = matrix(40, 32);
  layer[Proj::kDown] = matrix(32, 40);
  block.block.method = "llm-pruner";
  const Model back = reloaded(block);
  expect_same_model(block, back);
  EXPECT_EQ(back.layers[1].shape.ffn, 40);
  EXPECT_EQ(back.block.mask_hash, "");
}

TEST(Block, ModelsInBlockFormatsStayTheirSize) {
  const Model model = tiny_model({.dtype = DType::kQ4_1, .embedding_dtype = DType::kQ8_0});
  const Model back = reloaded(model);
  expect_same_bytes(model.layers[0][Proj::kQ], back.layers[0][Proj::kQ]);
  EXPECT_EQ(back.weight_bytes(), model.weight_bytes());
  EXPECT_FALSE(back.block.is_block());
}

TEST(Block, EveryBlockFormatIsHeld) {
  for (DType dtype : {DType::kQ5_0, DType::kQ5_1, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K}) {
    const Model model =
        tiny_model({.layers = 1, .hidden = 256, .ffn = 256, .dtype = DType::kQ8_0, .embedding_dtype = dtype});
    const Model back = reloaded(model);
    expect_same_bytes(model.embedding, back.embedding);
    EXPECT_EQ(fingerprint(back), fingerprint(model));
  }
}

TEST(Block, SummaryIsOfTheHeaders) {
  const TempFolder folder;
  const Model block = tiny_block(tiny_model(), 0.5, SparseCoding::kValues, DType::kBF16);
  save_block(block, folder.folder("b"));
  const ModelSummary summary = summarise(folder.file("b"), false);
  EXPECT_EQ(summary.architecture, "llama");
  EXPECT_EQ(summary.dtype, "bf16");
  EXPECT_EQ(summary.parameters, block.parameters());
  EXPECT_EQ(summary.nonzeros, block.nonzeros());
  EXPECT_EQ(summary.bytes, block.weight_bytes());
  EXPECT_EQ(summary.layers, 2);
  EXPECT_EQ(summary.ffn, 64);
  EXPECT_EQ(summary.block.method, "random");
  EXPECT_EQ(summarise(folder.file("b"), true).nonzeros, block.nonzeros());
}

// Saves a block, edits its two files and loads it.
struct Files {
  json config;
  std::vector<std::pair<std::string, tensor::TensorView>> tensors;
};
void expect_refused(ErrorCode code, const std::string& part, const std::function<void(Files&)>& edit) {
  const TempFolder folder;
  save_block(tiny_block(tiny_model({.embedding_dtype = DType::kQ8_0})), folder.folder("a"));
  const auto file = io::SafetensorsFile::open(folder.file("a/model.safetensors"));
  Files files{io::read_json_file(folder.file("a/config.json")), {}};
  for (const auto& info : file.tensors()) files.tensors.emplace_back(info.name, file.tensor(info));
  edit(files);
  folder.folder("b");
  io::write_json_file(folder.file("b/config.json"), files.config);
  io::SafetensorsWriter writer;
  for (const auto& [name, view] : files.tensors) writer.add_tensor(name, view);
  writer.write(folder.file("b/model.safetensors"));
  expect_error(code, part, [&] { load_model(folder.file("b"), kNoTokenizer); });
}

TEST(Block, RefusesWhatWasAlteredByName) {
  const std::string q = "model.layers.0.self_attn.q_proj.weight";
  const auto find = [](Files& f, const std::string& name) -> tensor::TensorView& {
    for (auto& [key, view] : f.tensors)
      if (key == name) return view;
    throw std::out_of_range(name);
  };
  const auto erase = [](Files& f, const std::string& name) {
    std::erase_if(f.tensors, [&](const auto& t) { return t.first == name; });
  };
  std::vector<std::byte> bytes;
  const auto edited = [&](tensor::TensorView& view, const std::function<void(std::vector<std::byte>&)>& edit) {
    bytes.assign(view.bytes.begin(), view.bytes.end());
    edit(bytes);
    view.bytes = bytes;
  };

  expect_refused(ErrorCode::kUnsupported, "format is 2", [](Files& f) { f.config["brick"]["format"] = 2; });
  expect_refused(ErrorCode::kCorrupt, "layers", [](Files& f) { f.config["brick"]["layers"].erase(0); });
  expect_refused(ErrorCode::kCorrupt, "tensors", [](Files& f) { f.config["brick"].erase("tensors"); });
  expect_refused(ErrorCode::kCorrupt, q, [&](Files& f) { f.config["brick"]["tensors"].erase(q); });
  expect_refused(ErrorCode::kUnsupported, "coding",
                 [&](Files& f) { f.config["brick"]["tensors"][q]["coding"] = "lz"; });
  expect_refused(ErrorCode::kUnsupported, "dtype", [&](Files& f) { f.config["brick"]["tensors"][q]["dtype"] = "u8"; });
  expect_refused(ErrorCode::kCorrupt, q, [&](Files& f) { f.config["brick"]["tensors"][q]["dtype"] = "bf16"; });
  expect_refused(ErrorCode::kCorrupt, q, [&](Files& f) { f.config["brick"]["tensors"][q]["shape"] = {32, 320}; });
  expect_refused(ErrorCode::kCorrupt, q, [&](Files& f) { f.config["brick"]["tensors"][q]["kept"] = 1; });
  expect_refused(ErrorCode::kCorrupt, "mask", [](Files& f) { f.config["brick"]["mask_hash"] = std::string(64, '0'); });
  expect_refused(ErrorCode::kCorrupt, "inverse_frequency",
                 [](Files& f) { f.config["brick"]["inverse_frequency"].erase(0); });
  expect_refused(ErrorCode::kNotFound, q + ".mask", [&](Files& f) { erase(f, q + ".mask"); });
  expect_refused(ErrorCode::kNotFound, q + ".values", [&](Files& f) { erase(f, q + ".values"); });
  expect_refused(ErrorCode::kNotFound, "model.norm.weight", [&](Files& f) { erase(f, "model.norm.weight"); });
  expect_refused(ErrorCode::kUnsupported, "extra.weight",
                 [&](Files& f) { f.tensors.emplace_back("extra.weight", find(f, "model.norm.weight")); });
  expect_refused(ErrorCode::kCorrupt, q, [&](Files& f) {  // one more weight kept than there are values
    edited(find(f, q + ".mask"), [](auto& b) { b[0] = std::byte{0xFF}; });
  });
  expect_refused(ErrorCode::kCorrupt, "beyond", [&](Files& f) {  // a padding bit
    edited(find(f, q + ".mask"), [](auto& b) { b[7] |= std::byte{0x80}; });
  });
  expect_refused(ErrorCode::kCorrupt, "altered",
                 [&](Files& f) {  // the same number of weights in other places
                   edited(find(f, q + ".mask"), [](auto& b) { std::swap(b[0], b[1]); });
                 });
  expect_refused(ErrorCode::kCorrupt, q, [&](Files& f) {
    auto& view = find(f, q + ".values");
    view.shape[0] -= 1;
    view.bytes = view.bytes.first(view.bytes.size() - 4);
  });
}

}  // namespace
}  // namespace brick::model
