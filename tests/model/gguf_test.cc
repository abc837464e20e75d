// GGUF files: round trips through our own writer, the order of rows, and what is refused by name.
#include "brick/io/gguf.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <map>

#include "brick/model/gguf_layout.h"
#include "brick/model/load.h"
#include "brick/model/save.h"
#include "model/compare.h"
#include "model/expect_error.h"
#include "model/tiny_model.h"

namespace brick::model {
namespace {

using tensor::DType;

constexpr LoadOptions kNoTokenizer{.tokenizer = false};

TEST(GgufLayout, RowsAreInterleaved) {
  // convert_hf_to_gguf.py: w.reshape(H, 2, hd/2, in).swapaxes(1, 2).
  const std::vector<int64_t> expected{0, 4, 1, 5, 2, 6, 3, 7};
  for (int64_t head = 0; head < 3; ++head)
    for (int64_t i = 0; i < 8; ++i) {
      EXPECT_EQ(row_of_gguf(head * 8 + i, 8), head * 8 + expected[static_cast<size_t>(i)]);
      EXPECT_EQ(gguf_row(row_of_gguf(head * 8 + i, 8), 8), head * 8 + i);
    }
}

TEST(Gguf, EveryTypeComesBack) {
  const std::vector<std::pair<DType, float>> types{{DType::kF32, 0.0f},   {DType::kF16, 2e-3f}, {DType::kBF16, 1e-2f},
                                                   {DType::kQ8_0, 2e-2f}, {DType::kQ4_0, 0.3f}, {DType::kQ4_1, 0.3f}};
  const TempFolder folder;
  for (const auto& [dtype, tolerance] : types) {
    for (const bool tied : {true, false}) {
      SCOPED_TRACE(std::string(tensor::name(dtype)) + (tied ? " tied" : ""));
      const std::string file = folder.file(std::string(tensor::name(dtype)) + (tied ? "-tied" : "") + ".gguf");
      const Model model = tiny_model({.tied = tied});
      export_gguf(model, dtype, file);
      const Model back = load_model(file, kNoTokenizer);
      back.drop_pages();  // the weights are read again
      expect_same_model(model, back, tolerance);
      EXPECT_EQ(back.layers[1][Proj::kDown].dtype(), dtype);
      if (tied && tensor::is_quantised(dtype)) {
        EXPECT_EQ(back.embedding.dtype(), DType::kQ8_0);
      }
      const ModelSummary summary = summarise(file, false);
      EXPECT_EQ(summary.dtype, tensor::name(dtype));
      EXPECT_EQ(summary.parameters, model.parameters());
      EXPECT_EQ(summary.bytes, back.weight_bytes());
      EXPECT_EQ(summary.kv_heads, 2);
    }
  }
}

// Rows of 256, so that nothing falls back.
TEST(Gguf, SuperBlocksComeBack) {
  const TempFolder folder;
  const Model model = tiny_model({.hidden = 256, .heads = 32, .kv_heads = 16, .ffn = 256, .tied = false});
  for (const auto& [dtype, tolerance] : {std::pair{DType::kQ4_K, 0.2f}, {DType::kQ6_K, 0.06f}}) {
    const std::string file = folder.file(std::string(tensor::name(dtype)) + ".gguf");
    export_gguf(model, dtype, file);
    const Model back = load_model(file, kNoTokenizer);
    expect_same_model(model, back, tolerance);
    EXPECT_EQ(back.layers[0][Proj::kQ].dtype(), dtype);
    EXPECT_EQ(back.own_head->dtype(), DType::kQ6_K);
    // As they are, but for the order of rows.
    export_gguf(back, dtype, folder.file("again.gguf"), true);
    expect_same_model(back, load_model(folder.file("again.gguf"), kNoTokenizer));
  }
  expect_error(ErrorCode::kInvalidInput, "q5_k", [&] { export_gguf(model, DType::kQ5_K, folder.file("none.gguf")); });
}

TEST(Gguf, SameWeightsWriteTheSameBytes) {
  const TempFolder folder;
  for (DType dtype : {DType::kQ8_0, DType::kQ4_0, DType::kQ4_1}) {
    const Model model = tiny_model({.kv_heads = 1, .dtype = dtype, .embedding_dtype = DType::kQ8_0});
    export_gguf(model, dtype, folder.file("a.gguf"), true);
    const Model back = load_model(folder.file("a.gguf"), kNoTokenizer);
    expect_same_model(model, back);  // no rounding again
    EXPECT_EQ(fingerprint(model), fingerprint(back));
    // The dequantised folders are the same model.
    export_hf(back, DType::kBF16, folder.folder(std::string(tensor::name(dtype))));
    EXPECT_EQ(fingerprint(load_model(folder.file(std::string(tensor::name(dtype))), kNoTokenizer)), fingerprint(model));
  }
  expect_error(ErrorCode::kExists, "a.gguf", [&] { export_gguf(tiny_model(), DType::kF32, folder.file("a.gguf")); });
}

TEST(Gguf, QueriesAndKeysStandInItsOwnOrder) {
  const TempFolder folder;
  const Model model = tiny_model();
  export_gguf(model, DType::kF32, folder.file("m.gguf"));
  const io::GgufFile file = io::GgufFile::open(folder.file("m.gguf"));
  for (Proj proj : {Proj::kQ, Proj::kK, Proj::kV}) {
    const tensor::Tensor stored = tensor::to_f32(file.tensor(gguf_name(0, proj)));
    const tensor::Tensor own = model.layers[0][proj].to_f32();
    const int64_t row =
        proj == Proj::kV ? 9 : 8 + 4;  // row 9 of the file: second head, dimension 1 of interleaved ones
    EXPECT_EQ(std::memcmp(stored.mat().row(9), own.mat().row(row), 32 * sizeof(float)), 0) << name(proj);
  }
}

TEST(Gguf, RowsThatAreNoBlocksFallBackToF16) {
  const TempFolder folder;
  const Model model = tiny_model({.hidden = 24, .head_dim = 6, .ffn = 40});
  export_gguf(model, DType::kQ4_1, folder.file("m.gguf"));
  const Model back = load_model(folder.file("m.gguf"), kNoTokenizer);
  EXPECT_EQ(back.layers[0][Proj::kQ].dtype(), DType::kF16);
  expect_same_model(model, back, 2e-3f);
}

TEST(Gguf, SparseBlocksAreWrittenWithTheirZeros) {
  const TempFolder folder;
  const Model block = tiny_block(tiny_model());
  export_gguf(block, DType::kF32, folder.file("m.gguf"));
  expect_same_model(block, load_model(folder.file("m.gguf"), kNoTokenizer));
  const ModelSummary trusted = summarise(folder.file("m.gguf"), false),
                     scanned = summarise(folder.file("m.gguf"), true);
  EXPECT_EQ(trusted.nonzeros, trusted.parameters);
  EXPECT_EQ(scanned.nonzeros, block.nonzeros());
  export_hf(block, DType::kBF16, folder.folder("hf"));
  EXPECT_EQ(summarise(folder.file("hf"), true).nonzeros, block.nonzeros());
}

TEST(Gguf, OverflowOfF16IsRefusedByName) {
  const TempFolder folder;
  Model model = tiny_model();
  tensor::Tensor huge = tensor::matrix(32, 32);
  huge.f32()[7] = 1e5f;
  model.layers[1][Proj::kQ] = tensor::Matrix::dense(std::move(huge));
  expect_error(ErrorCode::kNumeric, "blk.1.attn_q", [&] { export_gguf(model, DType::kF16, folder.file("m.gguf")); });
  EXPECT_FALSE(std::filesystem::exists(folder.file("m.gguf")));
}

TEST(Gguf, RotaryScalingComesBack) {
  const TempFolder folder;
  int count = 0;
  for (
      const std::string scaling :
      {R"({"factor":2.0,"rope_type":"linear"})",
       R"({"factor":8.0,"high_freq_factor":4.0,"low_freq_factor":1.0,"original_max_position_embeddings":8192,"rope_type":"llama3"})"}) {
    Model model = tiny_model({.rope_scaling = scaling});
    model.config.rope_theta = 500000.0f;  // as Llama 3, whose slowest pair is slowed by the whole factor
    model.config.inverse_frequency = rope_inverse_frequency(model.config.rope_theta, 8, scaling);
    const std::string file = folder.file(std::to_string(count++) + ".gguf");
    export_gguf(model, DType::kF32, file);
    const Model back = load_model(file, kNoTokenizer);
    expect_same_model(model, back);
    EXPECT_EQ(back.config.rope_scaling, model.config.rope_scaling);
  }
  Model odd = tiny_model();
  odd.config.inverse_frequency = {1.0f, 0.3f, 0.2f, 0.1f};
  export_gguf(odd, DType::kF32, folder.file("odd.gguf"));
  const Model back = load_model(folder.file("odd.gguf"), kNoTokenizer);
  expect_same_model(odd, back);
  expect_error(ErrorCode::kUnsupported, "rotary", [&] { export_hf(back, DType::kF32, folder.folder("odd")); });
  save_block(back, folder.folder("block"));
  expect_same_model(back, load_model(folder.file("block"), kNoTokenizer));
}

TEST(Gguf, LayersMayDifferInWidth) {
  const TempFolder folder;
  Model model = tiny_model();
  Rng rng(0);
  model.layers[1].shape.ffn = 40;
  for (Proj proj : {Proj::kGate, Proj::kUp})
    model.layers[1][proj] = tensor::Matrix::dense(random_tensor(40, 32, 0.1, DType::kF32, rng));
  model.layers[1][Proj::kDown] = tensor::Matrix::dense(random_tensor(32, 40, 0.1, DType::kF32, rng));
  export_gguf(model, DType::kF32, folder.file("m.gguf"));
  const io::GgufFile file = io::GgufFile::open(folder.file("m.gguf"));
  EXPECT_EQ(file.require_str("general.architecture"), "deci");  // llama.cpp's llama has one width
  EXPECT_EQ(file.require_ints("deci.feed_forward_length"), (std::vector<int64_t>{64, 40}));
  EXPECT_EQ(file.require_i64("deci.attention.head_count"), 4);
  const Model back = load_model(folder.file("m.gguf"), kNoTokenizer);
  expect_same_model(model, back);
  EXPECT_EQ(back.layers[1].shape.ffn, 40);
  EXPECT_EQ(summarise(folder.file("m.gguf"), false).layers, 2);
  expect_error(ErrorCode::kUnsupported, "layer 1", [&] { export_hf(model, DType::kF32, folder.folder("hf")); });
}

// The metadata and tensors of an exported model, to edit before writing them again.
struct Parts {
  std::map<std::string, io::GgufValue> metadata;
  std::vector<std::pair<std::string, tensor::Tensor>> tensors;
  std::map<std::string, uint32_t> other_type;  // ggml types that Brickwork has not

  tensor::Tensor& at(const std::string& name) {
    for (auto& [key, value] : tensors)
      if (key == name) return value;
    throw std::out_of_range(name);
  }
  void erase(const std::string& name) {
    std::erase_if(tensors, [&](const auto& t) { return t.first == name; });
  }
};
void expect_refused(ErrorCode code, const std::string& part, const std::function<void(Parts&)>& edit) {
  const TempFolder folder;
  export_gguf(tiny_model({.tokenizer = true}), DType::kF32, folder.file("a.gguf"));
  const io::GgufFile file = io::GgufFile::open(folder.file("a.gguf"));
  Parts parts;
  for (const auto& [key, value] : file.metadata()) parts.metadata.emplace(key, value);
  for (const auto& info : file.tensors()) parts.tensors.emplace_back(info.name, tensor::to_f32(file.tensor(info)));
  edit(parts);
  io::GgufWriter writer;
  for (const auto& [key, value] : parts.metadata) writer.add(key, value);
  for (const auto& [name, value] : parts.tensors) {
    if (!parts.other_type.contains(name)) {
      writer.add_tensor(name, value.view());
      continue;
    }
    const io::GgmlType& type = *io::find_ggml_type(parts.other_type[name]);
    const auto bytes = static_cast<size_t>(value.size() / type.block_values * type.block_bytes);
    writer.add_ggml_tensor(name, type.id, value.shape(), [bytes](const io::ByteSink& sink) {
      const std::vector<std::byte> zeros(bytes);
      sink(zeros);
    });
  }
  writer.write(folder.file("b.gguf"));
  expect_error(code, part, [&] { load_model(folder.file("b.gguf")); });
}

TEST(Gguf, RefusesOthersByName) {
  const auto with = [](const char* key, io::GgufValue value) {
    return [=](Parts& p) { p.metadata.insert_or_assign(key, value); };
  };
  const auto without = [](const char* key) { return [=](Parts& p) { p.metadata.erase(key); }; };
  expect_refused(ErrorCode::kUnsupported, "architecture \"qwen2\" is not supported; llama and deci are",
                 with("general.architecture", std::string("qwen2")));
  expect_refused(ErrorCode::kUnsupported, "llama-gguf-split --merge", with("split.count", uint16_t{3}));
  for (const char* key :
       {"general.architecture", "llama.block_count", "llama.embedding_length", "llama.attention.head_count",
        "llama.feed_forward_length", "llama.attention.layer_norm_rms_epsilon"})
    expect_refused(ErrorCode::kNotFound, key, without(key));
  expect_refused(ErrorCode::kInvalidInput, "llama.block_count", with("llama.block_count", std::string("two")));
  expect_refused(ErrorCode::kInvalidInput, "llama.block_count", with("llama.block_count", uint32_t{0}));
  expect_refused(ErrorCode::kInvalidInput, "llama.block_count", with("llama.block_count", uint32_t{4000000000u}));
  expect_refused(ErrorCode::kNotFound, "blk.2.", with("llama.block_count", uint32_t{3}));
  expect_refused(ErrorCode::kUnsupported, "blk.1.", with("llama.block_count", uint32_t{1}));
  expect_refused(ErrorCode::kCorrupt, "token_embd", with("llama.vocab_size", uint32_t{97}));
  expect_refused(ErrorCode::kUnsupported, "rope.dimension_count", with("llama.rope.dimension_count", uint32_t{4}));
  expect_refused(ErrorCode::kUnsupported, "value_length", with("llama.attention.value_length", uint32_t{16}));
  expect_refused(ErrorCode::kUnsupported, "yarn", with("llama.rope.scaling.type", std::string("yarn")));
  expect_refused(ErrorCode::kInvalidInput, "multiple", with("llama.attention.head_count_kv", uint32_t{3}));
  expect_refused(ErrorCode::kCorrupt, "feed_forward_length",
                 with("llama.feed_forward_length", std::vector<int32_t>{64, 64, 64}));
}

TEST(Gguf, RefusesFaultyTensorsByName) {
  const std::string q = "blk.1.attn_q.weight";
  expect_refused(ErrorCode::kNotFound, q, [&](Parts& p) { p.erase(q); });
  expect_refused(ErrorCode::kNotFound, "output_norm", [](Parts& p) { p.erase("output_norm.weight"); });
  expect_refused(ErrorCode::kNotFound, "token_embd", [](Parts& p) { p.erase("token_embd.weight"); });
  expect_refused(ErrorCode::kUnsupported, "blk.0.attn_q.bias",
                 [](Parts& p) { p.tensors.emplace_back("blk.0.attn_q.bias", tensor::Tensor(DType::kF32, {32})); });
  expect_refused(ErrorCode::kUnsupported, "tensor \"\\x1B[2J\"",
                 [](Parts& p) { p.tensors.emplace_back("\x1B[2J", tensor::matrix(1, 32)); });
  expect_refused(ErrorCode::kUnsupported, "blk.0.ffn_gate_inp.weight",
                 [](Parts& p) { p.tensors.emplace_back("blk.0.ffn_gate_inp.weight", tensor::matrix(8, 32)); });
  expect_refused(ErrorCode::kCorrupt, "gate_proj",
                 [](Parts& p) { p.at("blk.0.ffn_gate.weight") = tensor::matrix(32, 64); });
  expect_refused(ErrorCode::kCorrupt, "q_proj", [&](Parts& p) { p.at(q) = tensor::matrix(40, 32); });
  expect_refused(ErrorCode::kCorrupt, q, [&](Parts& p) { p.at(q) = tensor::matrix(33, 32); });
  expect_refused(ErrorCode::kCorrupt, "blk.0.attn_norm",
                 [](Parts& p) { p.at("blk.0.attn_norm.weight") = tensor::matrix(1, 32); });
  expect_refused(ErrorCode::kUnsupported, "rope_freqs.weight is i32",
                 [](Parts& p) { p.tensors.emplace_back("rope_freqs.weight", tensor::Tensor(DType::kI32, {4})); });
  constexpr uint32_t kIq4Nl = 20;  // blocks of 32, as ours are
  expect_refused(ErrorCode::kUnsupported, "IQ4_NL", [&](Parts& p) { p.other_type[q] = kIq4Nl; });
}

}  // namespace
}  // namespace brick::model
