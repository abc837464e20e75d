#include "brick/tensor/pack.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "brick/base/rng.h"

namespace brick::tensor {
namespace {

constexpr std::array kBlockFormats{DType::kQ8_0, DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1};
constexpr std::array kSuperFormats{DType::kQ4_K, DType::kQ5_K, DType::kQ6_K};

// Scales are stored in half precision: relative error 2^-11, which the largest integer of the block
// multiplies.
constexpr float kHalfRounding = 0x1p-11f;

std::vector<float> random_values(int64_t count, uint64_t stream, double deviation = 1.0, double mean = 0.0) {
  Rng rng(21, stream);
  std::vector<float> out(static_cast<size_t>(count));
  for (float& x : out) x = static_cast<float>(mean + deviation * rng.normal());
  return out;
}

std::vector<std::byte> packed(DType dtype, const std::vector<float>& values) {
  std::vector<std::byte> out(static_cast<size_t>(row_bytes(dtype, static_cast<int64_t>(values.size()))));
  pack(dtype, values.data(), static_cast<int64_t>(values.size()), out.data());
  return out;
}

std::vector<float> unpacked(DType dtype, const std::vector<std::byte>& bytes, size_t count) {
  std::vector<float> out(count);
  unpack(dtype, bytes.data(), static_cast<int64_t>(count), out.data());
  return out;
}

std::vector<float> round_trip(DType dtype, const std::vector<float>& values) {
  return unpacked(dtype, packed(dtype, values), values.size());
}

uint16_t half_at(const std::vector<std::byte>& bytes, size_t offset) {
  uint16_t half;
  std::memcpy(&half, bytes.data() + offset, 2);
  return half;
}

TEST(Pack, FloatFormatsRoundEachValue) {
  const std::vector<float> values = random_values(77, 1);
  EXPECT_EQ(round_trip(DType::kF32, values), values);
  const std::vector<float> halves = round_trip(DType::kF16, values), bfloats = round_trip(DType::kBF16, values);
  for (size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(halves[i], f16_to_f32(f32_to_f16(values[i])));
    EXPECT_EQ(bfloats[i], bf16_to_f32(f32_to_bf16(values[i])));
  }
}

// What the rounding allows: half a step and the rounding of the scale; Q4_0 and Q5_0 clip at one end of
// their range by a step.
TEST(Pack, BlockFormatsStayWithinHalfAStep) {
  for (double deviation : {1e-3, 1.0, 50.0})
    for (DType dtype : kBlockFormats) {
      const std::vector<float> values = random_values(320, 2, deviation, 0.3 * deviation);
      const std::vector<float> out = round_trip(dtype, values);
      for (size_t block = 0; block < values.size(); block += kQuantBlock) {
        const auto begin = values.begin() + static_cast<std::ptrdiff_t>(block);
        const auto [low, high] = std::minmax_element(begin, begin + kQuantBlock);
        const float largest = std::max(std::fabs(*low), std::fabs(*high));
        const float step = dtype == DType::kQ8_0   ? largest / 127
                           : dtype == DType::kQ4_0 ? largest / 8
                           : dtype == DType::kQ5_0 ? largest / 16
                           : dtype == DType::kQ5_1 ? (*high - *low) / 31
                                                   : (*high - *low) / 15;
        const float half_steps = dtype == DType::kQ4_0 || dtype == DType::kQ5_0 ? 1.0f : 0.5f;
        for (size_t i = block; i < block + kQuantBlock; ++i)
          EXPECT_LE(std::fabs(out[i] - values[i]), half_steps * step * 1.001f + 3 * kHalfRounding * largest)
              << name(dtype) << " " << i;
      }
    }
}

// Decoded values are on the grid, so encoding them again changes nothing but, at most, the scale's last bit.
TEST(Pack, ASecondRoundTripChangesNothing) {
  for (DType dtype : kBlockFormats) {
    const std::vector<float> once = round_trip(dtype, random_values(320, 3));
    const std::vector<float> twice = round_trip(dtype, once);
    const float largest = *std::max_element(once.begin(), once.end());
    for (size_t i = 0; i < once.size(); ++i) EXPECT_NEAR(twice[i], once[i], 2 * kHalfRounding * largest) << name(dtype);
  }
}

TEST(Pack, ZeroBlocksStayZero) {
  for (DType dtype : kBlockFormats)
    for (float zero : {0.0f, -0.0f})
      for (float value : round_trip(dtype, std::vector<float>(64, zero))) EXPECT_EQ(value, 0.0f) << name(dtype);
}

// A step of the six-bit scales and one of the sub-block's own grid.
TEST(Pack, SuperBlocksStayNear) {
  for (double deviation : {1e-3, 1.0, 50.0})
    for (DType dtype : kSuperFormats) {
      const std::vector<float> values = random_values(1024, 6, deviation, 0.3 * deviation);
      const std::vector<float> out = round_trip(dtype, values);
      const float largest = std::fabs(*std::max_element(values.begin(), values.end(),
                                                        [](float a, float b) { return std::fabs(a) < std::fabs(b); }));
      const float step = dtype == DType::kQ4_K ? largest / 7 : dtype == DType::kQ5_K ? largest / 15 : largest / 31;
      for (size_t i = 0; i < values.size(); ++i)
        EXPECT_LE(std::fabs(out[i] - values[i]), step) << name(dtype) << " " << i;
    }
}

TEST(Pack, SuperBlocksOfNothingAndOfOneValue) {
  for (DType dtype : kSuperFormats) {
    for (float zero : {0.0f, -0.0f, std::numeric_limits<float>::denorm_min()})
      for (float value : round_trip(dtype, std::vector<float>(512, zero))) EXPECT_EQ(value, 0.0f) << name(dtype);
    for (float constant : {1.0f, -1.0f, 0.37f, -120.0f})
      for (float value : round_trip(dtype, std::vector<float>(256, constant)))
        EXPECT_NEAR(value, constant, 4 * kHalfRounding * std::fabs(constant)) << name(dtype) << " " << constant;
  }
}

// Sub-blocks without a weight stay so beside full ones; in Q6_K, whose grid has a zero, so do single weights.
TEST(Pack, SuperBlocksKeepZeros) {
  std::vector<float> values = random_values(512, 7);
  for (size_t i = 0; i < values.size(); ++i)
    if (i / 32 % 2 == 0 || i % 3 == 0) values[i] = 0;
  for (DType dtype : kSuperFormats) {
    const std::vector<float> out = round_trip(dtype, values);
    for (size_t i = 0; i < values.size(); ++i)
      if (i / 32 % 2 == 0 || (dtype == DType::kQ6_K && values[i] == 0)) {
        EXPECT_EQ(out[i], 0.0f) << name(dtype);
      }
  }
}

TEST(Pack, ConstantBlocksKeepTheirValue) {
  for (DType dtype : kBlockFormats)
    for (float constant : {1.0f, -1.0f, 0.37f, -120.0f})
      for (float value : round_trip(dtype, std::vector<float>(32, constant)))
        EXPECT_NEAR(value, constant, 2 * kHalfRounding * std::fabs(constant)) << name(dtype);
}

TEST(Pack, NonFiniteInputsDoNotCrash) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (DType dtype :
       {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1})
    for (float bad : {infinity, -infinity, std::nanf(""), std::numeric_limits<float>::max(),
                      std::numeric_limits<float>::denorm_min()})
      for (size_t at : {0u, 13u, 31u}) {
        std::vector<float> values = random_values(32, 4);
        values[at] = bad;
        EXPECT_EQ(round_trip(dtype, values).size(), 32u);
        EXPECT_EQ(round_trip(dtype, std::vector<float>(32, bad)).size(), 32u);
      }
  for (DType dtype : kSuperFormats)
    for (float bad : {infinity, -infinity, std::nanf(""), std::numeric_limits<float>::max()}) {
      std::vector<float> values = random_values(256, 4);
      values[130] = bad;
      EXPECT_EQ(round_trip(dtype, values).size(), 256u);
      EXPECT_EQ(round_trip(dtype, std::vector<float>(256, bad)).size(), 256u);
    }
}

// ggml's quantize_row_q8_0_ref: d = amax / 127, q = roundf(x / d), halves away from zero.
TEST(Pack, Q8IsGgmlsReference) {
  std::vector<float> values(32, 0.0f);
  values[0] = 127.0f;  // d = 1
  values[1] = 2.5f;
  values[2] = -2.5f;
  values[3] = 3.49f;
  values[31] = -126.6f;
  const std::vector<std::byte> bytes = packed(DType::kQ8_0, values);
  EXPECT_EQ(half_at(bytes, 0), 0x3C00);
  EXPECT_EQ(static_cast<int8_t>(bytes[2]), 127);
  EXPECT_EQ(static_cast<int8_t>(bytes[3]), 3);
  EXPECT_EQ(static_cast<int8_t>(bytes[4]), -3);
  EXPECT_EQ(static_cast<int8_t>(bytes[5]), 3);
  EXPECT_EQ(static_cast<int8_t>(bytes[33]), -127);
}

// quantize_row_q4_0_ref: d = (the value of largest magnitude) / -8, q = min(15, int(x / d + 8.5)).
TEST(Pack, Q4IsGgmlsReference) {
  std::vector<float> values(32, 0.0f);
  values[0] = -8.0f;  // the extreme: d = 1, q = 0
  values[1] = 7.6f;   // 16.1, clipped to 15
  values[2] = 2.5f;   // 11.0
  values[3] = -2.6f;  // 5.9 -> 5
  values[16] = 3.0f;  // the high half of byte 0
  const std::vector<std::byte> bytes = packed(DType::kQ4_0, values);
  EXPECT_EQ(half_at(bytes, 0), 0x3C00);
  EXPECT_EQ(static_cast<int>(bytes[2]), 0 | 11 << 4);
  EXPECT_EQ(static_cast<int>(bytes[3]), 15 | 8 << 4);
  EXPECT_EQ(static_cast<int>(bytes[4]), 11 | 8 << 4);
  EXPECT_EQ(static_cast<int>(bytes[5]), 5 | 8 << 4);
  const std::vector<float> out = unpacked(DType::kQ4_0, bytes, 32);
  EXPECT_EQ(out[0], -8.0f);
  EXPECT_EQ(out[1], 7.0f);
  EXPECT_EQ(out[16], 3.0f);

  values[0] = 8.0f;  // a positive extreme turns the scale negative
  EXPECT_EQ(half_at(packed(DType::kQ4_0, values), 0), 0xBC00);
}

// quantize_row_q4_1_ref: d = (max - min) / 15, q = min(15, int((x - min) / d + 0.5)).
TEST(Pack, Q4WithMinimumIsGgmlsReference) {
  std::vector<float> values(32, 2.0f);
  values[0] = 17.0f;  // min 2, d 1
  values[1] = 4.5f;   // 3.0
  values[2] = 4.4f;   // 2.9 -> 2
  values[17] = 12.0f;
  const std::vector<std::byte> bytes = packed(DType::kQ4_1, values);
  EXPECT_EQ(half_at(bytes, 0), 0x3C00);
  EXPECT_EQ(half_at(bytes, 2), 0x4000);
  EXPECT_EQ(static_cast<int>(bytes[4]), 15);
  EXPECT_EQ(static_cast<int>(bytes[5]), 3 | 10 << 4);
  EXPECT_EQ(static_cast<int>(bytes[6]), 2);
  EXPECT_EQ(unpacked(DType::kQ4_1, bytes, 32)[17], 12.0f);
}

TEST(Pack, IntegersAreNotDecoded) {
  std::array<std::byte, 8> bytes{};
  float out = 0;
  EXPECT_THROW(unpack(DType::kI64, bytes.data(), 1, &out), std::logic_error);
  EXPECT_THROW(pack(DType::kU8, &out, 1, bytes.data()), std::logic_error);
  EXPECT_THROW(unpack(DType::kQ8_0, bytes.data(), 1, &out), std::logic_error);
}

TEST(Convert, ConvertsRowByRowInAnyNumberOfDimensions) {
  const std::vector<float> values = random_values(2 * 3 * 64, 5);
  const TensorView source{DType::kF32, {2, 3, 64}, std::as_bytes(std::span(values))};
  const Tensor blocks = convert(source, DType::kQ8_0);
  EXPECT_EQ(blocks.shape(), source.shape);
  const Tensor back = to_f32(blocks.view());
  EXPECT_EQ(std::vector<float>(back.f32(), back.f32() + back.size()), round_trip(DType::kQ8_0, values));
  const Tensor same = convert(blocks.view(), DType::kQ8_0);
  EXPECT_TRUE(std::equal(same.bytes().begin(), same.bytes().end(), blocks.bytes().begin()));
}

TEST(Convert, EmptyTensorsStayEmpty) {
  const Tensor none(DType::kF32, {0, 64});
  EXPECT_TRUE(convert(none.view(), DType::kQ4_0).empty());
}

}  // namespace
}  // namespace brick::tensor
