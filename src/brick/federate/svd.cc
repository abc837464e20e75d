#include "brick/federate/svd.h"

// Eigen's matrices are slim here; threads are for the products with the large one.
#define EIGEN_DONT_PARALLELIZE
#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <limits>

#include "brick/base/error.h"
#include "brick/base/rng.h"
#include "brick/kernels/gemm.h"

namespace brick::federate {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using kernels::Trans;
using tensor::ConstMatView;
using tensor::MatView;

constexpr int64_t kDirect = 64;            // up to here a direct decomposition is the cheapest
constexpr int64_t kDirectFallback = 1024;  // up to here it is affordable where the iteration fails
constexpr Eigen::Index kJacobi = 48;       // one-sided Jacobi is the most accurate, and as fast up to here

using RowMajorF = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

MatrixXd to_double(ConstMatView view) {
  return Eigen::Map<const RowMajorF, 0, Eigen::OuterStride<>>(view.data, view.rows, view.cols,
                                                              Eigen::OuterStride<>(view.stride))
      .cast<double>();
}

tensor::Tensor to_float(const MatrixXd& matrix) {
  tensor::Tensor out = tensor::matrix(matrix.rows(), matrix.cols());
  Eigen::Map<RowMajorF>(out.f32(), matrix.rows(), matrix.cols()) = matrix.cast<float>();
  return out;
}

// Orthonormal columns spanning those of `matrix` (completed arbitrarily where these are dependent); R where
// asked.
MatrixXd orthonormal(const MatrixXd& matrix, MatrixXd* r = nullptr) {
  const Eigen::Index k = std::min(matrix.rows(), matrix.cols());
  const Eigen::HouseholderQR<MatrixXd> qr(matrix);
  if (r != nullptr) *r = qr.matrixQR().topRows(k).triangularView<Eigen::Upper>();
  MatrixXd q = MatrixXd::Identity(matrix.rows(), k);
  q.applyOnTheLeft(qr.householderQ());
  return q;
}

struct Svd {
  MatrixXd u, v;
  VectorXd s;
};

// Beyond kJacobi by the eigenvectors of the smaller Gram matrix: QR of the rotated matrix gives an R that is diagonal
// up to what squaring lost, 1e-8 of the largest singular value, which float32 results don't see. (Eigen's BDCSVD is as
// fast and takes 20 s to compile.)
Svd small_svd(const MatrixXd& matrix) {
  if (matrix.rows() < matrix.cols()) {
    Svd svd = small_svd(MatrixXd(matrix.transpose()));
    return {std::move(svd.v), std::move(svd.u), std::move(svd.s)};
  }
  if (matrix.cols() <= kJacobi) {
    const Eigen::JacobiSVD<MatrixXd> svd(matrix, Eigen::ComputeThinU | Eigen::ComputeThinV);
    return {svd.matrixU(), svd.matrixV(), svd.singularValues()};
  }
  const MatrixXd gram = matrix.transpose() * matrix;
  const Eigen::SelfAdjointEigenSolver<MatrixXd> eigen(gram);
  MatrixXd v = eigen.eigenvectors().rowwise().reverse(), r;
  MatrixXd u = orthonormal(MatrixXd(matrix * v), &r);
  for (Eigen::Index i = 0; i < r.cols(); ++i)
    if (r(i, i) < 0) u.col(i) *= -1;
  return {std::move(u), std::move(v), r.diagonal().cwiseAbs()};
}

// The first `rank` triples with their signs settled.
LowRank leading(MatrixXd u, MatrixXd v, const VectorXd& s, int64_t rank) {
  const Eigen::Index k = std::min<Eigen::Index>(rank, s.size());
  u.conservativeResize(Eigen::NoChange, k);
  v.conservativeResize(Eigen::NoChange, k);
  for (Eigen::Index i = 0; i < k; ++i) {
    Eigen::Index largest = 0;
    u.col(i).cwiseAbs().maxCoeff(&largest);
    if (u(largest, i) < 0) {
      u.col(i) *= -1;
      v.col(i) *= -1;
    }
  }
  LowRank out{to_float(u), to_float(v.transpose()), {s.data(), s.data() + k}, 0};
  return out;
}

void require_finite(const MatrixXd& matrix) {
  if (!matrix.allFinite()) fail(ErrorCode::kNumeric, "the matrix to decompose is not finite; are the updates checked?");
}

MatrixXd whole(const LinearMap& y) {
  tensor::Tensor identity = tensor::matrix(y.cols(), y.cols()), product = tensor::matrix(y.rows(), y.cols());
  for (int64_t i = 0; i < y.cols(); ++i) identity.mat()(i, i) = 1;
  y.times(identity.mat(), product.mat());
  return to_double(product.mat());
}

// Eigenvectors of the smaller Gram matrix; then one more orthonormalisation restores what squaring lost.
LowRank direct_svd(const MatrixXd& y, int64_t rank) {
  require_finite(y);
  if (std::min(y.rows(), y.cols()) <= kDirect) {
    Svd svd = small_svd(y);
    return leading(std::move(svd.u), std::move(svd.v), svd.s, rank);
  }
  const bool wide = y.rows() <= y.cols();
  const MatrixXd gram = wide ? MatrixXd(y * y.transpose()) : MatrixXd(y.transpose() * y);
  const Eigen::SelfAdjointEigenSolver<MatrixXd> eigen(gram);
  const MatrixXd kept = eigen.eigenvectors().rightCols(std::min<Eigen::Index>(rank, gram.cols()));
  const MatrixXd q = orthonormal(wide ? MatrixXd(y.transpose() * kept) : MatrixXd(y * kept));
  Svd svd = small_svd(wide ? MatrixXd((y * q).transpose()) : MatrixXd(q.transpose() * y));
  if (wide) return leading(std::move(svd.v), q * svd.u, svd.s, rank);
  return leading(q * svd.u, std::move(svd.v), svd.s, rank);
}

struct Step {
  MatrixXd u, v;  // [rows, l], [cols, l]
  VectorXd s;
};

// From W = Y q: P = orth(W), and the exact SVD of P P^T Y.
Step half_step(const LinearMap& y, const MatrixXd& w) {
  require_finite(w);
  const MatrixXd p = orthonormal(w);
  tensor::Tensor z = tensor::matrix(y.cols(), p.cols());
  y.transposed_times(to_float(p).mat(), z.mat());
  MatrixXd r;
  const MatrixXd q = orthonormal(to_double(z.mat()), &r);
  const Svd svd = small_svd(r);
  return {p * svd.v, q * svd.u, svd.s};
}

MatrixXd times(const LinearMap& y, ConstMatView q) {
  tensor::Tensor w = tensor::matrix(y.rows(), q.cols);
  y.times(q, w.mat());
  return to_double(w.mat());
}

double residual_of(const Step& step, const MatrixXd& w, int64_t rank) {
  double error = 0, energy = 0;
  for (Eigen::Index i = 0; i < std::min<Eigen::Index>(rank, step.s.size()); ++i) {
    error += (w.col(i) - step.s(i) * step.u.col(i)).squaredNorm();
    energy += step.s(i) * step.s(i);
  }
  return energy > 0 ? std::sqrt(error / energy) : 0.0;
}

MatrixXd random_columns(int64_t rows, int64_t cols, uint64_t seed) {
  Rng rng(seed, stream_id({0x53564442}));  // "SVDB"
  MatrixXd out(rows, cols);
  // Any directions do: truncated_svd() measures the residual, start_basis() only fills up beside what it is given.
  // Normal ones take longer to draw.
  for (Eigen::Index i = 0; i < out.size(); ++i) out.data()[i] = rng.uniform() - 0.5;
  return out;
}

}  // namespace

bool thin_enough(int64_t rows, int64_t cols, int64_t stacked_rank) { return 2 * stacked_rank <= std::min(rows, cols); }

bool svd_is_direct(int64_t rows, int64_t cols, int64_t l) {
  return std::min(rows, cols) <= kDirect || 2 * l > std::min(rows, cols);
}

LowRank thin_svd(std::span<const Factor> factors, int64_t rank) {
  BRICK_ASSERT(!factors.empty());
  Eigen::Index stacked = 0;
  for (const Factor& factor : factors) stacked += factor.a.rows;
  MatrixXd left(factors[0].b.rows, stacked), right(factors[0].a.cols, stacked);
  Eigen::Index at = 0;
  for (const Factor& factor : factors) {
    left.middleCols(at, factor.a.rows) = factor.scale * to_double(factor.b);
    right.middleCols(at, factor.a.rows) = to_double(factor.a).transpose();
    at += factor.a.rows;
  }
  require_finite(left);
  require_finite(right);
  MatrixXd left_r, right_r;
  const MatrixXd left_q = orthonormal(left, &left_r), right_q = orthonormal(right, &right_r);
  const Svd svd = small_svd(left_r * right_r.transpose());
  return leading(left_q * svd.u, right_q * svd.v, svd.s, rank);
}

void DenseMap::times(ConstMatView q, MatView out) const {
  kernels::gemm(Trans::kNo, Trans::kNo, 1.0f, matrix_, q, 0.0f, out);
}

void DenseMap::transposed_times(ConstMatView p, MatView out) const {
  kernels::gemm(Trans::kYes, Trans::kNo, 1.0f, matrix_, p, 0.0f, out);
}

void FactorMap::times(ConstMatView q, MatView out) const {
  tensor::Tensor inner = tensor::matrix(factor_.a.rows, q.cols);
  kernels::gemm(Trans::kNo, Trans::kNo, 1.0f, factor_.a, q, 0.0f, inner.mat());
  kernels::gemm(Trans::kNo, Trans::kNo, static_cast<float>(factor_.scale), factor_.b, inner.mat(), 0.0f, out);
}

void FactorMap::transposed_times(ConstMatView p, MatView out) const {
  tensor::Tensor inner = tensor::matrix(factor_.a.rows, p.cols);
  kernels::gemm(Trans::kYes, Trans::kNo, 1.0f, factor_.b, p, 0.0f, inner.mat());
  kernels::gemm(Trans::kYes, Trans::kNo, static_cast<float>(factor_.scale), factor_.a, inner.mat(), 0.0f, out);
}

LowRank truncated_svd(const LinearMap& y, int64_t rank, uint64_t seed, const SvdOptions& options) {
  const int64_t smaller = std::min(y.rows(), y.cols()), l = rank + options.oversample;
  if (svd_is_direct(y.rows(), y.cols(), l)) return direct_svd(whole(y), rank);
  MatrixXd w = times(y, to_float(orthonormal(random_columns(y.cols(), l, seed))).mat());
  Step step = half_step(y, w);
  double residual = std::numeric_limits<double>::infinity();
  for (int64_t i = 1; i < options.max_steps; ++i) {
    w = times(y, to_float(step.v).mat());
    residual = residual_of(step, w, rank);
    if (residual <= options.tolerance) break;
    step = half_step(y, w);
  }
  if (!(residual <= options.tolerance) && smaller <= kDirectFallback) return direct_svd(whole(y), rank);
  LowRank out = leading(std::move(step.u), std::move(step.v), step.s, rank);
  out.residual = residual;
  return out;
}

LowRank truncated_svd(ConstMatView y, int64_t rank, uint64_t seed, const SvdOptions& options) {
  return truncated_svd(DenseMap(y), rank, seed, options);
}

tensor::Tensor start_basis(const LowRank& start, int64_t cols, int64_t rank, int64_t oversample, uint64_t seed) {
  MatrixXd columns = random_columns(cols, std::min(cols, rank + oversample), seed);
  if (start.rank() > 0) columns.leftCols(start.rank()) = to_double(start.vt.mat()).transpose();
  return to_float(orthonormal(columns));
}

LowRank subspace_step(const LinearMap& y, int64_t rank, tensor::Tensor& basis) {
  Step step = half_step(y, times(y, basis.mat()));
  basis = to_float(step.v);
  return leading(std::move(step.u), std::move(step.v), step.s, rank);
}

}  // namespace brick::federate
