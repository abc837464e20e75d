// Least squares on a support: by hand, and against the normal equations of each row in double.
#include "brick/prune/refit.h"

#include <gtest/gtest.h>

#include "brick/prune/dense_layer.h"
#include "brick/prune/selection.h"
#include "problems.h"

namespace brick::prune {
namespace {

// Conjugate gradients in float32 over 24 unknowns of condition number about 100.
constexpr double kSolutionTolerance = 2e-4;

tensor::Mask random_mask(int64_t rows, int64_t cols, uint64_t seed) {
  Rng rng(seed);
  tensor::Mask mask(rows, cols);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) mask.set(r, c, rng.uniform() < 0.5);
  return mask;
}

tensor::Tensor gram_of(tensor::ConstMatView x) {
  tensor::Tensor gram = tensor::matrix(x.cols, x.cols);
  for (int64_t a = 0; a < x.cols; ++a)
    for (int64_t b = 0; b < x.cols; ++b)
      for (int64_t t = 0; t < x.rows; ++t) gram.mat()(a, b) += x(t, a) * x(t, b);
  return gram;
}

TEST(Refit, KeptWeightTakesOverItsNeighbours) {
  // H = [[2, 1], [1, 2]], W0 = (1, 1): with the second dropped, the first is C_0 / H_00 = 3 / 2.
  const tensor::Tensor h = matrix_of(2, 2, {2, 1, 1, 2}), cross = matrix_of(1, 2, {3, 3});
  tensor::Mask mask(1, 2);
  mask.set(0, 0, true);
  tensor::Tensor weight = matrix_of(1, 2, {1, 0});
  refit({h.mat(), cross.mat(), mask.view(), 5}, weight.mat());
  EXPECT_FLOAT_EQ(weight.f32()[0], 1.5f);
  EXPECT_EQ(weight.f32()[1], 0.0f);
}

TEST(Refit, SolvesTheNormalEquationsOfEveryRow) {
  const int64_t rows = 7, cols = 24;
  const tensor::Tensor x = correlated_inputs(200, cols, 1), h = gram_of(x.mat());
  const tensor::Tensor cross = random_matrix(rows, cols, 2);
  const tensor::Mask mask = random_mask(rows, cols, 3);
  tensor::Tensor weight = random_matrix(rows, cols, 4);
  clear_dropped(mask.view(), weight.mat());
  refit({h.mat(), cross.mat(), mask.view(), 100}, weight.mat());
  for (int64_t r = 0; r < rows; ++r) {
    std::vector<int64_t> kept;
    mask.view().for_each_kept(r, [&](int64_t c) { kept.push_back(c); });
    std::vector<double> part;
    for (const int64_t a : kept)
      for (const int64_t b : kept) part.push_back(static_cast<double>(h.mat()(a, b)));
    const std::vector<double> inverse = inverse_of(part, kept.size());
    double largest = 0;
    std::vector<double> want(kept.size());
    for (size_t a = 0; a < kept.size(); ++a) {
      for (size_t b = 0; b < kept.size(); ++b)
        want[a] += inverse[a * kept.size() + b] * static_cast<double>(cross.mat()(r, kept[b]));
      largest = std::max(largest, std::fabs(want[a]));
    }
    for (size_t a = 0; a < kept.size(); ++a)
      EXPECT_NEAR(static_cast<double>(weight.mat()(r, kept[a])), want[a], kSolutionTolerance * largest);
  }
  // Without a step nothing is solved.
  tensor::Tensor untouched = random_matrix(rows, cols, 4);
  refit({h.mat(), cross.mat(), mask.view(), 0}, untouched.mat());
  EXPECT_EQ(untouched.f32()[0], random_matrix(rows, cols, 4).f32()[0]);
}

TEST(Refit, DroppedWeightsStayZeroAndARowWithoutAnyIsLeft) {
  const tensor::Tensor x = correlated_inputs(50, 16, 1), h = gram_of(x.mat()), cross = random_matrix(3, 16, 2);
  tensor::Mask mask = random_mask(3, 16, 3);
  for (int64_t c = 0; c < 16; ++c) mask.set(1, c, false);
  tensor::Tensor weight = tensor::matrix(3, 16);
  refit({h.mat(), cross.mat(), mask.view(), 30}, weight.mat());
  for (int64_t r = 0; r < 3; ++r)
    for (int64_t c = 0; c < 16; ++c) EXPECT_EQ(weight.mat()(r, c) != 0.0f, mask.kept(r, c));
}

}  // namespace
}  // namespace brick::prune
