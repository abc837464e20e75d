// Attention as in attention.h on activations held in bfloat16. Weights of keys and their gradients are rounded to
// bfloat16, sums are float32. Only where has_bf16_arithmetic().
#pragma once

#include <span>

#include "brick/kernels/attention.h"
#include "brick/kernels/bf16_view.h"

namespace brick::kernels {

// Rows of k and v are read to the next multiple of 32 columns: what stands there must be finite.
void attention(Context& context, const AttentionShape& shape, std::span<const AttentionSpan> spans, ConstBf16View q,
               ConstBf16View k, ConstBf16View v, Bf16View o, float* log_sum_exp);

void attention_backward(Context& context, const AttentionShape& shape, std::span<const AttentionSpan> spans,
                        ConstBf16View q, ConstBf16View k, ConstBf16View v, ConstBf16View o, const float* log_sum_exp,
                        ConstBf16View d_o, Bf16View dq, tensor::MatView dk, tensor::MatView dv);

}  // namespace brick::kernels
