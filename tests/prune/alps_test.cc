#include <gtest/gtest.h>

#include "brick/prune/inverse_factor.h"
#include "problems.h"

namespace brick::prune {
namespace {

TEST(Alps, KeptWeightTakesOverItsNeighbours) {
  // Two inputs that always agree: one of a pair can do the other's work, whatever its own size. W0 = (1, 1, 0.5, 0.5)
  // with pairs (0, 1) and (2, 3): one of each is kept and doubled, but for the ridge.
  const tensor::Tensor x = matrix_of(2, 4, {1, 1, 0, 0, 0, 0, 1, 1});
  const tensor::Tensor weight = matrix_of(1, 4, {1, 1.1f, 0.5f, 0.6f});
  const Pruned pruned = run("alps", weight, statistics_of(x.mat(), Needs::kHessian), 0.5);
  EXPECT_EQ(pruned.outcome.mask.view().count(), 2);
  EXPECT_LT(squared_output_error(x.mat(), weight.mat(), pruned.weight.mat()), 1e-3);
}

TEST(Alps, RemovesExactlyTheShare) {
  const tensor::Tensor x = correlated_inputs(150, 70, 1), weight = random_matrix(9, 70, 2);
  const InputStatistics inputs = statistics_of(x.mat(), Needs::kHessian);
  for (const double sparsity : {0.1, 0.5, 0.75})
    EXPECT_EQ(run("alps", weight, inputs, sparsity).outcome.mask.view().count(), std::llround(630 * (1 - sparsity)));
}

TEST(Alps, SameInputsSameBits) {
  const tensor::Tensor x = correlated_inputs(150, 40, 1), weight = random_matrix(9, 40, 2);
  const InputStatistics inputs = statistics_of(x.mat(), Needs::kHessian);
  const Pruned a = run("alps", weight, inputs, 0.6), b = run("alps", weight, inputs, 0.6);
  EXPECT_EQ(std::memcmp(a.weight.f32(), b.weight.f32(), a.weight.bytes().size()), 0);
}

TEST(Alps, BeatsSparseGptOnCorrelatedInputs) {
  const tensor::Tensor x = correlated_inputs(400, 64, 3), weight = random_matrix(48, 64, 4);
  const InputStatistics inputs = statistics_of(x.mat(), Needs::kHessian);
  for (const double sparsity : {0.5, 0.75}) {
    const auto error = [&](const char* method) {
      return squared_output_error(x.mat(), weight.mat(), run(method, weight, inputs, sparsity).weight.mat());
    };
    EXPECT_LT(error("alps"), error("sparsegpt")) << sparsity;
    EXPECT_LT(error("sparsegpt"), error("wanda")) << sparsity;
  }
}

TEST(ShiftedInverse, TimesTheMatrixIsOne) {
  constexpr double kInverseTolerance = 1e-4;  // float32 entries, condition number below 1000
  const int64_t n = 150;                      // more than a tile of the factorisation
  const tensor::Tensor x = random_matrix(400, n, 1);
  tensor::Tensor h = tensor::matrix(n, n);
  for (int64_t a = 0; a < n; ++a)
    for (int64_t b = 0; b < n; ++b)
      for (int64_t t = 0; t < 400; ++t) h.mat()(a, b) += x.mat()(t, a) * x.mat()(t, b) / 400.0f;
  const tensor::Tensor inverse = shifted_inverse(h.mat(), 0.1);
  for (int64_t a = 0; a < n; ++a) {
    for (int64_t b = 0; b < n; ++b) {
      double sum = 0;
      for (int64_t c = 0; c < n; ++c)
        sum += (static_cast<double>(h.mat()(a, c)) + (a == c ? 0.1 : 0.0)) * static_cast<double>(inverse.mat()(c, b));
      ASSERT_NEAR(sum, a == b ? 1.0 : 0.0, kInverseTolerance) << a << " " << b;
    }
  }
}

}  // namespace
}  // namespace brick::prune
