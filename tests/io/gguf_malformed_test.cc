#include "brick/io/gguf.h"
#include "brick/tensor/pack.h"
#include "io/temp_files.h"

namespace brick::io {
namespace {

using test::expect_error;

// Builds GGUF bytes field by field, right or wrong.
struct Raw {
  std::string bytes;

  template <class T>
  Raw& put(T value) {
    bytes.append(reinterpret_cast<const char*>(&value), sizeof(T));
    return *this;
  }
  Raw& text(std::string_view s) {
    put(uint64_t{s.size()});
    bytes += s;
    return *this;
  }
  Raw& head(uint64_t tensors, uint64_t keys, uint32_t version = 3) {
    bytes += "GGUF";
    return put(version).put(tensors).put(keys);
  }
  Raw& u32(std::string_view key, uint32_t value) { return text(key).put(uint32_t{4}).put(value); }
  Raw& tensor(std::string_view name, std::vector<uint64_t> dims, uint32_t type, uint64_t offset) {
    text(name).put(static_cast<uint32_t>(dims.size()));
    for (const uint64_t d : dims) put(d);
    return put(type).put(offset);
  }
  Raw& data(size_t count, size_t alignment = 32) {
    bytes.append((alignment - bytes.size() % alignment) % alignment, '\0');
    bytes.append(count, 'x');
    return *this;
  }
  GgufFile parse() const { return GgufFile::parse(test::in_memory(bytes)); }
};

void expect_corrupt(std::string_view words, const Raw& raw) {
  expect_error(ErrorCode::kCorrupt, words, [&] { raw.parse(); });
}

TEST(GgufReader, ReadsVersionsTwoAndThree) {
  for (const uint32_t version : {2u, 3u}) {
    const GgufFile file = Raw().head(1, 1, version).u32("a", 1).tensor("t", {4, 2}, 0, 0).data(32).parse();
    EXPECT_EQ(file.version(), version);
    EXPECT_EQ(file.tensor("t").shape, (tensor::Shape{2, 4}));  // outermost first
  }
}

// Q5_0, Q5_1, Q4_K, Q5_K, Q6_K: bytes of a block, which must be whole and all there.
TEST(GgufReader, RefusesPartsOfQuantisedBlocks) {
  struct Type {
    uint32_t id, values;
    size_t bytes;
    const char* name;
  };
  for (const Type& type : {Type{6, 32, 22, "Q5_0"},
                           {7, 32, 24, "Q5_1"},
                           {12, 256, 144, "Q4_K"},
                           {13, 256, 176, "Q5_K"},
                           {14, 256, 210, "Q6_K"}}) {
    expect_corrupt(type.name, Raw().head(1, 0).tensor("t", {type.values / 2, 2}, type.id, 0).data(type.bytes));
    expect_corrupt("t", Raw().head(1, 0).tensor("t", {type.values, 2}, type.id, 0).data(2 * type.bytes - 1));
    const GgufFile file = Raw().head(1, 0).tensor("t", {type.values, 2}, type.id, 0).data(2 * type.bytes).parse();
    EXPECT_EQ(file.tensor("t").bytes.size(), 2 * type.bytes);
    EXPECT_EQ(tensor::to_f32(file.tensor("t")).size(), 2 * type.values);  // whatever the bytes are
  }
}

TEST(GgufReader, RefusesOtherVersionsByName) {
  expect_error(ErrorCode::kUnsupported, "version 1", [] { Raw().head(0, 0, 1).parse(); });
  expect_error(ErrorCode::kUnsupported, "version 4", [] { Raw().head(0, 0, 4).parse(); });
  expect_error(ErrorCode::kUnsupported, "big-endian", [] { Raw().head(0, 0, 0x03000000).parse(); });
  Raw other;
  other.bytes = "GGML and some more bytes";
  expect_corrupt("is no GGUF file", other);
}

TEST(GgufReader, RefusesImpossibleCounts) {
  expect_corrupt("tensors, more than fit", Raw().head(~uint64_t{0}, 0));
  expect_corrupt("tensors, more than fit", Raw().head(1000, 0).data(100));
  expect_corrupt("metadata keys, more than fit", Raw().head(0, uint64_t{1} << 60));
  expect_corrupt("values, more than fit",
                 Raw().head(0, 1).text("k").put(uint32_t{9}).put(uint32_t{6}).put(uint64_t{1} << 62).data(64));
  expect_corrupt("values, more than fit",
                 Raw().head(0, 1).text("k").put(uint32_t{9}).put(uint32_t{8}).put(uint64_t{99}).data(64));
  expect_corrupt("truncated", Raw().head(0, 1).text("k").put(uint32_t{8}).put(~uint64_t{0}));
  expect_corrupt("at most 65535", Raw().head(0, 1).text(std::string(70000, 'k')).put(uint32_t{0}).put('x'));
}

TEST(GgufReader, RefusesMalformedMetadata) {
  expect_corrupt("stands there twice", Raw().head(0, 2).u32("k", 1).u32("k", 1));
  expect_corrupt("unknown type 13", Raw().head(0, 1).text("k").put(uint32_t{13}).put(uint64_t{0}));
  expect_corrupt("unknown type 77", Raw().head(0, 1).text("k").put(uint32_t{9}).put(uint32_t{77}).put(uint64_t{0}));
  expect_corrupt("a bool in metadata \"k\" is 2", Raw().head(0, 1).text("k").put(uint32_t{7}).put(uint8_t{2}));
  expect_error(ErrorCode::kUnsupported, "array of arrays",
               [] { Raw().head(0, 1).text("k").put(uint32_t{9}).put(uint32_t{9}).put(uint64_t{0}).parse(); });
  for (const uint32_t alignment : {0u, 1u, 33u, 1u << 30})
    expect_corrupt("general.alignment", Raw().head(0, 1).u32("general.alignment", alignment));
  expect_error(ErrorCode::kInvalidInput, "general.alignment",
               [] { Raw().head(0, 1).text("general.alignment").put(uint32_t{6}).put(32.0f).parse(); });
}

TEST(GgufReader, UsesTheFilesAlignment) {
  const GgufFile file = Raw().head(1, 1).u32("general.alignment", 64).tensor("t", {4}, 0, 64).data(64 + 16, 64).parse();
  EXPECT_EQ(file.find_tensor("t")->offset % 64, 0u);
}

TEST(GgufReader, RefusesOffsetPastEnd) {
  expect_corrupt("ends at byte", Raw().head(1, 0).tensor("t", {8}, 0, 32).data(32));
  expect_corrupt("ends at byte", Raw().head(1, 0).tensor("t", {8}, 0, 0).data(31));
  expect_corrupt("ends at byte", Raw().head(1, 0).tensor("t", {8}, 0, ~uint64_t{0} - 31).data(32));
  expect_corrupt("ends at byte", Raw().head(1, 0).tensor("t", {8}, 99, 64).data(32));  // unknown type
}

TEST(GgufReader, RefusesMalformedTensors) {
  expect_corrupt("no multiple of the alignment", Raw().head(1, 0).tensor("t", {4}, 0, 4).data(32));
  expect_corrupt("dimensions", Raw().head(1, 0).tensor("t", {1, 1, 1, 1, 1}, 0, 0).data(32));
  expect_corrupt("has a dimension", Raw().head(1, 0).tensor("t", {~uint64_t{0}}, 0, 0).data(32));
  expect_corrupt("larger than any memory",
                 Raw().head(1, 0).tensor("t", {uint64_t{1} << 40, uint64_t{1} << 40}, 0, 0).data(32));
  expect_corrupt("larger than any memory", Raw().head(1, 0).tensor("t", {uint64_t{1} << 62}, 0, 0).data(32));
  expect_corrupt("rows of 33", Raw().head(1, 0).tensor("t", {33}, 2, 0).data(64));
  expect_corrupt("stands there twice", Raw().head(2, 0).tensor("t", {4}, 0, 0).tensor("t", {4}, 0, 32).data(64));
  expect_corrupt("overlap", Raw().head(2, 0).tensor("s", {16}, 0, 0).tensor("t", {4}, 0, 32).data(64));
}

TEST(GgufReader, TensorOfUnknownTypeIsListedButNotRead) {
  const GgufFile file = Raw().head(1, 0).tensor("t", {8}, 99, 0).data(32).parse();
  expect_error(ErrorCode::kUnsupported, "type 99", [&] { file.tensor("t"); });
  expect_error(ErrorCode::kUnsupported, "type 99", [&] { file.raw(*file.find_tensor("t")); });
}

TEST(GgufReader, ReadsTensorsWithoutElements) {
  const GgufFile file = Raw().head(1, 0).tensor("t", {0, 4}, 0, 0).parse();  // the file ends with its header
  EXPECT_TRUE(file.tensor("t").bytes.empty());
  EXPECT_EQ(file.tensor("t").shape, (tensor::Shape{4, 0}));
}

TEST(GgufReader, NamesInMessagesAreHarmless) {
  expect_corrupt("\"\\x1b[2J\\xff\" stands there twice",
                 Raw().head(2, 0).tensor("\x1b[2J\xff", {4}, 0, 0).tensor("\x1b[2J\xff", {4}, 0, 32).data(64));
}

TEST(GgufReader, SurvivesDamage) {
  Raw raw;
  raw.head(3, 5).u32("general.alignment", 32).text("s").put(uint32_t{8}).text("text");
  raw.text("words").put(uint32_t{9}).put(uint32_t{8}).put(uint64_t{2}).text("a").text("bc");
  raw.text("floats").put(uint32_t{9}).put(uint32_t{6}).put(uint64_t{2}).put(1.0f).put(2.0f);
  raw.text("flags").put(uint32_t{9}).put(uint32_t{7}).put(uint64_t{1}).put(uint8_t{1});
  raw.tensor("f", {4, 2}, 0, 0).tensor("q", {32}, 8, 32).tensor("k", {256}, 14, 96);
  const size_t header = raw.bytes.size();
  raw.data(96 + 210);
  test::expect_robust(raw.bytes, header, raw.bytes.size(), [](std::string_view bytes) {
    const GgufFile file = GgufFile::parse(test::in_memory(bytes));
    size_t sum = 0;
    for (const GgufTensorInfo& info : file.tensors())
      if (find_ggml_type(info.ggml_type) != nullptr)
        for (const std::byte b : file.raw(info)) sum += static_cast<size_t>(b);
    if (const auto* words = file.find_strings("words"))
      for (const std::string_view word : *words)
        for (const char c : word) sum += static_cast<unsigned char>(c);
    EXPECT_GE(sum, 0u);
  });
}

}  // namespace
}  // namespace brick::io
