#include "brick/kernels/attention.h"

#include <algorithm>
#include <cmath>

#include "brick/base/parallel.h"
#include "brick/kernels/attention_shares.h"
#include "brick/kernels/gemm.h"
#include "brick/kernels/vector_ops.h"

namespace brick::kernels {
namespace {

using tensor::ConstMatView;
using tensor::MatView;

// scores[i, j] = q_i . k_j / sqrt(d) for the keys that the block's last query sees.
MatView block_scores(const AttentionSpan& span, const QueryBlock& block, ConstMatView q, ConstMatView k,
                     float* memory) {
  const int64_t keys = visible_keys(span, block.first + block.count - 1);
  MatView scores(memory, block.count, keys);
  gemm(Trans::kNo, Trans::kYes, 1.0f / std::sqrt(static_cast<float>(q.cols)),
       q.row_range(span.query_begin + block.first, span.query_begin + block.first + block.count),
       k.row_range(span.key_begin, span.key_begin + keys), 0.0f, scores);
  return scores;
}

}  // namespace

void attention(Context& context, const AttentionShape& shape, std::span<const AttentionSpan> spans, ConstMatView q,
               ConstMatView k, ConstMatView v, MatView o, float* log_sum_exp) {
  const int64_t group = shape.heads / shape.kv_heads, d = shape.head_dim;
  const int64_t memory_each = std::min(kQueryBlock, q.rows) * longest(spans);
  const int64_t count = query_blocks(spans);
  const auto scratch = scratch_and_list<QueryBlock>(context, memory_each * threads(), count);
  float* memory = scratch.first;
  const QueryBlock* blocks = scratch.second;
  list_query_blocks(spans, scratch.second);

  parallel_for(count * shape.heads, [&](int64_t task) {
    // The longest blocks first, so that threads end together.
    const QueryBlock& block = blocks[count - 1 - task / shape.heads];
    const int64_t h = task % shape.heads;
    const AttentionSpan& span = spans[static_cast<size_t>(block.span)];
    const ConstMatView vh = v.col_range(h / group * d, (h / group + 1) * d);
    const MatView scores =
        block_scores(span, block, q.col_range(h * d, (h + 1) * d), k.col_range(h / group * d, (h / group + 1) * d),
                     memory + memory_each * omp_get_thread_num());
    for (int64_t i = 0; i < block.count; ++i) {
      const int64_t visible = visible_keys(span, block.first + i);
      float* row = scores.row(i);
      const float top = max_value(row, visible), sum = exp_sum(top, row, visible);
      scale(1.0f / sum, row, visible);
      std::fill(row + visible, row + scores.cols, 0.0f);
      if (log_sum_exp != nullptr)
        log_sum_exp[(span.query_begin + block.first + i) * shape.heads + h] = top + std::log(sum);
    }
    gemm(Trans::kNo, Trans::kNo, 1.0f, scores, vh.row_range(span.key_begin, span.key_begin + scores.cols), 0.0f,
         o.block(span.query_begin + block.first, block.count, h * d, d));
  });
}

void attention_backward(Context& context, const AttentionShape& shape, std::span<const AttentionSpan> spans,
                        ConstMatView q, ConstMatView k, ConstMatView v, ConstMatView o, const float* log_sum_exp,
                        ConstMatView d_o, MatView dq, MatView dk, MatView dv) {
  const int64_t group = shape.heads / shape.kv_heads, d = shape.head_dim;
  const int64_t memory_each = 2 * std::min(kQueryBlock, q.rows) * longest(spans);
  const float factor = 1.0f / std::sqrt(static_cast<float>(d));
  const int64_t count = share_count(shape, spans), sums = share_sums(shape, spans);
  const auto scratch = scratch_and_list<Share>(context, memory_each * threads() + sums, count);
  float* memory = scratch.first;
  const Share* shares = scratch.second;
  list_shares(shape, spans, memory + memory_each * threads(), dk, dv, scratch.second);

  // Each share has sums of its own, so that their order is fixed.
  parallel_for(count, [&](int64_t task) {
    const Share& share = shares[task];
    const AttentionSpan& span = spans[static_cast<size_t>(share.span)];
    const int64_t kv = share.kv;
    const ConstMatView kh = k.col_range(kv * d, (kv + 1) * d), vh = v.col_range(kv * d, (kv + 1) * d);
    share.clear_sums();
    float* own = memory + memory_each * omp_get_thread_num();
    for (int64_t h = kv * group; h < (kv + 1) * group; ++h)
      for (int64_t first = share.first; first < share.last; first += kQueryBlock) {
        const QueryBlock block{0, first, std::min(kQueryBlock, share.last - first)};
        const int64_t row0 = span.query_begin + first;
        const ConstMatView qh = q.col_range(h * d, (h + 1) * d), doh = d_o.block(row0, block.count, h * d, d);
        const MatView p = block_scores(span, block, qh, kh, own);
        const MatView ds(own + memory_each / 2, block.count, p.cols);
        const ConstMatView keys = kh.row_range(span.key_begin, span.key_begin + p.cols);
        gemm(Trans::kNo, Trans::kYes, 1.0f, doh, vh.row_range(span.key_begin, span.key_begin + p.cols), 0.0f, ds);
        for (int64_t i = 0; i < block.count; ++i) {
          const int64_t visible = visible_keys(span, first + i);
          exp_sum(log_sum_exp[(row0 + i) * shape.heads + h], p.row(i), visible);
          std::fill(p.row(i) + visible, p.row(i) + p.cols, 0.0f);
          const float delta = dot(doh.row(i), o.row(row0 + i) + h * d, d);
          float* row = ds.row(i);
          for (int64_t j = 0; j < p.cols; ++j) row[j] = p(i, j) * (row[j] - delta) * factor;
        }
        const ConstMatView p_const = p, ds_const = ds;
        gemm(Trans::kNo, Trans::kNo, 1.0f, ds_const, keys, 0.0f, dq.block(row0, block.count, h * d, d));
        gemm(Trans::kYes, Trans::kNo, 1.0f, ds_const, qh.row_range(row0, row0 + block.count), 1.0f,
             share.dk.row_range(0, p.cols));
        gemm(Trans::kYes, Trans::kNo, 1.0f, p_const, doh, 1.0f, share.dv.row_range(0, p.cols));
      }
  });
  add_up(shares, count);
}

}  // namespace brick::kernels
