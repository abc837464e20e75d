#include "brick/io/npy.h"

#include <limits>

#include "io/temp_files.h"

namespace brick::io {
namespace {

using test::expect_error;

std::string npy(std::string_view header, std::string_view data, int major = 1) {
  std::string bytes = "\x93NUMPY";
  bytes += static_cast<char>(major);
  bytes += '\0';
  const auto length = static_cast<uint32_t>(header.size());
  bytes.append(reinterpret_cast<const char*>(&length), major == 1 ? 2 : 4);
  bytes += header;
  bytes += data;
  return bytes;
}

template <class T>
std::string raw(std::initializer_list<T> values) {
  return {reinterpret_cast<const char*>(values.begin()), values.size() * sizeof(T)};
}

NpyInts ints(std::string_view bytes) { return parse_npy_ints(*test::in_memory(bytes)); }

std::string header(std::string_view descr, std::string_view shape, std::string_view order = "False") {
  return fmt::format("{{'descr': '{}', 'fortran_order': {}, 'shape': {}, }}", descr, order, shape);
}

TEST(NpyReader, ReadsEveryWidthAndVersion) {
  const std::vector<int64_t> expected{1, 2, 3, 300};
  const NpyInts eight = ints(npy(header("<i8", "(2, 2)"), raw<int64_t>({1, 2, 3, 300})));
  EXPECT_EQ(eight.shape, (tensor::Shape{2, 2}));
  EXPECT_EQ(eight.values, expected);
  EXPECT_EQ(ints(npy(header("<i4", "(4,)"), raw<int32_t>({1, 2, 3, 300}), 2)).values, expected);
  EXPECT_EQ(ints(npy(header("<u4", "(4,)"), raw<uint32_t>({1, 2, 3, 300}), 3)).values, expected);
  EXPECT_EQ(ints(npy(header("<u2", "(4,)"), raw<uint16_t>({1, 2, 3, 300}))).values, expected);
  EXPECT_EQ(ints(npy(header("<i2", "(1, 4)"), raw<int16_t>({1, 2, 3, 300}))).values, expected);
  EXPECT_EQ(ints(npy(header("<u8", "(4)"), raw<uint64_t>({1, 2, 3, 300}))).values, expected);
  EXPECT_EQ(ints(npy(header("<i4", "(2,)"), raw<int32_t>({-5, 7}))).values, (std::vector<int64_t>{-5, 7}));
  EXPECT_TRUE(ints(npy(header("<i4", "(0, 512)"), "")).values.empty());
  EXPECT_EQ(
      ints(npy("{\"shape\": (1,), \"fortran_order\": False, \"descr\": \"<i4\"}   \n", raw<int32_t>({9}))).values[0],
      9);
}

TEST(NpyReader, RefusesOtherKindsByName) {
  expect_error(ErrorCode::kUnsupported, "Fortran order", [] { ints(npy(header("<i4", "(2, 2)", "True"), "")); });
  for (const char* descr : {"<f4", ">i4", "|i1", "|b1", "<c8", "<U5", "|O"})
    expect_error(ErrorCode::kUnsupported, descr, [&] { ints(npy(header(descr, "(1,)"), "abcd")); });
  expect_error(ErrorCode::kUnsupported, "structured",
               [] { ints(npy("{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (1,), }", "abcd")); });
  expect_error(ErrorCode::kUnsupported, "0 dimensions", [] { ints(npy(header("<i4", "()"), "abcd")); });
  expect_error(ErrorCode::kUnsupported, "3 dimensions", [] { ints(npy(header("<i4", "(1, 1, 1)"), "abcd")); });
  expect_error(ErrorCode::kUnsupported, "version 4", [] { ints(npy(header("<i4", "(1,)"), "abcd", 4)); });
  expect_error(ErrorCode::kUnsupported, "no int64",
               [] { ints(npy(header("<u8", "(1,)"), raw<uint64_t>({~uint64_t{0}}))); });
}

TEST(NpyReader, RefusesMalformedHeaders) {
  for (const char* text : {"", "{", "{}", "{'descr': '<i4'}", "{'descr': '<i4', 'fortran_order': 0, 'shape': (1,)}",
                           "{'descr': '<i4', 'fortran_order': False, 'shape': (1,)", "{'descr': '<i4",
                           "{'descr': '<i4', 'fortran_order': False, 'shape': (-1,)}",
                           "{'descr': '<i4', 'fortran_order': False, 'shape': (99999999999999999999,)}",
                           "{'descr': '<i4', 'fortran_order': False, 'shape': (1 1)}",
                           "{'descr': '<i4', 'fortran_order': False, 'shape': 1}",
                           "{'descr': '<i4', 'fortran_order': False, 'shape': (1,), 'x': 1}",
                           "{'descr': '<i4', 'descr': '<i4', 'fortran_order': False, 'shape': (1,)}",
                           "{'descr': '<i4', 'fortran_order': False, 'shape': (1,)} x",
                           "{'descr': '<i4' 'fortran_order': False, 'shape': (1,)}"})
    expect_error(ErrorCode::kCorrupt, "header is malformed", [&] { ints(npy(text, "abcd")); });
  expect_error(ErrorCode::kCorrupt, "is no NumPy file", [] { ints("PK\x03\x04 and a zip archive"); });
  expect_error(ErrorCode::kCorrupt, "is no NumPy file", [] { ints("\x93NUMPY"); });
  expect_error(ErrorCode::kCorrupt, "claims a header", [] { ints(npy(header("<i4", "(1,)"), "").substr(0, 40)); });
  expect_error(ErrorCode::kCorrupt, "claims a header", [] { ints(npy(std::string(20000, ' '), "")); });
}

TEST(NpyReader, RefusesDataOfAnotherSize) {
  expect_error(ErrorCode::kCorrupt, "does not fit its 4 bytes", [] { ints(npy(header("<i4", "(2,)"), "abcd")); });
  expect_error(ErrorCode::kCorrupt, "does not fit its 8 bytes", [] { ints(npy(header("<i4", "(1,)"), "abcdefgh")); });
  expect_error(ErrorCode::kCorrupt, "overflows", [] { ints(npy(header("<i4", "(4294967296, 4294967296)"), "abcd")); });
  expect_error(ErrorCode::kCorrupt, "overflows", [] { ints(npy(header("<i4", "(9223372036854775807,)"), "abcd")); });
}

TEST(NpyReader, SurvivesDamage) {
  const std::string good = npy(header("<i4", "(2, 2)"), raw<int32_t>({1, 2, 3, 4}));
  test::expect_robust(good, good.size() - 16, good.size(), [](std::string_view bytes) { ints(bytes); });
}

TEST(NpyWriter, RoundTripsRows) {
  const TempFolder folder;
  const std::vector<float> values{1, -2.5f, std::numeric_limits<float>::infinity(), 4, 5, 6};
  NpyWriter writer(folder / "l.npy", 3, 2);
  writer.append(std::span(values).first(2));
  writer.append(std::span(values).subspan(2));
  EXPECT_FALSE(std::filesystem::exists(folder / "l.npy"));
  writer.commit();
  const NpyFloats back = read_npy_floats(folder / "l.npy");
  EXPECT_EQ(back.shape, (tensor::Shape{3, 2}));
  EXPECT_EQ(back.values, values);
  EXPECT_EQ((test::slurp(folder / "l.npy").size() - 24) % 64, 0u);
  expect_error(ErrorCode::kUnsupported, "<f4", [&] { read_npy_ints(folder / "l.npy"); });
  expect_error(ErrorCode::kExists, "--force", [&] { NpyWriter(folder / "l.npy", 1, 1); });
}

TEST(NpyWriter, ChecksTheNumberOfRows) {
  const TempFolder folder;
  const float row[2]{};
  {
    NpyWriter writer(folder / "l.npy", 1, 2);
    expect_error(ErrorCode::kInvalidInput, "0 values of its shape (1, 2)", [&] { writer.commit(); });
    writer.append(row);
    expect_error(ErrorCode::kInvalidInput, "more values", [&] { writer.append(row); });
  }
  EXPECT_TRUE(folder.names().empty());
  expect_error(ErrorCode::kCorrupt, "overflows",
               [&] { NpyWriter(folder / "l.npy", int64_t{1} << 40, int64_t{1} << 40); });
}

}  // namespace
}  // namespace brick::io
