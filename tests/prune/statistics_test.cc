#include "brick/prune/statistics.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "brick/prune/inverse_factor.h"
#include "problems.h"

namespace brick::prune {
namespace {

// float32 products of a few hundred rows, each value of order 1.
constexpr double kSumTolerance = 2e-6;
// U is rounded to float32; H has condition numbers of a few thousand.
constexpr double kFactorTolerance = 2e-4;

TEST(Statistics, ARidgeIsAShareOfTheMeanSquare) {
  InputStatistics inputs;
  inputs.sum_squares = {1, 3};
  EXPECT_DOUBLE_EQ(inputs.ridge(0.25), 0.5);
  EXPECT_DOUBLE_EQ(inputs.ridge(0), 2e-6);
  inputs.sum_squares = {0, 0};
  EXPECT_DOUBLE_EQ(inputs.ridge(0.25), 1);
}

TEST(Statistics, SumsEqualDoubleSumsHoweverTheRowsCome) {
  const int64_t rows = 300, cols = 270;  // more than one block of products
  const tensor::Tensor x = correlated_inputs(rows, cols, 11);
  for (const Needs needs : {Needs::kColumnNorms, Needs::kHessian}) {
    StatisticsBuilder builder(needs, cols, rows);
    for (const auto& [begin, end] : {std::pair{0, 1}, {1, 130}, {130, 300}}) builder.add(x.mat().row_range(begin, end));
    const InputStatistics got = builder.take();
    EXPECT_EQ(got.tokens, rows);
    for (int64_t i = 0; i < cols; ++i) {
      for (int64_t j = i; j < cols; ++j) {
        double want = 0, size = 0;
        for (int64_t t = 0; t < rows; ++t) {
          const double product = static_cast<double>(x.mat()(t, i)) * static_cast<double>(x.mat()(t, j));
          want += product;
          size += std::fabs(product);
        }
        if (needs == Needs::kHessian) {
          ASSERT_NEAR(got.gram[static_cast<size_t>(i * cols + j)], want, kSumTolerance * size);
        }
        if (i == j) {
          ASSERT_NEAR(got.sum_squares[static_cast<size_t>(i)], want, kSumTolerance * size);
        }
      }
    }
  }
}

TEST(Statistics, SampleIsSpreadOverTheRows) {
  const int64_t rows = 1000;
  tensor::Tensor x = tensor::matrix(rows, 2);
  for (int64_t t = 0; t < rows; ++t) x.mat()(t, 0) = static_cast<float>(t);
  StatisticsBuilder builder(Needs::kColumnNorms, 2, rows);
  for (int64_t begin = 0; begin < rows; begin += 37) builder.add(x.mat().row_range(begin, std::min(begin + 37, rows)));
  const InputStatistics got = builder.take();
  ASSERT_EQ(got.sample.shape()[0], 250);
  for (int64_t i = 0; i < 250; ++i) EXPECT_EQ(got.sample.mat()(i, 0), static_cast<float>(4 * i));
  EXPECT_EQ(got.dead_columns(), 1);
}

TEST(Statistics, ShowNonFiniteInputs) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    tensor::Tensor x = random_matrix(10, 5, 1);
    x.mat()(7, 3) = bad;
    for (const Needs needs : {Needs::kColumnNorms, Needs::kHessian}) {
      const InputStatistics got = statistics_of(x.mat(), needs);
      EXPECT_FALSE(std::isfinite(got.sum_squares[3]));
      EXPECT_TRUE(std::isfinite(got.sum_squares[2]));
    }
  }
}

// H with the reference's treatment of dead columns and damping, [n, n].
std::vector<double> damped_hessian(const InputStatistics& inputs, double damping) {
  const auto n = static_cast<size_t>(inputs.width());
  std::vector<double> h(n * n);
  double trace = 0;
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = i; j < n; ++j)
      h[i * n + j] = h[j * n + i] = 2.0 * inputs.gram[i * n + j] / static_cast<double>(inputs.tokens);
    if (inputs.sum_squares[i] == 0) h[i * n + i] = 1;
    trace += h[i * n + i];
  }
  for (size_t i = 0; i < n; ++i) h[i * n + i] += damping * trace / static_cast<double>(n);
  return h;
}

TEST(InverseFactor, ReproducesTheInverse) {
  for (const int64_t n : {1, 5, 96, 97, 250}) {
    InputStatistics inputs = statistics_of(correlated_inputs(2 * n, n, 7).mat(), Needs::kHessian);
    const auto size = static_cast<size_t>(n);
    const std::vector<double> want = inverse_of(damped_hessian(inputs, 0.01), size);
    const InverseFactor factor = factor_inverse(inputs, 0.01);
    ASSERT_TRUE(factor.found());
    EXPECT_EQ(factor.damping, 0.01);
    EXPECT_TRUE(inputs.gram.empty());
    const tensor::ConstMatView u = factor.upper.mat();
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        double got = 0;
        for (int64_t k = 0; k <= std::min(i, j); ++k)
          got += static_cast<double>(u(k, i)) * static_cast<double>(u(k, j));
        const auto diagonal = [&](int64_t k) { return want[static_cast<size_t>(k) * size + static_cast<size_t>(k)]; };
        ASSERT_NEAR(got, want[static_cast<size_t>(i) * size + static_cast<size_t>(j)],
                    kFactorTolerance * std::sqrt(diagonal(i) * diagonal(j)));
        if (j < i) {
          ASSERT_EQ(u(i, j), 0.0f);
        }
      }
    }
  }
}

InverseFactor factor_of(const std::vector<double>& gram, double damping) {
  InputStatistics inputs = statistics_from_gram(gram);
  return factor_inverse(inputs, damping);
}

TEST(InverseFactor, DampingGrowsUntilItFactorises) {
  // Eigenvalues of H: 2 (1 +- 1.05); 0.01 is too little, 0.1 is enough.
  const InverseFactor raised = factor_of({1, 1.05, 0, 1}, 0.01);
  ASSERT_TRUE(raised.found());
  EXPECT_DOUBLE_EQ(raised.damping, 0.1);
  EXPECT_FALSE(factor_of({1, 5, 0, 1}, 0.01).found());
  EXPECT_FALSE(factor_of({1, std::nan(""), 0, 1}, 0.01).found());
}

TEST(InverseFactor, RaisedDampingGivesWhatItGivesAtOnce) {
  // The factorisation ends with column 0, so the first try fails when all else is overwritten.
  const int64_t n = 230;
  const tensor::Tensor x = correlated_inputs(3 * n, n, 11);
  std::vector<double> gram = statistics_of(x.mat(), Needs::kHessian).gram;
  gram[0] *= 0.5;  // no longer a matrix of products: indefinite
  const InverseFactor raised = factor_of(gram, 1e-9);
  ASSERT_TRUE(raised.found());
  ASSERT_GT(raised.damping, 1e-9);
  const InverseFactor at_once = factor_of(gram, raised.damping);
  EXPECT_EQ(std::memcmp(raised.upper.f32(), at_once.upper.f32(), raised.upper.bytes().size()), 0);
}

TEST(InverseFactor, SingularWithoutDampingIsRetriedWithSome) {
  const InverseFactor factor = factor_of({1, 1, 0, 1}, 0.0);
  ASSERT_TRUE(factor.found());
  EXPECT_DOUBLE_EQ(factor.damping, kLeastRetryDamping);
}

}  // namespace
}  // namespace brick::prune
