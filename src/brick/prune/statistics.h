// What calibration learns about the inputs X [N, in] of linear weights, a chunk of rows at a time.
#pragma once

#include <cstdint>
#include <vector>

#include "brick/kernels/context.h"
#include "brick/tensor/tensor.h"

namespace brick::prune {

// What a method asks to know about a weight's inputs; each includes the one before it.
enum class Needs : uint8_t { kNothing, kColumnNorms, kHessian };

// The upper Cholesky factor U of the damped H^-1 = U^T U.
struct InverseFactor {
  tensor::Tensor upper;  // [in, in] float32; empty where no damping made H positive definite
  double damping = 0;    // share of the mean diagonal that was added in the end

  bool found() const { return !upper.empty(); }
};

struct InputStatistics {
  int64_t tokens = 0;
  std::vector<double> sum_squares;  // [in], sum over the tokens of x_j^2; 0 = a dead column
  std::vector<double> sums;         // [in], of x_j
  std::vector<double> gram;         // [in, in] X^T X, row-major, upper triangle alone; empty if not asked for
  tensor::Tensor sample;            // [<= 256, in], rows spread over the tokens, to measure output errors
  InverseFactor factor;             // filled by a method's prepare()

  int64_t width() const { return static_cast<int64_t>(sum_squares.size()); }
  int64_t dead_columns() const;
  std::vector<float> column_norms() const;  // [in], ||X_j||_2
  // damping mean(diag X^T X), for the diagonal of a least-squares problem: of a least damping, so that it can be
  // solved, and 1 where there is no input at all, so that the weights stay.
  double ridge(double damping) const;
};

// Sums in float32 within a chunk and in double over chunks.
class StatisticsBuilder {
 public:
  // `tokens` that will come in all; X^T X is computed in `compute`. Memory: in^2 * 8 bytes for kHessian.
  StatisticsBuilder(Needs needs, int64_t width, int64_t tokens, kernels::Compute compute = kernels::Compute::kF32);

  void add(tensor::ConstMatView x);
  // Where inputs were not finite, so are the sums of squares.
  InputStatistics take();

 private:
  void add_sample(tensor::ConstMatView x);
  void add_sums(tensor::ConstMatView x);
  void add_squares(tensor::ConstMatView x);
  void add_products(tensor::ConstMatView x);

  Needs needs_;
  kernels::Context context_;
  int64_t sample_step_, sampled_ = 0;
  InputStatistics sums_;
  tensor::Tensor scratch_;
};

}  // namespace brick::prune
