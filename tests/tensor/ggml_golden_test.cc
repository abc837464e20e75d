// ggml's own encodings of a few rows (tests/golden/make_quantised.py) beside ours.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "brick/tensor/pack.h"

namespace brick::tensor {
namespace {

constexpr std::array kPlain{DType::kQ8_0, DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1};
constexpr std::array kSuper{DType::kQ4_K, DType::kQ5_K, DType::kQ6_K};
constexpr int64_t kColumns = 256;

template <class T>
std::vector<T> golden(const std::string& name) {
  const std::string path = std::string(BRICK_TEST_SOURCE_DIR) + "/golden/quantised/" + name;
  std::vector<T> out(std::filesystem::file_size(path) / sizeof(T));
  std::ifstream(path, std::ios::binary).read(reinterpret_cast<char*>(out.data()), out.size() * sizeof(T));
  return out;
}
std::vector<std::byte> encoded(DType dtype) { return golden<std::byte>(std::string(name(dtype)) + ".bin"); }
std::vector<float> decoded(DType dtype) { return golden<float>(std::string(name(dtype)) + ".f32"); }

std::vector<std::byte> packed(DType dtype, const std::vector<float>& rows) {
  std::vector<std::byte> out(static_cast<size_t>(row_bytes(dtype, static_cast<int64_t>(rows.size()))));
  pack(dtype, rows.data(), static_cast<int64_t>(rows.size()), out.data());
  return out;
}
std::vector<float> unpacked(DType dtype, const std::vector<std::byte>& bytes, size_t count) {
  std::vector<float> out(count);
  unpack(dtype, bytes.data(), static_cast<int64_t>(count), out.data());
  return out;
}
double squared_error(const std::vector<float>& rows, const std::vector<float>& values, size_t row) {
  double sum = 0;
  for (size_t i = row * kColumns; i < (row + 1) * kColumns; ++i)
    sum += (double{values[i]} - rows[i]) * (double{values[i]} - rows[i]);
  return sum;
}

TEST(GgmlGolden, PlainFormatsHaveItsBytes) {
  std::vector<float> rows = golden<float>("rows.f32");
  for (DType dtype : kPlain) EXPECT_EQ(packed(dtype, rows), encoded(dtype)) << name(dtype);
  rows[40] += 0.05f;  // negative control
  for (DType dtype : kPlain) EXPECT_NE(packed(dtype, rows), encoded(dtype)) << name(dtype);
}

TEST(GgmlGolden, EveryFormatDecodesToItsValues) {
  const auto check = [](DType dtype) {
    const std::vector<float> wanted = decoded(dtype);
    std::vector<std::byte> bytes = encoded(dtype);
    EXPECT_EQ(unpacked(dtype, bytes, wanted.size()), wanted) << name(dtype);
    for (size_t at : {size_t{3}, static_cast<size_t>(info(dtype).block_bytes) - 3}) {  // negative controls
      bytes[at] ^= std::byte{1};
      EXPECT_NE(unpacked(dtype, bytes, wanted.size()), wanted) << name(dtype) << " byte " << at;
      bytes[at] ^= std::byte{1};
    }
  };
  for (DType dtype : kPlain) check(dtype);
  for (DType dtype : kSuper) check(dtype);
}

// The K formats are searched for, so bytes differ. Both searches minimise a weighted sum, so a single row's plain error
// may be a little larger; that of all rows may not.
TEST(GgmlGolden, SuperBlocksHaveAtMostItsError) {
  constexpr double kOneBlock = 1.05;
  const std::vector<float> rows = golden<float>("rows.f32");
  for (DType dtype : kSuper) {
    const std::vector<float> theirs = decoded(dtype), ours = unpacked(dtype, packed(dtype, rows), rows.size());
    double ratios = 0;
    int counted = 0;
    for (size_t row = 0; row < rows.size() / kColumns; ++row) {
      const double a = std::sqrt(squared_error(rows, ours, row)), b = std::sqrt(squared_error(rows, theirs, row));
      EXPECT_LE(a, kOneBlock * b + 1e-6) << name(dtype) << " row " << row;
      if (b == 0) continue;
      ratios += a / b;
      ++counted;
    }
    EXPECT_LE(ratios / counted, 1.0) << name(dtype);
    // Negative control: scales that are off by 2 %.
    std::vector<float> larger = rows;
    for (float& value : larger) value *= 1.02f;
    const std::vector<float> worse = unpacked(dtype, packed(dtype, larger), rows.size());
    EXPECT_GT(squared_error(rows, worse, 0), squared_error(rows, theirs, 0)) << name(dtype);
  }
}

}  // namespace
}  // namespace brick::tensor
