#include "brick/kernels/cross_entropy.h"

#include <cmath>

#include "brick/base/parallel.h"
#include "brick/kernels/vector_ops.h"

namespace brick::kernels {
namespace {

// Leaves exp(z - max) in the row; returns its sum.
float row_loss(float* row, int64_t n, int32_t target, float* loss) {
  const float top = max_value(row, n), at_target = row[target];
  const float sum = exp_sum(top, row, n);
  *loss = std::log(sum) + (top - at_target);  // in this order a small loss of large logits keeps its digits
  return sum;
}

}  // namespace

void cross_entropy(tensor::MatView logits, const int32_t* targets, float* losses) noexcept {
  parallel_ranges(logits.rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) row_loss(logits.row(t), logits.cols, targets[t], losses + t);
  });
}

void cross_entropy_backward(tensor::MatView logits, const int32_t* targets, float weight, float* losses) noexcept {
  parallel_ranges(logits.rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float sum = row_loss(logits.row(t), logits.cols, targets[t], losses + t);
      scale(weight / sum, logits.row(t), logits.cols);
      logits(t, targets[t]) -= weight;
    }
  });
}

}  // namespace brick::kernels
