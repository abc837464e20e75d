// Passes over a block of attention's weights, one row a key and one column a query: [keys, kQueryBlock]. Query i of the
// `count` first sees keys below base + i; all else becomes 0.
#pragma once

#include "brick/kernels/bf16_view.h"

namespace brick::kernels {

struct Sight {
  int64_t base, count;
};

// weights = exp(scale (scores - their column's maximum)); log_sum_exp of the scaled scores and 1 / sum, [kQueryBlock].
void softmax_columns(tensor::ConstMatView scores, const Sight& sight, float scale, Bf16View weights, float* log_sum_exp,
                     float* inverse_sum) noexcept;

// weights = exp(scale scores - log_sum_exp); d_scores = scale weights (d_weights - delta); log_sum_exp and delta
// [kQueryBlock].
void softmax_columns_backward(tensor::ConstMatView scores, tensor::ConstMatView d_weights, const Sight& sight,
                              float scale, const float* log_sum_exp, const float* delta, Bf16View weights,
                              Bf16View d_scores) noexcept;

// out [queries, d] = x^T, x [d, kQueryBlock], times `factors` [kQueryBlock].
void store_transposed(tensor::ConstMatView x, const float* factors, Bf16View out) noexcept;

// Sum of products of bfloat16 values.
float dot(const uint16_t* a, const uint16_t* b, int64_t n) noexcept;

}  // namespace brick::kernels
