// Truncated singular value decompositions. Factorisations run in double, products with large matrices in
// float32. Deterministic: equal inputs, seed and thread count give equal bits; of each singular pair the
// largest component of u is positive.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "brick/tensor/tensor.h"

namespace brick::federate {

// u diag(s) vt: orthonormal columns of u [rows, k], orthonormal rows of vt [k, cols], s descending, k at most
// the rank that was asked for.
struct LowRank {
  tensor::Tensor u, vt;
  std::vector<double> s;
  // sqrt(sum_i ||Y v_i - s_i u_i||^2 / sum_i s_i^2): each s_i lies within that share of a true singular value
  // (Weyl); zero where the decomposition is direct.
  double residual = 0;

  int64_t rank() const { return static_cast<int64_t>(s.size()); }
};

// scale * b a, b [rows, r], a [r, cols].
struct Factor {
  double scale = 1;
  tensor::ConstMatView b, a;
};

// Of sum_i scale_i b_i a_i, all of one shape, without forming it: QR of the stacked b's and of the stacked
// a's, then a small SVD. Exact in double; for sum r well below rows and cols (thin_enough).
LowRank thin_svd(std::span<const Factor> factors, int64_t rank);
bool thin_enough(int64_t rows, int64_t cols, int64_t stacked_rank);

// A matrix known by its products; it need never be whole in memory.
class LinearMap {
 public:
  virtual ~LinearMap() = default;
  virtual int64_t rows() const = 0;
  virtual int64_t cols() const = 0;
  virtual void times(tensor::ConstMatView q, tensor::MatView out) const = 0;             // Y q, q [cols, l]
  virtual void transposed_times(tensor::ConstMatView p, tensor::MatView out) const = 0;  // Y^T p, p [rows, l]
};

class DenseMap final : public LinearMap {
 public:
  explicit DenseMap(tensor::ConstMatView matrix) : matrix_(matrix) {}  // looks at it
  int64_t rows() const override { return matrix_.rows; }
  int64_t cols() const override { return matrix_.cols; }
  void times(tensor::ConstMatView q, tensor::MatView out) const override;
  void transposed_times(tensor::ConstMatView p, tensor::MatView out) const override;

 private:
  tensor::ConstMatView matrix_;
};

// scale * b a by its factors, which it looks at: cheaper than the product while r (rows + cols) is not much more than
// rows * cols.
class FactorMap final : public LinearMap {
 public:
  explicit FactorMap(const Factor& factor) : factor_(factor) {}
  int64_t rows() const override { return factor_.b.rows; }
  int64_t cols() const override { return factor_.a.cols; }
  void times(tensor::ConstMatView q, tensor::MatView out) const override;
  void transposed_times(tensor::ConstMatView p, tensor::MatView out) const override;

 private:
  Factor factor_;
};

struct SvdOptions {
  int64_t oversample = 8;
  int64_t max_steps = 40;
  double tolerance = 1e-3;  // of LowRank::residual; the captured energy is then within about its square of the best
};

// Randomised subspace iteration (Halko, Martinsson, Tropp 2011, algorithm 4.4, both halves orthonormalised),
// stopped by the residual. Matrices of few rows or columns, and of up to 1,024 where it does not converge,
// are decomposed directly in double, for which they are formed once. Error(kNumeric) if Y is not finite.
LowRank truncated_svd(const LinearMap& y, int64_t rank, uint64_t seed, const SvdOptions& options = {});
LowRank truncated_svd(tensor::ConstMatView y, int64_t rank, uint64_t seed, const SvdOptions& options = {});

// Whether truncated_svd decomposes a matrix of this shape directly, l = rank + oversample.
bool svd_is_direct(int64_t rows, int64_t cols, int64_t l);

// Orthonormal columns [cols, l] to start from: the row space of `start` and random directions up to rank +
// oversample.
tensor::Tensor start_basis(const LowRank& start, int64_t cols, int64_t rank, int64_t oversample, uint64_t seed);

// One step of that iteration from `basis`, which it replaces by the l right singular vectors it found. The
// result is the best approximation of Y with columns in Y span(basis): no further from Y than any matrix of
// that rank whose rows lie in span(basis).
LowRank subspace_step(const LinearMap& y, int64_t rank, tensor::Tensor& basis);

}  // namespace brick::federate
