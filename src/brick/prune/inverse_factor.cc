#include "brick/prune/inverse_factor.h"

#define EIGEN_DONT_PARALLELIZE  // threads are ours: parallel.h
#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "brick/base/error.h"
#include "brick/base/parallel.h"
#include "brick/kernels/gemm.h"

namespace brick::prune {
namespace {

using Eigen::Index;
using Eigen::MatrixXd;
using MatrixMap = Eigen::Map<MatrixXd>;

constexpr Index kTile = 96;
constexpr double kLeastPivot = 1e-13;  // of the largest diagonal entry: below, rounding alone made it positive

// The lower triangle of `h` becomes H with rows and columns in reverse, whose Cholesky factor is R in reverse. Its
// upper triangle holds X^T X likewise and stays as it is; `diagonal` is the diagonal of that.
void fill_hessian(const InputStatistics& inputs, const Eigen::VectorXd& diagonal, double damping, MatrixMap& h) {
  const Index n = h.rows();
  const double scale = 2.0 / static_cast<double>(std::max<int64_t>(inputs.tokens, 1));
  parallel_for((n + kTile - 1) / kTile, [&](int64_t strip) {
    for (Index i = 0; i < n; ++i)
      for (Index j = strip * kTile; j < std::min((strip + 1) * kTile, i); ++j) h(i, j) = scale * h(j, i);
  });
  double trace = 0;
  for (Index j = n - 1; j >= 0; --j) {
    const bool dead = inputs.sum_squares[static_cast<size_t>(n - 1 - j)] == 0.0;
    h(j, j) = dead ? 1.0 : scale * diagonal[j];
    trace += h(j, j);
  }
  h.diagonal().array() += damping * trace / static_cast<double>(n);
}

// The lower triangle of a becomes its Cholesky factor, tile by tile, and the rest stays as it is; false if it is not
// positive definite.
bool cholesky_in_place(MatrixMap& a) {
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
    parallel_try(tiles, [&](int64_t i) {
      const auto [row, rows] = tile(i);
      auto panel = a.block(row, k, rows, size);
      corner.triangularView<Eigen::Lower>().transpose().solveInPlace<Eigen::OnTheRight>(panel);
    });
    parallel_try(tiles * (tiles + 1) / 2, [&](int64_t pair) {
      Index i = 0;
      while ((i + 1) * (i + 2) / 2 <= pair) ++i;
      const auto [row, rows] = tile(i);
      const auto [col, cols] = tile(pair - i * (i + 1) / 2);
      const auto left = a.block(row, k, rows, size), right = a.block(col, k, cols, size);
      if (row == col)
        a.block(row, col, rows, cols).triangularView<Eigen::Lower>() -= left * right.transpose();
      else
        a.block(row, col, rows, cols).noalias() -= left * right.transpose();
    });
  }
  return true;
}

// upper = the inverse of a lower triangular matrix with rows and columns in reverse, by panels of its columns.
void reversed_inverse(const MatrixMap& lower, tensor::MatView upper) {
  const Index n = lower.rows();
  parallel_try((n + kTile - 1) / kTile, [&](int64_t panel) {
    const Index begin = panel * kTile, size = std::min(kTile, n - begin), left = n - begin;
    MatrixXd columns = MatrixXd::Identity(left, size);
    lower.bottomRightCorner(left, left).triangularView<Eigen::Lower>().solveInPlace(columns);
    for (Index r = 0; r < left; ++r)
      for (Index c = 0; c < std::min(r + 1, size); ++c)
        upper(n - 1 - begin - r, n - 1 - begin - c) = static_cast<float>(columns(r, c));
  });
}

}  // namespace

InverseFactor factor_inverse(InputStatistics& inputs, double damping) {
  const Index n = inputs.width();
  std::vector<double> memory = std::move(inputs.gram);
  BRICK_ASSERT(static_cast<Index>(memory.size()) == n * n);
  std::reverse(memory.begin(), memory.end());
  MatrixMap h(memory.data(), n, n);
  const Eigen::VectorXd diagonal = h.diagonal();
  for (int attempt = 0; attempt < kDampingTries; ++attempt) {
    if (attempt > 0) damping = std::max(10.0 * damping, kLeastRetryDamping);
    fill_hessian(inputs, diagonal, damping, h);
    if (!cholesky_in_place(h)) continue;
    InverseFactor out{tensor::matrix(n, n), damping};
    reversed_inverse(h, out.upper.mat());
    return out;
  }
  return {{}, damping};
}

tensor::Tensor shifted_inverse(tensor::ConstMatView h, double shift) {
  const Index n = h.rows;
  std::vector<double> memory(static_cast<size_t>(n * n));
  MatrixMap reversed(memory.data(), n, n);
  parallel_for(n, [&](int64_t j) {
    for (Index i = j; i < n; ++i)
      reversed(i, j) = static_cast<double>(h(n - 1 - i, n - 1 - j)) + (i == j ? shift : 0.0);
  });
  if (!cholesky_in_place(reversed))
    fail(ErrorCode::kNumeric, "a matrix of {} input products is not positive definite with {:g} added", n, shift);
  tensor::Tensor upper = tensor::matrix(n, n), inverse = tensor::matrix(n, n);
  reversed_inverse(reversed, upper.mat());
  kernels::gemm(kernels::Trans::kYes, kernels::Trans::kNo, 1.0f, upper.mat(), upper.mat(), 0.0f, inverse.mat());
  return inverse;
}

}  // namespace brick::prune
