#include "brick/kernels/row_dot.h"

#include <gtest/gtest.h>

#include "brick/tensor/pack.h"
#include "kernels/test_util.h"

namespace brick::kernels {
namespace {

using tensor::DType;

constexpr double kTolerance = 2e-6;  // of the sum of magnitudes: float32 sums of up to 1,536 products

class RowDot : public ::testing::TestWithParam<DType> {
 protected:
  // dot_encoded() minus the same in double, over the sum of magnitudes.
  double error(int64_t n, float nudge = 0) const {
    Rng rng(61, static_cast<uint64_t>(n));
    std::vector<float> values(static_cast<size_t>(n)), x(values), decoded(values), sums(values);
    for (float& v : values) v = static_cast<float>(0.1 * rng.normal());
    for (float& v : x) v = static_cast<float>(rng.normal());
    std::vector<std::byte> row(static_cast<size_t>(tensor::row_bytes(GetParam(), n)));
    tensor::pack(GetParam(), values.data(), n, row.data());
    tensor::unpack(GetParam(), row.data(), n, decoded.data());
    block_sums(x.data(), n / tensor::kQuantBlock * tensor::kQuantBlock, sums.data());
    double want = 0, magnitude = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      want += double{decoded[i]} * x[i];
      magnitude += std::fabs(double{decoded[i]} * x[i]);
    }
    x[0] += nudge;
    return std::fabs(dot_encoded(GetParam(), row.data(), x.data(), sums.data(), n) - want) / magnitude;
  }
};

TEST_P(RowDot, MatchesDoubleReference) {
  for (int64_t n : {32, 64, 96, 576, 1536}) expect_within("dot_encoded", error(n), kTolerance);
}

TEST_P(RowDot, NegativeControlAPerturbedInputIsSeen) { EXPECT_GT(error(64, 0.1f), 10 * kTolerance); }

INSTANTIATE_TEST_SUITE_P(Encodings, RowDot,
                         ::testing::Values(DType::kQ4_0, DType::kQ4_1, DType::kQ8_0, DType::kBF16, DType::kF32));

TEST(RowDotWidths, PlainRowsOfAnyWidth) {
  for (const DType type : {DType::kBF16, DType::kF32})
    for (int64_t n : {1, 7, 8, 15, 31, 33, 70}) {
      const std::vector<float> ones(static_cast<size_t>(n), 1.0f), twos(static_cast<size_t>(n), 2.0f);
      std::vector<std::byte> row(static_cast<size_t>(tensor::row_bytes(type, n)));
      tensor::pack(type, twos.data(), n, row.data());
      EXPECT_EQ(dot_encoded(type, row.data(), ones.data(), nullptr, n), 2.0f * static_cast<float>(n));
    }
}

TEST(RowDotWidths, KnowsItsEncodings) {
  EXPECT_TRUE(has_encoded_dot(DType::kQ4_1));
  EXPECT_TRUE(has_encoded_dot(DType::kF32));
  EXPECT_FALSE(has_encoded_dot(DType::kF16));
}

}  // namespace
}  // namespace brick::kernels
