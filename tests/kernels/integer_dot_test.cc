// Each implementation of integer_dot.h that this CPU can run, against sums in double.
#include "brick/kernels/integer_dot.h"

#include <gtest/gtest.h>

#include "brick/kernels/integer_dot_impl.h"
#include "brick/tensor/pack.h"
#include "kernels/test_util.h"

namespace brick::kernels {
namespace {

using tensor::DType;
using tensor::kQuantBlock;

// Of the sum of magnitudes: float32 sums of up to 48 blocks, each exact before its scales are applied.
constexpr double kTolerance = 2e-6;

struct Implementation {
  std::string label;
  const IntegerDotKernels* kernels;
};

std::vector<Implementation> runnable() {
  std::vector<Implementation> out;
  if (active_isa() >= Isa::kAvx2) out.push_back({"avx2", &kIntegerDotAvx2});
  if (active_vnni() == Vnni::kAvx) out.push_back({"avx_vnni", &kIntegerDotAvxVnni});
  if (active_vnni() == Vnni::kAvx512) out.push_back({"avx512_vnni", &kIntegerDotAvx512Vnni});
  return out;
}

// Columns in whole blocks, at least so many.
int64_t whole_blocks(DType dtype, int64_t n) {
  const int64_t block = tensor::info(dtype).block_values;
  return (n + block - 1) / block * block;
}

// Gives a block the integers and scales of largest magnitude; d and m stay.
void make_extreme(DType dtype, std::byte* block) {
  const auto fill = [&](int begin, int end, int value) {
    std::fill(block + begin, block + end, static_cast<std::byte>(value));
  };
  switch (dtype) {
    case DType::kQ8_0:
      return fill(2, 34, 0x80);
    case DType::kQ6_K:
      fill(0, 192, 0);  // -32 each
      return fill(192, 208, 0x80);
    case DType::kQ4_0:
    case DType::kQ5_0:
      return fill(2, tensor::info(dtype).block_bytes, 0xFF);
    default:
      return fill(4, tensor::info(dtype).block_bytes, 0xFF);
  }
}

struct Case {
  DType dtype;
  int64_t count, n;
  std::vector<std::byte> rows;
  std::vector<float> x, decoded, memory;
  QuantisedRow quantised{};

  Case(DType type, int64_t row_count, int64_t cols) : dtype(type), count(row_count), n(whole_blocks(type, cols)) {
    Rng rng(71, static_cast<uint64_t>(n));
    std::vector<float> values(static_cast<size_t>(count * n));
    for (float& v : values) v = static_cast<float>(0.1 * rng.normal());
    for (int64_t i = 0; i < n; ++i) x.push_back(static_cast<float>(rng.normal()));
    rows.resize(static_cast<size_t>(count * tensor::row_bytes(dtype, n)));
    tensor::pack(dtype, values.data(), count * n, rows.data());
    decoded.resize(values.size());
    tensor::unpack(dtype, rows.data(), count * n, decoded.data());
    quantise();
  }
  void quantise() {
    memory.assign(static_cast<size_t>(quantised_floats(n)), 0);
    quantised = quantise_row(x.data(), n, memory.data());
  }
  // x as it was rounded.
  double rounded(int64_t i) const { return double{quantised.scales[i / kQuantBlock * 2]} * quantised.q[i]; }

  // Largest error of a row's product with the rounded x, over the sum of magnitudes.
  double error(const std::vector<float>& got) const {
    double worst = 0;
    for (int64_t r = 0; r < count; ++r) {
      double want = 0, magnitude = 0;
      for (int64_t i = 0; i < n; ++i) {
        const double product = double{decoded[static_cast<size_t>(r * n + i)]} * rounded(i);
        want += product;
        magnitude += std::fabs(product);
      }
      worst = std::max(worst, std::fabs(got[static_cast<size_t>(r)] - want) / std::max(magnitude, 1e-30));
    }
    return worst;
  }
};

class IntegerDot : public ::testing::TestWithParam<DType> {};

TEST_P(IntegerDot, EveryImplementationMatchesTheSumInDouble) {
  if (runnable().empty()) GTEST_SKIP() << "less than AVX2";
  for (const Implementation& each : runnable())
    for (auto [count, n] : {std::pair<int64_t, int64_t>{1, 32}, {4, 64}, {7, 96}, {9, 576}, {5, 1536}}) {
      const Case c(GetParam(), count, n);
      std::vector<float> got(static_cast<size_t>(count));
      each.kernels->of(c.dtype)(c.rows.data(), count, c.quantised, c.n, got.data());
      expect_within("integer_dots " + each.label, c.error(got), kTolerance);
    }
}

// The largest integers of either sign: no sum may saturate.
TEST_P(IntegerDot, ExtremesDoNotSaturate) {
  if (runnable().empty()) GTEST_SKIP() << "less than AVX2";
  for (const Implementation& each : runnable())
    for (int sign : {-1, 1}) {
      Case c(GetParam(), 4, 64);
      std::fill(c.x.begin(), c.x.end(), static_cast<float>(sign));
      c.quantise();
      for (size_t b = 0; b < c.rows.size(); b += static_cast<size_t>(tensor::info(c.dtype).block_bytes))
        make_extreme(c.dtype, &c.rows[b]);
      tensor::unpack(c.dtype, c.rows.data(), 4 * c.n, c.decoded.data());
      std::vector<float> got(4);
      each.kernels->of(c.dtype)(c.rows.data(), 4, c.quantised, c.n, got.data());
      expect_within("integer_dots extremes", c.error(got), kTolerance);
    }
}

TEST_P(IntegerDot, DispatchRunsTheBestOfThem) {
  EXPECT_EQ(has_integer_dot(GetParam()), !runnable().empty());
  if (runnable().empty()) return;
  const Case c(GetParam(), 6, 96);
  std::vector<float> got(6), want(6);
  integer_dots(c.dtype, c.rows.data(), 6, c.quantised, c.n, got.data());
  runnable().back().kernels->of(c.dtype)(c.rows.data(), 6, c.quantised, c.n, want.data());
  EXPECT_EQ(got, want);
}

TEST_P(IntegerDot, NegativeControlEveryPerturbedByteIsSeen) {
  if (runnable().empty()) GTEST_SKIP() << "less than AVX2";
  Case c(GetParam(), 4, 64);
  std::fill(c.x.begin(), c.x.end(), 1.0f);
  c.quantise();
  for (size_t at = 0; at < static_cast<size_t>(tensor::info(c.dtype).block_bytes); ++at) {
    c.rows[at] ^= std::byte{0x10};
    std::vector<float> got(4);
    integer_dots(c.dtype, c.rows.data(), 4, c.quantised, c.n, got.data());
    EXPECT_GT(c.error(got), 10 * kTolerance) << at;
    c.rows[at] ^= std::byte{0x10};
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, IntegerDot,
                         ::testing::Values(DType::kQ4_0, DType::kQ4_1, DType::kQ8_0, DType::kQ5_0, DType::kQ5_1,
                                           DType::kQ4_K, DType::kQ5_K, DType::kQ6_K),
                         [](const auto& param) { return std::string(tensor::name(param.param)); });

TEST(IntegerDotInput, RoundsToTheNearestStepOfEachBlock) {
  const Case c(DType::kQ8_0, 1, 96);
  for (int64_t b = 0; b < 3; ++b) {
    float largest = 0;
    int sum = 0;
    for (int64_t i = b * 32; i < b * 32 + 32; ++i) largest = std::max(largest, std::fabs(c.x[static_cast<size_t>(i)]));
    const float d = c.quantised.scales[2 * b];
    EXPECT_EQ(d, largest / 127.0f);
    for (int64_t i = b * 32; i < b * 32 + 32; ++i) {
      EXPECT_LE(std::fabs(c.rounded(i) - c.x[static_cast<size_t>(i)]), 0.50001 * d);
      sum += c.quantised.q[i];
    }
    EXPECT_EQ(c.quantised.scales[2 * b + 1], d * static_cast<float>(sum));
  }
}

TEST(IntegerDotInput, AZeroBlockStaysZero) {
  Case c(DType::kQ4_1, 4, 64);
  std::fill(c.x.begin(), c.x.begin() + 32, 0.0f);
  c.quantise();
  EXPECT_EQ(c.quantised.scales[0], 0);
  EXPECT_EQ(c.quantised.scales[1], 0);
  for (int i = 0; i < 32; ++i) EXPECT_EQ(c.quantised.q[i], 0);
}

TEST(IntegerDotInput, OnlyBlockFormats) {
  EXPECT_FALSE(has_integer_dot(DType::kF32));
  EXPECT_FALSE(has_integer_dot(DType::kBF16));
}

}  // namespace
}  // namespace brick::kernels
