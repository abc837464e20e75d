#include "brick/prune/inverse_factor.h"

#define EIGEN_DONT_PARALLELIZE  // threads are ours: parallel.h
#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <utility>

#include "brick/base/error.h"
#include "brick/base/parallel.h"

namespace brick::prune {
namespace {

using Eigen::Index;
using Eigen::MatrixXd;

constexpr Index kTile = 96;
constexpr double kLeastPivot = 1e-13;  // of the largest diagonal entry: below, rounding alone made it positive

// H with rows and columns in reverse, lower triangle: its Cholesky factor is R in reverse.
MatrixXd reversed_hessian(const InputStatistics& inputs, double damping) {
  const Index n = inputs.width();
  const double scale = 2.0 / static_cast<double>(std::max<int64_t>(inputs.tokens, 1));
  MatrixXd h(n, n);
  double trace = 0;
  for (Index j = 0; j < n; ++j) {
    const double* row = inputs.gram.data() + j * n;
    const bool dead = inputs.sum_squares[static_cast<size_t>(j)] == 0.0;
    for (Index i = j; i < n; ++i) h(n - 1 - j, n - 1 - i) = scale * row[i];
    if (dead) h(n - 1 - j, n - 1 - j) = 1.0;
    trace += h(n - 1 - j, n - 1 - j);
  }
  h.diagonal().array() += damping * trace / static_cast<double>(n);
  return h;
}

// The lower triangle of a becomes its Cholesky factor, tile by tile; false if it is not positive definite.
bool cholesky_in_place(MatrixXd& a) {
  const Index n = a.rows();
  const double least = std::sqrt(kLeastPivot * a.diagonal().maxCoeff());
  for (Index k = 0; k < n; k += kTile) {
    const Index size = std::min(kTile, n - k), next = k + size;
    Eigen::Ref<MatrixXd> corner = a.block(k, k, size, size);
    const Eigen::LLT<Eigen::Ref<MatrixXd>> factor(corner);
    // LLT lets NaN pass.
    if (factor.info() != Eigen::Success || !(corner.diagonal().array() > least).all()) return false;
    const Index tiles = (n - next + kTile - 1) / kTile;
    const auto tile = [&](Index i) { return std::pair(next + i * kTile, std::min(kTile, n - next - i * kTile)); };
    parallel_for(tiles, [&](int64_t i) {
      const auto [row, rows] = tile(i);
      auto panel = a.block(row, k, rows, size);
      corner.triangularView<Eigen::Lower>().transpose().solveInPlace<Eigen::OnTheRight>(panel);
    });
    parallel_for(tiles * (tiles + 1) / 2, [&](int64_t pair) {
      Index i = 0;
      while ((i + 1) * (i + 2) / 2 <= pair) ++i;
      const auto [row, rows] = tile(i);
      const auto [col, cols] = tile(pair - i * (i + 1) / 2);
      a.block(row, col, rows, cols).noalias() -= a.block(row, k, rows, size) * a.block(col, k, cols, size).transpose();
    });
  }
  return true;
}

// The inverse of a lower triangular matrix, by panels of columns.
MatrixXd inverse_of_lower(const MatrixXd& lower) {
  const Index n = lower.rows();
  MatrixXd inverse = MatrixXd::Zero(n, n);
  parallel_for((n + kTile - 1) / kTile, [&](int64_t panel) {
    const Index begin = panel * kTile, size = std::min(kTile, n - begin), left = n - begin;
    auto columns = inverse.block(begin, begin, left, size);
    columns.topRows(size).setIdentity();
    lower.bottomRightCorner(left, left).triangularView<Eigen::Lower>().solveInPlace(columns);
  });
  return inverse;
}

}  // namespace

InverseFactor factor_inverse(const InputStatistics& inputs, double damping) {
  const Index n = inputs.width();
  BRICK_ASSERT(static_cast<Index>(inputs.gram.size()) == n * n);
  for (int attempt = 0; attempt < kDampingTries; ++attempt) {
    if (attempt > 0) damping = std::max(10.0 * damping, kLeastRetryDamping);
    MatrixXd h = reversed_hessian(inputs, damping);
    if (!cholesky_in_place(h)) continue;
    const MatrixXd inverse = inverse_of_lower(h);
    InverseFactor out{tensor::matrix(n, n), damping};
    const tensor::MatView upper = out.upper.mat();
    parallel_ranges(n, 1, [&](int64_t begin, int64_t end) {
      for (Index i = begin; i < end; ++i)
        for (Index j = i; j < n; ++j) upper(i, j) = static_cast<float>(inverse(n - 1 - i, n - 1 - j));
    });
    return out;
  }
  return {{}, damping};
}

}  // namespace brick::prune
