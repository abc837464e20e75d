#include "brick/tensor/dtype.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "brick/base/error.h"

namespace brick::tensor {
namespace {

__extension__ typedef _Float16 Half;  // the compiler's half precision: the reference

float half_value(uint16_t bits) { return static_cast<float>(std::bit_cast<Half>(bits)); }
uint16_t half_bits(float value) { return std::bit_cast<uint16_t>(static_cast<Half>(value)); }

// Same bits, or both NaN.
::testing::AssertionResult same(float a, float b) {
  if (std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b) || (std::isnan(a) && std::isnan(b)))
    return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << a << " and " << b;
}

TEST(Half, EveryPatternConvertsAsTheCompilersType) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    ASSERT_TRUE(same(f16_to_f32(half), half_value(half))) << bits;
    if (std::isnan(half_value(half)))
      ASSERT_TRUE(std::isnan(f16_to_f32(f32_to_f16(f16_to_f32(half))))) << bits;
    else
      ASSERT_EQ(f32_to_f16(f16_to_f32(half)), half);
  }
}

void expect_rounds_as_the_compiler(float value) {
  ASSERT_EQ(f32_to_f16(value), half_bits(value)) << value;
  ASSERT_EQ(f32_to_f16(-value), half_bits(-value)) << value;
}

// All the places where rounding decides: the middle between two neighbours and the floats beside it.
TEST(Half, RoundsToNearestEvenBetweenEveryTwoNeighbours) {
  for (uint16_t bits = 0; bits < 0x7C00; ++bits) {
    const float low = half_value(bits);
    const float high = bits == 0x7BFF ? 65536.0f : half_value(static_cast<uint16_t>(bits + 1));
    const float middle = low + (high - low) / 2;  // exact
    expect_rounds_as_the_compiler(middle);
    expect_rounds_as_the_compiler(std::nextafter(middle, 0.0f));
    expect_rounds_as_the_compiler(std::nextafter(middle, 1e9f));
  }
}

TEST(Half, RoundsFloatsOfEveryMagnitude) {
  for (uint64_t bits = 0; bits < 0x7F800000; bits += 4099)
    expect_rounds_as_the_compiler(std::bit_cast<float>(static_cast<uint32_t>(bits)));
  expect_rounds_as_the_compiler(std::numeric_limits<float>::infinity());
  expect_rounds_as_the_compiler(std::numeric_limits<float>::denorm_min());
  EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(std::nanf("")))));
  EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(std::bit_cast<float>(0x7F800001u)))));  // signalling, payload lost
}

TEST(Bfloat, EveryPatternSurvives) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto stored = static_cast<uint16_t>(bits);
    const float value = bf16_to_f32(stored);
    ASSERT_EQ(std::bit_cast<uint32_t>(value), bits << 16);
    if (std::isnan(value))
      ASSERT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(value)))) << bits;
    else
      ASSERT_EQ(f32_to_bf16(value), stored);
  }
}

TEST(Bfloat, RoundsToNearestEven) {
  const auto rounded = [](uint32_t bits) { return f32_to_bf16(std::bit_cast<float>(bits)); };
  EXPECT_EQ(rounded(0x3F808000), 0x3F80);  // halfway: down to even,
  EXPECT_EQ(rounded(0x3F818000), 0x3F82);  // up to even
  EXPECT_EQ(rounded(0x3F808001), 0x3F81);
  EXPECT_EQ(rounded(0x3F807FFF), 0x3F80);
  EXPECT_EQ(rounded(0x7F7FFFFF), 0x7F80);  // the largest float rounds to infinity
  EXPECT_EQ(rounded(0x7F800000), 0x7F80);
  EXPECT_EQ(rounded(0xFF800000), 0xFF80);
  EXPECT_EQ(rounded(0x80000000), 0x8000);
  EXPECT_EQ(rounded(0x00008000), 0x0000);  // subnormals too
  EXPECT_EQ(rounded(0x00018000), 0x0002);
  EXPECT_TRUE(std::isnan(bf16_to_f32(rounded(0x7F800001))));  // a payload in the lost bits stays NaN
  EXPECT_TRUE(std::isnan(bf16_to_f32(rounded(0xFFFFFFFF))));
}

TEST(DType, NamesAreFoundAgain) {
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_1, DType::kU8,
                      DType::kI32, DType::kI64})
    EXPECT_EQ(find_dtype(name(dtype)), dtype);
  EXPECT_EQ(find_dtype("q2_k"), std::nullopt);
  EXPECT_EQ(find_dtype(""), std::nullopt);
}

TEST(DType, KnowsFloatsAndBlockFormats) {
  EXPECT_TRUE(is_float(DType::kBF16));
  EXPECT_FALSE(is_float(DType::kQ8_0));
  EXPECT_TRUE(is_quantised(DType::kQ4_1));
  EXPECT_FALSE(is_quantised(DType::kI64));
}

TEST(RowBytes, CountsWholeBlocksOnly) {
  EXPECT_EQ(row_bytes(DType::kF32, 7), 28);
  EXPECT_EQ(row_bytes(DType::kBF16, 7), 14);
  EXPECT_EQ(row_bytes(DType::kQ8_0, 64), 68);
  EXPECT_EQ(row_bytes(DType::kQ4_0, 64), 36);
  EXPECT_EQ(row_bytes(DType::kQ4_1, 64), 40);
  EXPECT_EQ(row_bytes(DType::kQ4_0, 0), 0);
  EXPECT_THROW(row_bytes(DType::kQ4_0, 33), Error);
  EXPECT_THROW(row_bytes(DType::kF32, -1), Error);
  EXPECT_THROW(row_bytes(DType::kQ8_0, -32), Error);
  EXPECT_THROW(row_bytes(DType::kI64, std::numeric_limits<int64_t>::max()), Error);
}

}  // namespace
}  // namespace brick::tensor
