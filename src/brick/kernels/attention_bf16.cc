#include "brick/kernels/attention_bf16.h"

#include <algorithm>
#include <cmath>

#include "brick/base/parallel.h"
#include "brick/kernels/attention_bf16_impl.h"
#include "brick/kernels/attention_shares.h"
#include "brick/kernels/packed_product.h"

namespace brick::kernels {
namespace {

using tensor::ConstMatView;
using tensor::MatView;

static_assert(kQueryBlock == kBlockCols, "a block of queries is a block of packed columns");

// A thread's memory, handed out in whole cache lines.
class Memory {
 public:
  explicit Memory(float* begin = nullptr) : begin_(begin) {}  // without it sizes are added up alone
  MatView f32(int64_t rows, int64_t cols) { return {take(rows * cols), rows, cols}; }
  Bf16View bf16(int64_t rows, int64_t cols) {
    return {reinterpret_cast<uint16_t*>(take((rows * cols + 1) / 2)), rows, cols};
  }
  uint16_t* blocks(int64_t k, int64_t cols) { return bf16(round_up(k, kBlockRows), round_up(cols, kBlockCols)).data; }
  int64_t floats() const { return floats_; }

 private:
  float* take(int64_t floats) {
    float* out = begin_ != nullptr ? begin_ + floats_ : nullptr;
    floats_ += round_up(floats, 16);
    return out;
  }
  float* begin_;
  int64_t floats_ = 0;
};

// c = a b + beta c of a bfloat16 b [k, n] whose rows lie as they are.
void multiply_rows(ConstBf16View a, ConstBf16View b, uint16_t* block, float beta, MatView c) {
  for (int64_t first = 0; first < b.cols; first += kBlockCols) {
    pack_rows(b, first, block);
    multiply_block(a, block, beta, c.col_range(first, std::min(first + kBlockCols, b.cols)));
  }
}

// Of x^T: products may read beyond any sequence's last key.
int64_t turned_stride(ConstBf16View x) { return round_up(x.rows, kBlockRows) + kBlockRows; }
int64_t turned_floats(ConstBf16View x) { return half(x.cols * turned_stride(x)); }

}  // namespace

void attention(Context& context, const AttentionShape& shape, std::span<const AttentionSpan> spans, ConstBf16View q,
               ConstBf16View k, ConstBf16View v, Bf16View o, float* log_sum_exp) {
  const int64_t d = shape.head_dim, group = shape.heads / shape.kv_heads, keys = longest(spans);
  const float scale = 1.0f / std::sqrt(static_cast<float>(d));
  struct Work {
    MatView scores, turned_o;
    Bf16View weights;
    uint16_t *queries, *packed_weights;
  };
  const auto lay_out = [&](Memory& memory) {
    return Work{memory.f32(keys, kQueryBlock), memory.f32(d, kQueryBlock), memory.bf16(keys, kQueryBlock),
                memory.blocks(d, kQueryBlock), memory.blocks(keys, kQueryBlock)};
  };
  Memory measure;
  lay_out(measure);
  const int64_t each = measure.floats(), shared = turned_floats(v), count = query_blocks(spans);
  const auto [memory, blocks] = scratch_and_list<QueryBlock>(context, shared + each * threads(), count);
  list_query_blocks(spans, blocks);
  const ConstBf16View v_turned = turned(v, turned_stride(v), reinterpret_cast<uint16_t*>(memory));
  float* threads_memory = memory + shared;

  parallel_for(count * shape.heads, [&, blocks = blocks](int64_t task) {
    // The longest blocks first, so that threads end together.
    const QueryBlock& block = blocks[count - 1 - task / shape.heads];
    const int64_t h = task % shape.heads, kv = h / group;
    const AttentionSpan& span = spans[static_cast<size_t>(block.span)];
    const int64_t visible = visible_keys(span, block.first + block.count - 1), row0 = span.query_begin + block.first;
    Memory own(threads_memory + each * omp_get_thread_num());
    Work work = lay_out(own);
    work.scores.rows = work.weights.rows = visible;
    pack_columns(q.block(row0, block.count, h * d, d), work.queries);
    multiply_block(k.block(span.key_begin, visible, kv * d, d), work.queries, 0.0f, work.scores);
    float inverse_sums[kQueryBlock], column_lse[kQueryBlock];
    softmax_columns(work.scores, {visible_keys(span, block.first), block.count}, scale, work.weights, column_lse,
                    inverse_sums);
    pack_rows(work.weights, 0, work.packed_weights);
    multiply_block(v_turned.block(kv * d, d, span.key_begin, visible), work.packed_weights, 0.0f, work.turned_o);
    store_transposed(work.turned_o, inverse_sums, o.block(row0, block.count, h * d, d));
    for (int64_t i = 0; i < block.count && log_sum_exp != nullptr; ++i)
      log_sum_exp[(row0 + i) * shape.heads + h] = column_lse[i];
  });
}

void attention_backward(Context& context, const AttentionShape& shape, std::span<const AttentionSpan> spans,
                        ConstBf16View q, ConstBf16View k, ConstBf16View v, ConstBf16View o, const float* log_sum_exp,
                        ConstBf16View d_o, Bf16View dq, MatView dk, MatView dv) {
  const int64_t d = shape.head_dim, group = shape.heads / shape.kv_heads, keys = longest(spans);
  const float scale = 1.0f / std::sqrt(static_cast<float>(d));

  struct Work {
    MatView scores, d_weights, turned_dq;
    Bf16View weights, d_scores;
    uint16_t *queries, *packed;
  };
  const auto lay_out = [&](Memory& memory) {
    return Work{memory.f32(keys, kQueryBlock),
                memory.f32(keys, kQueryBlock),
                memory.f32(d, kQueryBlock),
                memory.bf16(keys, kQueryBlock),
                memory.bf16(keys, kQueryBlock),
                memory.blocks(d, kQueryBlock),
                memory.blocks(std::max(keys, kQueryBlock), kBlockCols)};
  };
  Memory measure;
  lay_out(measure);
  const int64_t each = measure.floats(), shared = turned_floats(k), sums = share_sums(shape, spans);
  const auto [memory, shares] =
      scratch_and_list<Share>(context, shared + each * threads() + sums, share_count(shape, spans));
  const int64_t count = list_shares(shape, spans, memory + shared + each * threads(), dk, dv, shares);
  const ConstBf16View k_turned = turned(k, turned_stride(k), reinterpret_cast<uint16_t*>(memory));
  float* threads_memory = memory + shared;

  parallel_for(count, [&, shares = shares](int64_t task) {
    const Share& share = shares[task];
    const AttentionSpan& span = spans[static_cast<size_t>(share.span)];
    const int64_t kv = share.kv;
    share.clear_sums();
    Memory own(threads_memory + each * omp_get_thread_num());
    Work work = lay_out(own);
    for (int64_t h = kv * group; h < (kv + 1) * group; ++h)
      for (int64_t first = share.first; first < share.last; first += kQueryBlock) {
        const int64_t queries = std::min(kQueryBlock, share.last - first), row0 = span.query_begin + first;
        const int64_t visible = visible_keys(span, first + queries - 1);
        for (MatView* view : {&work.scores, &work.d_weights}) view->rows = visible;
        for (Bf16View* view : {&work.weights, &work.d_scores}) view->rows = visible;
        const ConstBf16View qh = q.block(row0, queries, h * d, d), doh = d_o.block(row0, queries, h * d, d);
        pack_columns(qh, work.queries);
        multiply_block(k.block(span.key_begin, visible, kv * d, d), work.queries, 0.0f, work.scores);
        pack_columns(doh, work.queries);
        multiply_block(v.block(span.key_begin, visible, kv * d, d), work.queries, 0.0f, work.d_weights);
        float column_lse[kQueryBlock] = {}, delta[kQueryBlock] = {}, ones[kQueryBlock];
        std::fill_n(ones, kQueryBlock, 1.0f);
        for (int64_t i = 0; i < queries; ++i) {
          column_lse[i] = log_sum_exp[(row0 + i) * shape.heads + h];
          delta[i] = dot(doh.row(i), o.row(row0 + i) + h * d, d);
        }
        softmax_columns_backward(work.scores, work.d_weights, {visible_keys(span, first), queries}, scale, column_lse,
                                 delta, work.weights, work.d_scores);
        multiply_rows(work.weights.col_range(0, queries), doh, work.packed, 1.0f, share.dv.row_range(0, visible));
        multiply_rows(work.d_scores.col_range(0, queries), qh, work.packed, 1.0f, share.dk.row_range(0, visible));
        pack_rows(work.d_scores, 0, work.packed);
        multiply_block(k_turned.block(kv * d, d, span.key_begin, visible), work.packed, 0.0f, work.turned_dq);
        store_transposed(work.turned_dq, ones, dq.block(row0, queries, h * d, d));
      }
  });
  add_up(shares, count);
}

}  // namespace brick::kernels
