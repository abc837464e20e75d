#include "brick/io/safetensors.h"

#include <cstdlib>
#include <filesystem>

#include "brick/io/json_file.h"
#include "brick/io/text_file.h"
#include "io/temp_files.h"

namespace brick::io {
namespace {

using tensor::DType;
using test::expect_error;

// A safetensors file from the text of its header.
std::string with_header(std::string_view header, size_t data) {
  const uint64_t length = header.size();
  std::string bytes(reinterpret_cast<const char*>(&length), sizeof(length));
  bytes += header;
  for (size_t i = 0; i < data; ++i) bytes += static_cast<char>(i);
  return bytes;
}

SafetensorsFile parse(std::string_view bytes) { return SafetensorsFile::parse(test::in_memory(bytes)); }

void expect_corrupt(std::string_view words, std::string_view header, size_t data = 16) {
  expect_error(ErrorCode::kCorrupt, words, [&] { parse(with_header(header, data)); });
}

tensor::Tensor bytes_of(DType dtype, tensor::Shape shape, int seed) {
  tensor::Tensor t(dtype, std::move(shape));
  for (std::byte& b : t.bytes()) b = static_cast<std::byte>(seed++ * 31);
  return t;
}

bool same_bytes(std::span<const std::byte> a, std::span<const std::byte> b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end());
}

TEST(SafetensorsWriter, RoundTripsEveryDtype) {
  const TempFolder folder;
  std::vector<std::pair<std::string, tensor::Tensor>> kept;
  kept.emplace_back("mask", bytes_of(DType::kU8, {3}, 1));
  kept.emplace_back("half", bytes_of(DType::kF16, {3, 5}, 2));
  kept.emplace_back("brain", bytes_of(DType::kBF16, {7}, 3));
  kept.emplace_back("float", bytes_of(DType::kF32, {2, 3, 4}, 4));
  kept.emplace_back("ids", bytes_of(DType::kI32, {5}, 5));
  kept.emplace_back("long", bytes_of(DType::kI64, {2}, 6));
  kept.emplace_back("scalar", bytes_of(DType::kF32, {}, 7));
  kept.emplace_back("none", bytes_of(DType::kF32, {0, 4}, 8));
  SafetensorsWriter writer;
  writer.set_metadata("format", "pt");
  writer.set_metadata("a", "\"quoted\"");
  for (const auto& [name, t] : kept) writer.add_tensor(name, t.view());
  writer.write(folder / "m.safetensors");

  const SafetensorsFile file = SafetensorsFile::open(folder / "m.safetensors");
  EXPECT_EQ(file.metadata(), (std::map<std::string, std::string>{{"format", "pt"}, {"a", "\"quoted\""}}));
  EXPECT_EQ(file.tensors().size(), kept.size());
  EXPECT_EQ(file.tensors()[0].name, "long");  // the widest first
  for (const auto& [name, t] : kept) {
    const tensor::TensorView view = file.tensor(name);
    EXPECT_EQ(view.dtype, t.dtype());
    EXPECT_EQ(view.shape, t.shape());
    EXPECT_TRUE(same_bytes(view.bytes, t.bytes())) << name;
    EXPECT_EQ(file.find_tensor(name)->offset % tensor::info(t.dtype()).block_bytes, 0u);
  }
  std::string damaged = test::slurp(folder / "m.safetensors");  // negative control
  damaged[file.find_tensor("float")->offset] ^= 1;
  EXPECT_FALSE(same_bytes(parse(damaged).tensor("float").bytes, kept[3].second.bytes()));
}

TEST(SafetensorsWriter, SameCallsSameBytes) {
  const TempFolder folder;
  const tensor::Tensor t = bytes_of(DType::kF32, {4}, 1);
  for (const char* name : {"a", "b"}) {
    SafetensorsWriter writer;
    writer.set_metadata(name[0] == 'a' ? "x" : "y", "1");  // in either order
    writer.set_metadata(name[0] == 'a' ? "y" : "x", "1");
    writer.add_tensor("t", t.view());
    writer.write(folder / name);
  }
  EXPECT_EQ(test::slurp(folder / "a"), test::slurp(folder / "b"));
  EXPECT_EQ(test::slurp(folder / "a").substr(8).find("{\"__metadata__\":{\"x\":\"1\",\"y\":\"1\"},\"t\":"), 0u);
}

TEST(SafetensorsWriter, RefusesWhatItCannotHold) {
  const TempFolder folder;
  SafetensorsWriter writer;
  expect_error(ErrorCode::kInvalidInput, "q4_0 cannot", [&] { writer.add_tensor("t", DType::kQ4_0, {32}, {}); });
  expect_error(ErrorCode::kInvalidInput, "reserved", [&] { writer.add_tensor("__metadata__", DType::kF32, {}, {}); });
  writer.add_tensor("t", DType::kF32, {2}, [](const ByteSink& sink) { sink(test::Bytes(4)); });
  expect_error(ErrorCode::kInvalidInput, "twice", [&] { writer.add_tensor("t", DType::kF32, {2}, {}); });
  expect_error(ErrorCode::kInvalidInput, "gives 4 bytes, its shape has 8", [&] { writer.write(folder / "m"); });
  EXPECT_TRUE(folder.names().empty());
  SafetensorsWriter bad_name;
  bad_name.add_tensor("\xff", DType::kF32, {0}, source_of({}));
  expect_error(ErrorCode::kInvalidInput, "UTF-8", [&] { bad_name.write(folder / "m"); });
}

TEST(SafetensorsReader, AlignsViewsOfUnalignedTensors) {
  const SafetensorsFile file = parse(with_header(
      R"({"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"f":{"dtype":"F32","shape":[3],"data_offsets":[1,13]}})",
      13));
  const tensor::TensorView view = file.tensor("f");
  EXPECT_EQ(reinterpret_cast<uintptr_t>(view.bytes.data()) % 4, 0u);
  EXPECT_EQ(view.bytes[0], std::byte{1});
  EXPECT_EQ(view.bytes[11], std::byte{12});
  EXPECT_EQ(file.tensor("f").bytes.data(), view.bytes.data());
}

TEST(SafetensorsReader, OtherDtypesAreRefusedOnAccessOnly) {
  const SafetensorsFile file = parse(with_header(
      R"({"d":{"dtype":"F64","shape":[2],"data_offsets":[0,16]},"n":{"dtype":"NEW","shape":[9],"data_offsets":[16,17]}})",
      17));
  expect_error(ErrorCode::kUnsupported, "is \"F64\"; supported are F32", [&] { file.tensor("d"); });
  expect_error(ErrorCode::kUnsupported, "\"NEW\"", [&] { file.tensor("n"); });
  expect_error(ErrorCode::kNotFound, "has no tensor \"x\"", [&] { file.tensor("x"); });
}

TEST(SafetensorsReader, RefusesMalformedHeaders) {
  const char* const good = R"({"t":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})";
  EXPECT_EQ(parse(with_header(good, 16)).tensors().size(), 1u);
  EXPECT_EQ(parse(with_header("{}  ", 0)).tensors().size(), 0u);
  expect_corrupt("does not begin with {", "");
  expect_corrupt("does not begin with {", " {}");
  expect_corrupt("is not valid JSON", "{\"t\":");
  expect_corrupt("is not valid JSON", "{} x");
  expect_corrupt("is not valid JSON", "{\"\xff\":1}");
  expect_corrupt(
      "stands there twice",
      R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"t":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})");
  expect_corrupt("stands there twice", R"({"__metadata__":{"a":"b","a":"c"}})");
  expect_corrupt("stands there twice", R"({"__metadata__":{},"__metadata__":{}})");
  expect_corrupt("repeated key", R"({"t":{"dtype":"F32","dtype":"F32","shape":[4],"data_offsets":[0,16]}})");
  expect_corrupt("unknown or repeated key \"x\"", R"({"t":{"x":1}})");
  expect_corrupt("lacks dtype", R"({"t":{"dtype":"F32","shape":[4]}})");
  expect_corrupt("data_offsets, not 2", R"({"t":{"dtype":"F32","shape":[4],"data_offsets":[16]}})");
  expect_corrupt("where the header's form has none", R"({"t":{"dtype":"F32","shape":[4],"data_offsets":[0,8,16]}})");
  expect_corrupt("negative number", R"({"t":{"dtype":"F32","shape":[-4],"data_offsets":[0,16]}})");
  expect_corrupt("fraction", R"({"t":{"dtype":"F32","shape":[4.0],"data_offsets":[0,16]}})");
  expect_corrupt("fraction", R"({"t":{"dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,16]}})");
  expect_corrupt("a string", R"({"t":{"dtype":"F32","shape":["4"],"data_offsets":[0,16]}})");
  expect_corrupt("a number", R"({"__metadata__":{"a":1}})");
  expect_corrupt("an object", R"({"__metadata__":{"a":{}}})");
  expect_corrupt("an array", R"({"t":[]})");
  expect_corrupt("null", R"({"t":null})");
  expect_corrupt("an array", R"({"t":{"shape":[[[[[[[[4]]]]]]]]}})");
  const std::vector<int> ones(100, 1);
  expect_corrupt("too large", fmt::format(R"({{"t":{{"shape":[{}]}}}})", fmt::join(ones, ",")));
}

TEST(SafetensorsReader, RefusesBadOffsets) {
  const auto entry = [](const char* name, const char* shape, const char* offsets) {
    return fmt::format(R"("{}":{{"dtype":"F32","shape":{},"data_offsets":{}}})", name, shape, offsets);
  };
  const auto one = [&](const char* shape, const char* offsets) {
    return fmt::format("{{{}}}", entry("t", shape, offsets));
  };
  expect_corrupt("lies at [0, 20) of 16", one("[5]", "[0,20]"));
  expect_corrupt("lies at [8, 4)", one("[1]", "[8,4]"));
  expect_corrupt("lies at", one("[1]", "[18446744073709551612,18446744073709551615]"));
  expect_corrupt("takes 20", one("[5]", "[0,16]"));
  expect_corrupt("takes more than any memory", one("[4294967296,4294967296,4]", "[0,16]"));
  expect_corrupt("overlap", fmt::format("{{{},{}}}", entry("a", "[2]", "[0,8]"), entry("b", "[2]", "[4,12]")));
  expect_corrupt("overlap", fmt::format("{{{},{}}}", entry("a", "[2]", "[0,8]"), entry("b", "[2]", "[0,8]")));
}

TEST(SafetensorsReader, RefusesBadLengths) {
  expect_error(ErrorCode::kCorrupt, "too few", [] { parse("1234567"); });
  for (const uint64_t length : {uint64_t{100'000'001}, ~uint64_t{0}, uint64_t{1} << 63}) {
    const std::string bytes(reinterpret_cast<const char*>(&length), sizeof(length));
    expect_error(ErrorCode::kCorrupt, "claims a header", [&] { parse(bytes + "{}"); });
  }
  expect_error(ErrorCode::kCorrupt, "truncated in its header",
               [] { parse(std::string_view("\x03\0\0\0\0\0\0\0{}", 10)); });
}

TEST(SafetensorsReader, SurvivesDamage) {
  const std::string good = with_header(
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"b":{"dtype":"BF16","shape":[3],"data_offsets":[16,22]}} )",
      22);
  test::expect_robust(good, good.size() - 22, good.size(), [](std::string_view bytes) {
    const SafetensorsFile file = parse(bytes);
    size_t sum = 0;
    for (const SafetensorInfo& info : file.tensors())
      if (info.dtype == "F32" || info.dtype == "BF16")
        for (const std::byte b : file.tensor(info).bytes) sum += static_cast<size_t>(b);
    EXPECT_GE(sum, 0u);
  });
}

class SafetensorsFolder : public ::testing::Test {
 protected:
  void shard(const char* file, const char* name, int seed) {
    SafetensorsWriter writer;
    writer.set_metadata("format", "pt");
    const tensor::Tensor t = bytes_of(DType::kF32, {2}, seed);
    writer.add_tensor(name, t.view());
    writer.write(folder_ / file);
  }
  void index(std::string_view map) {
    test::spill(folder_ / "model.safetensors.index.json", fmt::format(R"({{"metadata":{{}},"weight_map":{}}})", map));
  }
  SafetensorsSet open() { return SafetensorsSet::open(folder_.path()); }
  TempFolder folder_;
};

TEST_F(SafetensorsFolder, ReadsOneFile) {
  shard("model.safetensors", "t", 1);
  const SafetensorsSet set = open();
  EXPECT_EQ(set.names(), std::vector<std::string>{"t"});
  EXPECT_EQ(set.tensor("t").shape, tensor::Shape{2});
  EXPECT_EQ(*set.find_metadata("format"), "pt");
  EXPECT_EQ(set.find_metadata("other"), nullptr);
  EXPECT_EQ(set.find_tensor("u"), nullptr);
  expect_error(ErrorCode::kNotFound, "\"u\"", [&] { set.tensor("u"); });
}

TEST_F(SafetensorsFolder, ReadsShards) {
  shard("one.safetensors", "a", 1);
  shard("two.safetensors", "b", 2);
  index(R"({"b":"two.safetensors","a":"one.safetensors"})");
  const SafetensorsSet set = open();
  EXPECT_EQ(set.files().size(), 2u);
  EXPECT_EQ(set.names(), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(set.tensor("a").bytes[0], static_cast<std::byte>(31));
  EXPECT_EQ(set.tensor("b").bytes[0], static_cast<std::byte>(62));
}

TEST_F(SafetensorsFolder, RefusesPathsOutOfTheFolder) {
  shard("one.safetensors", "a", 1);
  for (const char* path : {"../one.safetensors", "/etc/passwd", "..", ".", "", "x/../one.safetensors", "a\\\\b",
                           "one.safetensors\\u0000"}) {
    index(fmt::format(R"({{"a":"{}"}})", path));
    expect_error(ErrorCode::kCorrupt, "no file name of this folder", [&] { open(); });
  }
}

TEST_F(SafetensorsFolder, RefusesAnIndexThatIsWrong) {
  shard("one.safetensors", "a", 1);
  index(R"({"a":"gone.safetensors"})");
  expect_error(ErrorCode::kNotFound, "\"gone.safetensors\" is missing", [&] { open(); });
  index(R"({"a":"one.safetensors","b":"one.safetensors"})");
  expect_error(ErrorCode::kCorrupt, "places \"b\" in \"one.safetensors\", which lacks it", [&] { open(); });
  index(R"({"a":1})");
  expect_error(ErrorCode::kCorrupt, "is no string", [&] { open(); });
  index(R"({"a":"one.safetensors","a":"one.safetensors"})");
  expect_error(ErrorCode::kCorrupt, "twice", [&] { open(); });
  index("[]");
  expect_error(ErrorCode::kCorrupt, "weight_map", [&] { open(); });
  test::spill(folder_ / "model.safetensors.index.json", "[]");
  expect_error(ErrorCode::kCorrupt, "weight_map", [&] { open(); });
}

TEST_F(SafetensorsFolder, SaysWhatIsMissing) {
  expect_error(ErrorCode::kNotFound, "has neither model.safetensors nor", [&] { open(); });
  expect_error(ErrorCode::kNotFound, "no such folder", [&] { SafetensorsSet::open(folder_ / "gone"); });
  test::spill(folder_ / "file", "x");
  expect_error(ErrorCode::kInvalidInput, "is no folder", [&] { SafetensorsSet::open(folder_ / "file"); });
}

TEST_F(SafetensorsFolder, SaysWhatElseIsThere) {
  test::spill(folder_ / "pytorch_model.bin", "PK");
  expect_error(ErrorCode::kNotFound, "save the model as safetensors", [&] { open(); });
  constexpr const char* kPointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n";
  test::spill(folder_ / "model.safetensors", kPointer);
  expect_error(ErrorCode::kCorrupt, "git lfs pull", [&] { open(); });
  test::spill(folder_ / "tokenizer.json", kPointer);
  expect_error(ErrorCode::kCorrupt, "git lfs pull", [&] { read_text(folder_ / "tokenizer.json"); });
}

TEST(SafetensorsReader, OpensARealFolder) {
  const char* model = std::getenv("BRICK_MODEL");
  if (model == nullptr || !std::filesystem::is_directory(model)) GTEST_SKIP() << "BRICK_MODEL names no folder";
  const SafetensorsSet set = SafetensorsSet::open(model);
  EXPECT_FALSE(set.names().empty());
  for (const std::string& name : set.names()) EXPECT_FALSE(set.tensor(name).bytes.empty());
}

}  // namespace
}  // namespace brick::io
