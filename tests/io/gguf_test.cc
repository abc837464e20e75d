#include "brick/io/gguf.h"

#include <chrono>
#include <cstdlib>
#include <limits>

#include "brick/tensor/pack.h"
#include "io/temp_files.h"

namespace brick::io {
namespace {

using tensor::DType;
using test::expect_error;

tensor::Tensor ramp(DType dtype, int64_t rows, int64_t cols) {
  tensor::Tensor values(DType::kF32, {rows, cols});
  for (int64_t i = 0; i < rows * cols; ++i) values.f32()[i] = static_cast<float>(i % 37) * 0.25f - 4.0f;
  return dtype == DType::kF32 ? std::move(values) : tensor::convert(values.view(), dtype);
}

bool same_bytes(std::span<const std::byte> a, std::span<const std::byte> b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end());
}

TEST(GgufWriter, RoundTripsEveryMetadataType) {
  const std::vector<std::pair<std::string, GgufValue>> all{
      {"u8", uint8_t{200}},
      {"i8", int8_t{-100}},
      {"u16", uint16_t{60000}},
      {"i16", int16_t{-30000}},
      {"u32", uint32_t{4000000000}},
      {"i32", int32_t{-2000000000}},
      {"f32", 1.5f},
      {"bool", true},
      {"string", std::string("h\xC3\xA9llo")},
      {"u64", std::numeric_limits<uint64_t>::max()},
      {"i64", std::numeric_limits<int64_t>::min()},
      {"f64", 1e300},
      {"empty", std::string()},
      {"a.u8", std::vector<uint8_t>{1, 2}},
      {"a.i8", std::vector<int8_t>{-1, 2}},
      {"a.u16", std::vector<uint16_t>{1, 65535}},
      {"a.i16", std::vector<int16_t>{-1, 2}},
      {"a.u32", std::vector<uint32_t>{1, 2}},
      {"a.i32", std::vector<int32_t>{-1, 2}},
      {"a.f32", std::vector<float>{0.5f, -2}},
      {"a.bool", std::vector<bool>{true, false, true}},
      {"a.string", std::vector<std::string_view>{"a", "", "bc"}},
      {"a.u64", std::vector<uint64_t>{1, 2}},
      {"a.i64", std::vector<int64_t>{-1, 2}},
      {"a.f64", std::vector<double>{0.1}},
      {"a.none", std::vector<float>{}},
  };
  GgufWriter writer;
  for (const auto& [key, value] : all) writer.add(key, value);
  const TempFolder folder;
  writer.write(folder / "m.gguf");
  const GgufFile file = GgufFile::open(folder / "m.gguf");
  EXPECT_EQ(file.version(), 3u);
  EXPECT_EQ(file.metadata(), all);
  EXPECT_EQ(type_name(*file.find("a.string")), "array of string");
  EXPECT_EQ(type_name(*file.find("u64")), "u64");
}

TEST(GgufWriter, RoundTripsEveryDtype) {
  const TempFolder folder;
  GgufWriter writer;
  std::vector<tensor::Tensor> kept;
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_1,
                            DType::kQ5_0, DType::kQ5_1, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K}) {
    kept.push_back(ramp(dtype, 3, 256));
    writer.add_tensor(std::string(tensor::name(dtype)), kept.back().view());
  }
  kept.emplace_back(DType::kI32, tensor::Shape{5});
  kept.emplace_back(DType::kI64, tensor::Shape{2, 3, 4, 5});
  kept.emplace_back(DType::kF32, tensor::Shape{});
  for (size_t i = 11; i < kept.size(); ++i) writer.add_tensor("extra" + std::to_string(i), kept[i].view());
  writer.write(folder / "m.gguf");

  const GgufFile file = GgufFile::open(folder / "m.gguf");
  ASSERT_EQ(file.tensors().size(), kept.size());
  for (size_t i = 0; i < kept.size(); ++i) {
    const GgufTensorInfo& info = file.tensors()[i];
    const tensor::TensorView view = file.tensor(info.name);
    EXPECT_EQ(info.offset % 32, 0u);
    EXPECT_EQ(view.dtype, kept[i].dtype());
    EXPECT_EQ(view.shape, kept[i].shape());
    EXPECT_TRUE(same_bytes(view.bytes, kept[i].bytes())) << info.name;
  }
  // Negative control: one byte of one tensor makes the comparison fail.
  std::string damaged = test::slurp(folder / "m.gguf");
  damaged[file.find_tensor("q4_1")->offset + 5] ^= 1;
  const GgufFile other = GgufFile::parse(test::in_memory(damaged));
  EXPECT_FALSE(same_bytes(other.tensor("q4_1").bytes, kept[5].bytes()));
}

TEST(GgufWriter, SameCallsSameBytes) {
  const TempFolder folder;
  for (const char* name : {"a", "b"}) {
    GgufWriter writer;
    writer.add("general.architecture", std::string("llama"));
    const tensor::Tensor t = ramp(DType::kQ8_0, 2, 32);
    writer.add_tensor("t", t.view());
    writer.write(folder / name);
  }
  EXPECT_EQ(test::slurp(folder / "a"), test::slurp(folder / "b"));
}

TEST(GgufWriter, StreamsInPiecesAndChecksTheirSum) {
  const TempFolder folder;
  const std::byte piece[64]{};
  for (const int pieces : {1, 2, 3}) {
    GgufWriter writer;
    writer.add_tensor("t", DType::kF32, {2, 16}, [&](const ByteSink& sink) {
      for (int i = 0; i < pieces; ++i) sink(piece);
    });
    if (pieces == 2)
      writer.write(folder / "m.gguf");
    else
      expect_error(ErrorCode::kInvalidInput, "tensor \"t\"", [&] { writer.write(folder / "m.gguf", true); });
  }
  EXPECT_EQ(folder.names(), std::vector<std::string>{"m.gguf"});
}

TEST(GgufWriter, RefusesWhatGgufCannotHold) {
  GgufWriter writer;
  writer.add("k", 1.0f);
  expect_error(ErrorCode::kInvalidInput, "added twice", [&] { writer.add("k", 2.0f); });
  expect_error(ErrorCode::kInvalidInput, "alignment", [&] { writer.add("general.alignment", uint32_t{64}); });
  expect_error(ErrorCode::kInvalidInput, "u8 cannot", [&] { writer.add_tensor("t", DType::kU8, {1}, {}); });
  expect_error(ErrorCode::kInvalidInput, "dimensions", [&] {
    writer.add_tensor("t", DType::kF32, {1, 1, 1, 1, 1}, {});
  });
  expect_error(ErrorCode::kInvalidInput, "rows of 33", [&] { writer.add_tensor("t", DType::kQ4_0, {33}, {}); });
  expect_error(ErrorCode::kInvalidInput, "type 99", [&] { writer.add_ggml_tensor("t", 99, {32}, {}); });
}

TEST(GgufReader, NamesTheTypeThatItCannotRead) {
  const TempFolder folder;
  GgufWriter writer;
  const test::Bytes blocks(2 * 84);
  writer.add_ggml_tensor("t", 10, {2, 256}, source_of(blocks));
  writer.write(folder / "m.gguf");
  const GgufFile file = GgufFile::open(folder / "m.gguf");
  EXPECT_EQ(file.raw(file.tensors()[0]).size(), blocks.size());
  expect_error(ErrorCode::kUnsupported, "is Q2_K; supported are f32", [&] { file.tensor("t"); });
  expect_error(ErrorCode::kNotFound, "has no tensor \"u\"", [&] { file.tensor("u"); });
  EXPECT_EQ(file.find_tensor("u"), nullptr);
}

class GgufMetadata : public ::testing::Test {
 protected:
  GgufMetadata() {
    GgufWriter writer;
    writer.add("small", uint8_t{7});
    writer.add("minus", int32_t{-1});
    writer.add("wide", uint64_t{1} << 40);
    writer.add("double", 0.25);
    writer.add("yes", true);
    writer.add("text", std::string("hi"));
    writer.add("ints", std::vector<uint16_t>{1, 2});
    writer.add("huge", std::vector<uint64_t>{~uint64_t{0}});
    writer.add("floats", std::vector<float>{1});
    writer.add("words", std::vector<std::string>{"a", "b"});
    writer.write(folder_ / "m.gguf");
    file_.emplace(GgufFile::open(folder_ / "m.gguf"));
  }
  TempFolder folder_;
  std::optional<GgufFile> file_;
};

TEST_F(GgufMetadata, ConvertsWhatFits) {
  EXPECT_EQ(file_->require_u32("small"), 7u);
  EXPECT_EQ(file_->require_i64("minus"), -1);
  EXPECT_EQ(file_->require_u64("wide"), uint64_t{1} << 40);
  EXPECT_EQ(file_->require_f32("double"), 0.25f);
  EXPECT_TRUE(file_->require_bool("yes"));
  EXPECT_EQ(file_->require_str("text"), "hi");
  EXPECT_EQ(file_->require_ints("ints"), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(file_->require_floats("floats"), std::vector<float>{1});
  EXPECT_EQ(file_->require_strings("words")[1], "b");
}

TEST_F(GgufMetadata, AbsentIsDefaultOrError) {
  EXPECT_EQ(file_->u32_or("none", 5), 5u);
  EXPECT_EQ(file_->u64_or("none", 5), 5u);
  EXPECT_EQ(file_->i64_or("none", -5), -5);
  EXPECT_EQ(file_->f32_or("none", 0.5f), 0.5f);
  EXPECT_FALSE(file_->bool_or("none", false));
  EXPECT_EQ(file_->str_or("none", "x"), "x");
  EXPECT_EQ(file_->find_strings("none"), nullptr);
  EXPECT_EQ(file_->find_floats("none"), nullptr);
  EXPECT_FALSE(file_->get_ints("none").has_value());
  expect_error(ErrorCode::kNotFound, "has no metadata \"none\"", [&] { file_->require_u32("none"); });
  expect_error(ErrorCode::kNotFound, "\"none\"", [&] { file_->require_strings("none"); });
}

TEST_F(GgufMetadata, WrongTypesAreNamedEvenWithADefault) {
  expect_error(ErrorCode::kInvalidInput, "\"text\" is string, expected u32", [&] { file_->u32_or("text", 1); });
  expect_error(ErrorCode::kInvalidInput, "which is no u32", [&] { file_->require_u32("minus"); });
  expect_error(ErrorCode::kInvalidInput, "which is no u32", [&] { file_->require_u32("wide"); });
  expect_error(ErrorCode::kInvalidInput, "expected u32", [&] { file_->require_u32("yes"); });
  expect_error(ErrorCode::kInvalidInput, "expected f32", [&] { file_->require_f32("small"); });
  expect_error(ErrorCode::kInvalidInput, "expected bool", [&] { file_->require_bool("small"); });
  expect_error(ErrorCode::kInvalidInput, "expected string", [&] { file_->require_str("words"); });
  expect_error(ErrorCode::kInvalidInput, "array of integers", [&] { file_->require_ints("floats"); });
  expect_error(ErrorCode::kInvalidInput, "array of integers", [&] { file_->require_ints("text"); });
  expect_error(ErrorCode::kInvalidInput, "no i64", [&] { file_->require_ints("huge"); });
}

TEST(GgufReader, OpensARealModelQuickly) {
  const char* model = std::getenv("BRICK_MODEL");
  if (model == nullptr || !std::string_view(model).ends_with(".gguf")) GTEST_SKIP() << "BRICK_MODEL names no GGUF file";
  const auto begin = std::chrono::steady_clock::now();
  const GgufFile file = GgufFile::open(model);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  EXPECT_LT(seconds.count(), 0.25);  // about 2 ms for a vocabulary of 49k; slack for a busy machine
  EXPECT_GT(file.require_strings("tokenizer.ggml.tokens").size(), 0u);
  for (const GgufTensorInfo& info : file.tensors()) {
    if (!dtype_of_ggml(info.ggml_type)) continue;
    EXPECT_EQ(static_cast<int64_t>(file.tensor(info).bytes.size()),
              tensor::byte_count(*dtype_of_ggml(info.ggml_type), info.shape));
  }
}

}  // namespace
}  // namespace brick::io
