#include "brick/federate/svd.h"

#include <gtest/gtest.h>

#include <cmath>

#include "brick/base/error.h"
#include "brick/base/rng.h"

namespace brick::federate {
namespace {

using tensor::Tensor;

// Factors are stored in float32.
constexpr double kFloat = 2e-6;

Tensor random(int64_t rows, int64_t cols, uint64_t seed) {
  Tensor out = tensor::matrix(rows, cols);
  Rng rng(seed, 3);
  for (int64_t i = 0; i < out.size(); ++i) out.f32()[i] = static_cast<float>(rng.normal());
  return out;
}

Tensor sum_of(std::span<const Factor> factors) {
  Tensor out = tensor::matrix(factors[0].b.rows, factors[0].a.cols);
  for (const Factor& f : factors)
    for (int64_t r = 0; r < f.b.rows; ++r)
      for (int64_t i = 0; i < f.a.rows; ++i)
        for (int64_t c = 0; c < f.a.cols; ++c) out.mat()(r, c) += static_cast<float>(f.scale) * f.b(r, i) * f.a(i, c);
  return out;
}

double norm(const Tensor& x) {
  double sum = 0;
  for (int64_t i = 0; i < x.size(); ++i) sum += static_cast<double>(x.f32()[i]) * x.f32()[i];
  return std::sqrt(sum);
}

double error(const LowRank& x, const Tensor& y) {
  double sum = 0;
  for (int64_t r = 0; r < y.mat().rows; ++r)
    for (int64_t c = 0; c < y.mat().cols; ++c) {
      double entry = 0;
      for (int64_t i = 0; i < x.rank(); ++i) entry += x.s[static_cast<size_t>(i)] * x.u.mat()(r, i) * x.vt.mat()(i, c);
      sum += (entry - y.mat()(r, c)) * (entry - y.mat()(r, c));
    }
  return std::sqrt(sum);
}

struct Shape {
  int64_t rows, cols;
};

class Svd : public testing::TestWithParam<Shape> {};

TEST_P(Svd, RecoversALowRankMatrix) {
  const auto [rows, cols] = GetParam();
  const Tensor b = random(rows, 6, 1), a = random(6, cols, 2);
  const Factor factor{0.5, b.mat(), a.mat()};
  const Tensor y = sum_of({&factor, 1});
  for (const LowRank& x : {truncated_svd(y.mat(), 6, 0), thin_svd({&factor, 1}, 6), truncated_svd(y.mat(), 9, 0)})
    EXPECT_LT(error(x, y), kFloat * norm(y));
  EXPECT_EQ(thin_svd({&factor, 1}, 4).rank(), 4);
}

TEST_P(Svd, ThinAndDenseAgreeOnTheBestApproximation) {
  const auto [rows, cols] = GetParam();
  const Tensor b1 = random(rows, 5, 1), a1 = random(5, cols, 2), b2 = random(rows, 7, 3), a2 = random(7, cols, 4);
  const std::vector<Factor> factors{{1.0, b1.mat(), a1.mat()}, {-2.0, b2.mat(), a2.mat()}};
  const Tensor y = sum_of(factors);
  const LowRank thin = thin_svd(factors, 5), dense = truncated_svd(y.mat(), 5, 0, {.tolerance = 1e-6});
  for (size_t i = 0; i < 5; ++i) EXPECT_NEAR(thin.s[i], dense.s[i], 1e-4 * thin.s[0]);
  EXPECT_NEAR(error(thin, y), error(dense, y), 1e-5 * norm(y));
}

TEST_P(Svd, NoiseIsApproximatedNearlyAsWellAsPossible) {
  const auto [rows, cols] = GetParam();
  const Tensor y = random(rows, cols, 9);
  const LowRank quick = truncated_svd(y.mat(), 4, 0);
  const LowRank exact = truncated_svd(y.mat(), 4, 0, {.oversample = 1000});  // direct
  EXPECT_EQ(exact.residual, 0.0);
  EXPECT_LE(quick.residual, SvdOptions{}.tolerance);
  EXPECT_NEAR(error(quick, y), error(exact, y), 1e-5 * norm(y));
}

TEST_P(Svd, VectorsAreOrthonormalAndSignsSettled) {
  const auto [rows, cols] = GetParam();
  const LowRank x = truncated_svd(random(rows, cols, 5).mat(), 5, 0);
  for (int64_t i = 0; i < 5; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      double uu = 0, vv = 0;
      for (int64_t r = 0; r < rows; ++r) uu += static_cast<double>(x.u.mat()(r, i)) * x.u.mat()(r, j);
      for (int64_t c = 0; c < cols; ++c) vv += static_cast<double>(x.vt.mat()(i, c)) * x.vt.mat()(j, c);
      EXPECT_NEAR(uu, i == j, kFloat);
      EXPECT_NEAR(vv, i == j, kFloat);
    }
    float largest = 0;
    for (int64_t r = 0; r < rows; ++r)
      if (std::abs(x.u.mat()(r, i)) > std::abs(largest)) largest = x.u.mat()(r, i);
    EXPECT_GT(largest, 0.0f);
  }
}

TEST_P(Svd, SameInputsGiveSameBits) {
  const auto [rows, cols] = GetParam();
  const Tensor y = random(rows, cols, 6);
  const LowRank x = truncated_svd(y.mat(), 5, 3), again = truncated_svd(y.mat(), 5, 3);
  EXPECT_TRUE(std::equal(x.u.f32(), x.u.f32() + x.u.size(), again.u.f32()));
  EXPECT_TRUE(std::equal(x.vt.f32(), x.vt.f32() + x.vt.size(), again.vt.f32()));
}

INSTANTIATE_TEST_SUITE_P(Shapes, Svd, testing::Values(Shape{24, 40}, Shape{72, 200}, Shape{200, 72}, Shape{300, 260}));

TEST(TruncatedSvd, ZeroMatrix) {
  const Tensor zero = tensor::matrix(100, 90);
  const LowRank x = truncated_svd(zero.mat(), 4, 0);
  for (double s : x.s) EXPECT_EQ(s, 0.0);
}

TEST(TruncatedSvd, FallsBackToTheDirectDecompositionWhereItDoesNotConverge) {
  const Tensor y = random(150, 140, 8);
  const LowRank x = truncated_svd(y.mat(), 4, 0, {.max_steps = 1});
  EXPECT_EQ(x.residual, 0.0);
  EXPECT_NEAR(error(x, y), error(truncated_svd(y.mat(), 4, 0, {.oversample = 1000}), y), kFloat * norm(y));
}

TEST(TruncatedSvd, RefusesWhatIsNotFinite) {
  for (int64_t size : {20, 100}) {
    Tensor y = random(size, size, 1);
    y.f32()[7] = NAN;
    EXPECT_THROW(truncated_svd(y.mat(), 2, 0), Error);
  }
}

TEST(SubspaceStep, NeverMovesAway) {
  const Tensor y = random(160, 120, 11);
  const Tensor b = random(160, 4, 12), a = random(4, 120, 13);
  const Factor start_factor{1.0, b.mat(), a.mat()};
  const LowRank start = thin_svd({&start_factor, 1}, 4);
  const DenseMap map(y.mat());
  Tensor basis = start_basis(start, 120, 4, 8, 0);
  double last = error(start, y);
  for (int step = 0; step < 8; ++step) {
    const LowRank x = subspace_step(map, 4, basis);
    EXPECT_LE(error(x, y), last * (1 + 1e-6));
    last = error(x, y);
  }
  EXPECT_NEAR(last, error(truncated_svd(y.mat(), 4, 0), y), 2e-2 * last);
}

}  // namespace
}  // namespace brick::federate
