#include "brick/kernels/vector_ops.h"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "brick/base/rng.h"
#include "brick/tensor/pack.h"
#include "kernels/test_util.h"

namespace brick::kernels {
namespace {

using tensor::DType;

constexpr int64_t kLongest = 140;  // over two rounds of four vectors of 16
// Sums of at most kLongest terms, relative to the sum of their magnitudes: a few units of 2^-24.
constexpr double kSumTolerance = 4e-7;
// Highway's Exp promises one unit in the last place; std::exp less than one.
constexpr double kExpTolerance = 2.5e-7;

// One value more than asked for, so that `data() + 1` is an unaligned vector of `count`.
std::vector<float> values(int64_t count, uint64_t stream) {
  Rng rng(56, stream);
  std::vector<float> out(static_cast<size_t>(count) + 1);
  for (float& x : out) x = static_cast<float>(rng.normal());
  return out;
}

TEST(VectorOps, CountsBits) {
  Rng rng(56, 9);
  std::vector<uint64_t> words(40);
  int64_t want = 0;
  for (size_t n = 0; n < words.size(); ++n) {
    EXPECT_EQ(count_bits(words.data(), static_cast<int64_t>(n)), want);
    words[n] = rng.below(uint64_t{1} << 63) << 1 | n % 2;
    want += std::popcount(words[n]);
  }
}

TEST(VectorOps, DotAndSumOfSquaresMatchDoubleReference) {
  for (int64_t n = 0; n <= kLongest; ++n) {
    const std::vector<float> a = values(n, 1), b = values(n, 2);
    double want = 0, magnitude = 1e-30, squares = 0;
    for (size_t i = 1; i <= static_cast<size_t>(n); ++i) {
      want += double{a[i]} * b[i];
      magnitude += std::fabs(double{a[i]} * b[i]);
      squares += double{a[i]} * a[i];
    }
    expect_within("dot", std::fabs(dot(a.data() + 1, b.data() + 1, n) - want) / magnitude, kSumTolerance);
    expect_within("sum_squares", std::fabs(sum_squares(a.data() + 1, n) - squares) / (squares + 1e-30), kSumTolerance);
  }
}

TEST(VectorOps, NegativeControlDotSeesEveryElement) {
  for (int64_t n : {int64_t{1}, int64_t{16}, int64_t{31}, int64_t{64}, kLongest}) {
    const std::vector<float> ones(static_cast<size_t>(n), 1.0f);
    for (int64_t at = 0; at < n; ++at) {
      std::vector<float> a(static_cast<size_t>(n), 1.0f);
      a[static_cast<size_t>(at)] += 0.5f;
      EXPECT_EQ(dot(a.data(), ones.data(), n), static_cast<float>(n) + 0.5f);
    }
  }
}

TEST(VectorOps, ElementwiseOpsTouchTheirRangeOnly) {
  for (int64_t n = 0; n <= kLongest; ++n) {
    const std::vector<float> x = values(n, 3), y = values(n, 4);
    std::vector<float> sum = y, scaled = x, product(x.size() + 1, -5.0f);
    sum.push_back(-5.0f);
    scaled.push_back(-5.0f);
    axpy(0.3f, x.data() + 1, sum.data() + 1, n);
    scale(0.3f, scaled.data() + 1, n);
    multiply(x.data() + 1, y.data() + 1, product.data() + 1, n);
    for (size_t i = 1; i <= static_cast<size_t>(n); ++i) {
      // With or without a fused addition, depending on the instruction set.
      EXPECT_NEAR(sum[i], 0.3f * x[i] + y[i], 1.2e-7 * (std::fabs(0.3f * x[i]) + std::fabs(y[i])));
      EXPECT_EQ(scaled[i], 0.3f * x[i]);
      EXPECT_EQ(product[i], x[i] * y[i]);
    }
    for (const std::vector<float>* out : {&sum, &scaled, &product}) EXPECT_EQ(out->back(), -5.0f);
    EXPECT_EQ(sum[0], y[0]);
    EXPECT_EQ(scaled[0], x[0]);
  }
}

TEST(VectorOps, MaximumIsFoundEverywhere) {
  for (int64_t n = 1; n <= 70; ++n)
    for (int64_t at = 0; at < n; ++at) {
      std::vector<float> x(static_cast<size_t>(n), -7.0f);
      x[static_cast<size_t>(at)] = -3.0f;
      ASSERT_EQ(max_value(x.data(), n), -3.0f) << n << " " << at;
    }
}

TEST(VectorOps, ExpSumMatchesDoubleReference) {
  for (int64_t n = 0; n <= kLongest; ++n) {
    std::vector<float> x = values(n, 5);
    for (float& value : x) value = value * 20.0f - 40.0f;
    const std::vector<float> before = x;
    const float total = exp_sum(1.5f, x.data() + 1, n);
    double want = 0;
    for (size_t i = 1; i <= static_cast<size_t>(n); ++i) {
      const double e = std::exp(double{before[i] - 1.5f});
      want += e;
      if (e > 1e-37)
        expect_within("exp_sum, each", std::fabs(x[i] - e) / e, kExpTolerance);
      else
        EXPECT_LE(x[i], 2e-37f);
    }
    expect_within("exp_sum, total", std::fabs(total - want) / (want + 1e-30), 2 * kExpTolerance);
    EXPECT_EQ(x[0], before[0]);
  }
}

TEST(VectorOps, ExpSumOfMinusInfinityIsZeroAndOfNotANumberIsOne) {
  for (size_t at : {0u, 9u, 17u, 34u}) {
    std::vector<float> x(35, 0.0f);
    x[at] = -std::numeric_limits<float>::infinity();
    EXPECT_EQ(exp_sum(0.0f, x.data(), 35), 34.0f);
    EXPECT_EQ(x[at], 0.0f);
    x.assign(35, 0.0f);
    x[at] = std::nanf("");
    EXPECT_TRUE(std::isnan(exp_sum(0.0f, x.data(), 35))) << at;
    EXPECT_TRUE(std::isnan(x[at])) << at;
  }
}

TEST(VectorOps, AllFiniteSeesEveryPosition) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (int64_t n = 0; n <= 70; ++n) {
    std::vector<float> x(static_cast<size_t>(n), std::numeric_limits<float>::max());
    EXPECT_TRUE(all_finite(x.data(), n));
    for (float& value : x)
      for (float bad : {infinity, -infinity, std::nanf("")}) {
        const float good = value;
        value = bad;
        ASSERT_FALSE(all_finite(x.data(), n)) << n;
        value = good;
      }
  }
}

TEST(ToBf16, EqualsTheScalarDefinitionForEveryKindOfValue) {
  std::vector<float> x;
  for (uint64_t bits = 0; bits <= 0xFFFFFFFF; bits += 65'521)
    x.push_back(std::bit_cast<float>(static_cast<uint32_t>(bits)));
  for (uint32_t high = 0; high < 0x10000; high += 7)  // halfway, and one beside
    for (uint32_t low : {0x0000u, 0x7FFFu, 0x8000u, 0x8001u, 0xFFFFu})
      x.push_back(std::bit_cast<float>(high << 16 | low));
  for (uint32_t special : {0x7F800000u, 0xFF800000u, 0x7F800001u, 0xFFFFFFFFu, 0x7FC00000u, 0x7F7FFFFFu, 0x00000001u,
                           0x807FFFFFu, 0x80000000u})
    x.push_back(std::bit_cast<float>(special));
  std::vector<uint16_t> out(x.size());
  to_bf16(x.data(), out.data(), std::ssize(x));
  for (size_t i = 0; i < x.size(); ++i) ASSERT_EQ(out[i], tensor::f32_to_bf16(x[i])) << std::bit_cast<uint32_t>(x[i]);
}

TEST(ToBf16, WorksForEveryLength) {
  for (int64_t n = 0; n <= 70; ++n) {
    const std::vector<float> x = values(n, 6);
    std::vector<uint16_t> out(static_cast<size_t>(n) + 1, 77);
    to_bf16(x.data() + 1, out.data(), n);
    for (size_t i = 0; i < static_cast<size_t>(n); ++i) ASSERT_EQ(out[i], tensor::f32_to_bf16(x[i + 1]));
    EXPECT_EQ(out.back(), 77);
  }
}

TEST(DitherToBf16, NeighboursWhoseMeanIsTheValue) {
  constexpr int64_t kRows = 128, kCols = 512;
  constexpr float kRest = 0x1p-7f / 16;  // of the distance between neighbours above 1
  for (const float value : {1.0f + kRest, -1.0f - kRest}) {
    double sum = 0;
    for (int64_t r = 0; r < kRows; ++r) {
      std::vector<float> x(kCols, value);
      dither_to_bf16(r, x.data(), kCols);
      for (const float got : x) {
        ASSERT_TRUE(std::fabs(got) == 1.0f || std::fabs(got) == 1.0f + 0x1p-7f) << got;
        sum += got;
      }
    }
    EXPECT_NEAR(sum / (kRows * kCols), value, 0.02 * kRest);  // nearest even is off by all of it
  }
}

TEST(DitherToBf16, WorksForEveryLengthAndKeepsWhatIsExact) {
  for (int64_t n = 0; n <= 70; ++n) {
    std::vector<float> x = values(n, 6), longer = values(kLongest, 6);
    dither_to_bf16(3, x.data() + 1, n);
    dither_to_bf16(3, longer.data() + 1, kLongest);
    for (size_t i = 1; i <= static_cast<size_t>(n); ++i) ASSERT_EQ(x[i], longer[i]);  // of its column alone
    const std::vector<float> once = x;
    dither_to_bf16(5, x.data() + 1, n);
    ASSERT_EQ(x, once);
  }
  std::vector<float> special{0.0f, -0.0f, std::numeric_limits<float>::infinity(),
                             -std::numeric_limits<float>::infinity(), 0x1p-130f};
  const size_t numbers = special.size();
  for (const uint32_t nan : {0x7FC00000u, 0xFFFFFFFFu, 0x7FFFE000u, 0x7F800001u, 0x7FFFFFFFu})
    special.resize(special.size() + 17, std::bit_cast<float>(nan));
  std::vector<float> dithered = special, nearest = special;
  dither_to_bf16(1, dithered.data(), std::ssize(special));
  round_to_bf16(nearest.data(), std::ssize(special));
  for (size_t i = 0; i < special.size(); ++i)
    for (const float got : {dithered[i], nearest[i]}) {
      if (i < numbers)
        EXPECT_EQ(std::bit_cast<uint32_t>(got), std::bit_cast<uint32_t>(special[i])) << i;
      else
        EXPECT_TRUE(std::isnan(got)) << i;
    }
}

TEST(RoundToBf16, IsToBf16InPlace) {
  for (int64_t n = 0; n <= 70; ++n) {
    std::vector<float> x = values(n, 6);
    std::vector<uint16_t> want(x.size());
    to_bf16(x.data() + 1, want.data(), n);
    round_to_bf16(x.data() + 1, n);
    for (int64_t i = 0; i < n; ++i) ASSERT_EQ(x[size_t(i) + 1], tensor::bf16_to_f32(want[size_t(i)]));
  }
}

// The same bits; of a NaN in float16 (hardware quiets it) or in a block format (a scale that is one, or infinity times
// zero) only that it is one.
void expect_same_as_scalar(DType dtype, const std::vector<std::byte>& bytes, int64_t count) {
  std::vector<float> got(static_cast<size_t>(count) + 1, -5.0f), want(got);
  unpack_values(dtype, bytes.data(), count, got.data());
  tensor::unpack(dtype, bytes.data(), count, want.data());
  for (size_t i = 0; i < got.size(); ++i) {
    if ((is_quantised(dtype) || dtype == DType::kF16) && std::isnan(got[i]) && std::isnan(want[i])) continue;
    ASSERT_EQ(std::bit_cast<uint32_t>(got[i]), std::bit_cast<uint32_t>(want[i])) << name(dtype) << " " << i;
  }
}

constexpr std::array kBlockFormats{DType::kQ8_0, DType::kQ4_0, DType::kQ4_1, DType::kQ5_0,
                                   DType::kQ5_1, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K};

TEST(UnpackValues, EqualsTheScalarDefinitionBitForBit) {
  Rng rng(57);
  std::vector<DType> all{DType::kF32, DType::kF16, DType::kBF16};
  all.insert(all.end(), kBlockFormats.begin(), kBlockFormats.end());
  for (DType dtype : all) {
    const int64_t step = tensor::info(dtype).block_values;
    for (int64_t count = 0; count <= (step == 1 ? 70 : 32 * 64); count += step) {
      std::vector<std::byte> bytes(static_cast<size_t>(row_bytes(dtype, count)));
      for (std::byte& byte : bytes) byte = static_cast<std::byte>(rng.below(256));
      expect_same_as_scalar(dtype, bytes, count);
    }
  }
}

TEST(UnpackValues, DecodesEveryHalfAndEveryBfloat) {
  std::vector<std::byte> bytes(0x20000);
  for (size_t i = 0; i < 0x10000; ++i) {
    bytes[2 * i] = static_cast<std::byte>(i & 255);
    bytes[2 * i + 1] = static_cast<std::byte>(i >> 8);
  }
  expect_same_as_scalar(DType::kF16, bytes, 0x10000);
  expect_same_as_scalar(DType::kBF16, bytes, 0x10000);
}

TEST(UnpackValues, EqualsTheScalarDefinitionForPackedValues) {
  const std::vector<float> x = values(511, 8);
  for (DType dtype : kBlockFormats) {
    std::vector<std::byte> bytes(static_cast<size_t>(row_bytes(dtype, 512)));
    tensor::pack(dtype, x.data(), 512, bytes.data());
    expect_same_as_scalar(dtype, bytes, 512);
  }
}

TEST(UnpackValues, NegativeControlEveryBitOfABlockIsSeen) {
  for (DType dtype : kBlockFormats) {
    const int64_t count = tensor::info(dtype).block_values;
    std::vector<float> x = values(count, 9), got(x), want(x);
    std::vector<std::byte> bytes(static_cast<size_t>(row_bytes(dtype, count)));
    tensor::pack(dtype, x.data(), count, bytes.data());
    tensor::unpack(dtype, bytes.data(), count, want.data());
    for (size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
      bytes[bit / 8] ^= std::byte{1} << bit % 8;
      unpack_values(dtype, bytes.data(), count, got.data());
      EXPECT_NE(got, want) << name(dtype) << " bit " << bit;
      bytes[bit / 8] ^= std::byte{1} << bit % 8;
    }
  }
}

}  // namespace
}  // namespace brick::kernels
