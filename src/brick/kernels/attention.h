// Causal softmax attention over packed sequences, heads grouped over shared keys and values (GQA), in blocks of
// queries: memory grows with the longest sequence, never with its square (after FlashAttention-2, Dao 2023).
#pragma once

#include <span>

#include "brick/kernels/context.h"
#include "brick/tensor/view.h"

namespace brick::kernels {

struct AttentionShape {
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
};

// One sequence: rows [query_begin, +queries) of q and o see rows [key_begin, +keys) of k and v. The last query sees
// the last key, the one before it the key before, and so on; keys >= queries.
struct AttentionSpan {
  int64_t query_begin = 0, queries = 0, key_begin = 0, keys = 0;
};

// q, o [T, H * head_dim]; k, v [S, K * head_dim]; log_sum_exp [T, H] receives what the backward needs (may be null
// when none follows). Scores are scaled by head_dim^(-1/2).
void attention(Context& context, const AttentionShape& shape, std::span<const AttentionSpan> spans,
               tensor::ConstMatView q, tensor::ConstMatView k, tensor::ConstMatView v, tensor::MatView o,
               float* log_sum_exp);

// dq, dk, dv = gradients (overwritten), from d_o = dL/do.
void attention_backward(Context& context, const AttentionShape& shape, std::span<const AttentionSpan> spans,
                        tensor::ConstMatView q, tensor::ConstMatView k, tensor::ConstMatView v, tensor::ConstMatView o,
                        const float* log_sum_exp, tensor::ConstMatView d_o, tensor::MatView dq, tensor::MatView dk,
                        tensor::MatView dv);

}  // namespace brick::kernels
