#include "brick/kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "brick/base/parallel.h"
#include "brick/kernels/gemm.h"
#include "brick/kernels/vector_ops.h"

namespace brick::kernels {
namespace {

using tensor::ConstMatView;
using tensor::MatView;

constexpr int64_t kQueryBlock = 64;
constexpr int64_t kSharesAThread = 6;  // of the backward: with fewer, threads wait long for the last one

struct Block {
  int64_t span = 0, first = 0, count = 0;  // queries [first, +count) of a span
};

int64_t visible_keys(const AttentionSpan& span, int64_t query) { return span.keys - span.queries + query + 1; }

int64_t longest(std::span<const AttentionSpan> spans) {
  int64_t keys = 0;
  for (const AttentionSpan& span : spans) keys = std::max(keys, span.keys);
  return keys;
}

// scores[i, j] = q_i . k_j / sqrt(d) for the keys that the block's last query sees.
MatView block_scores(const AttentionSpan& span, const Block& block, ConstMatView q, ConstMatView k, float* memory) {
  const int64_t keys = visible_keys(span, block.first + block.count - 1);
  MatView scores(memory, block.count, keys);
  gemm(Trans::kNo, Trans::kYes, 1.0f / std::sqrt(static_cast<float>(q.cols)),
       q.row_range(span.query_begin + block.first, span.query_begin + block.first + block.count),
       k.row_range(span.key_begin, span.key_begin + keys), 0.0f, scores);
  return scores;
}

// Scratch of so many floats, and behind them room for `count` of T.
template <class T>
std::pair<float*, T*> scratch_and_list(Context& context, int64_t floats, int64_t count) {
  constexpr auto kAligned = static_cast<int64_t>(alignof(T) / sizeof(float));
  floats = (floats + kAligned - 1) / kAligned * kAligned;
  float* memory =
      context.scratch(Context::kAttention, floats + count * static_cast<int64_t>(sizeof(T) / sizeof(float)));
  return {memory, reinterpret_cast<T*>(memory + floats)};
}

int64_t block_count(const AttentionSpan& span) { return (span.queries + kQueryBlock - 1) / kQueryBlock; }

// A task of the backward: queries [first, last) of a span, and the heads that share a KV head.
struct Share {
  int64_t span, kv, first, last, part, parts;  // which of its span's and KV head's parts
  int64_t keys;                                // that it sees
  MatView dk, dv;                              // [keys, head_dim], its own or the result's

  bool owns_sums() const { return part + 1 < parts; }
  void clear_sums() const {
    for (int64_t r = 0; r < dk.rows; ++r) {
      std::fill_n(dk.row(r), dk.cols, 0.0f);
      std::fill_n(dv.row(r), dv.cols, 0.0f);
    }
  }
};

// Visits one a sequence and KV head; where these are too few for the threads they are cut into parts of about equal
// work.
template <class Visit>
void for_each_share(const AttentionShape& shape, std::span<const AttentionSpan> spans, Visit&& visit) {
  const int64_t tasks = std::max<int64_t>(static_cast<int64_t>(spans.size()) * shape.kv_heads, 1);
  const int64_t wanted = (kSharesAThread * threads() + tasks - 1) / tasks;
  for (size_t s = 0; s < spans.size(); ++s) {
    const int64_t blocks = block_count(spans[s]);
    const int64_t parts = std::clamp<int64_t>(blocks, 1, wanted);
    // A query's work grows with its place.
    const auto cut = [&](int64_t part) {
      const double share = std::sqrt(static_cast<double>(part) / static_cast<double>(parts));
      return std::min(static_cast<int64_t>(share * static_cast<double>(blocks)) * kQueryBlock, spans[s].queries);
    };
    for (int64_t kv = 0; kv < shape.kv_heads; ++kv)
      for (int64_t part = 0; part < parts; ++part) {
        const int64_t last = cut(part + 1);
        const int64_t keys = part + 1 < parts ? visible_keys(spans[s], last - 1) : spans[s].keys;
        visit(Share{static_cast<int64_t>(s), kv, cut(part), last, part, parts, keys, {}, {}});
      }
  }
}

}  // namespace

void attention(Context& context, const AttentionShape& shape, std::span<const AttentionSpan> spans, ConstMatView q,
               ConstMatView k, ConstMatView v, MatView o, float* log_sum_exp) {
  int64_t count = 0;
  for (const AttentionSpan& span : spans) count += block_count(span);
  const int64_t group = shape.heads / shape.kv_heads, d = shape.head_dim;
  const int64_t memory_each = std::min(kQueryBlock, q.rows) * longest(spans);
  const auto scratch = scratch_and_list<Block>(context, memory_each * threads(), count);
  float* memory = scratch.first;
  const Block* blocks = scratch.second;
  Block* next = scratch.second;
  for (size_t s = 0; s < spans.size(); ++s)
    for (int64_t first = 0; first < spans[s].queries; first += kQueryBlock)
      *next++ = {static_cast<int64_t>(s), first, std::min(kQueryBlock, spans[s].queries - first)};

  parallel_for(count * shape.heads, [&](int64_t task) {
    // The longest blocks first, so that threads end together.
    const Block& block = blocks[count - 1 - task / shape.heads];
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
  int64_t count = 0, sums = 0;
  for_each_share(shape, spans, [&](const Share& share) {
    ++count;
    sums += share.owns_sums() ? 2 * share.keys * d : 0;
  });
  const auto scratch = scratch_and_list<Share>(context, memory_each * threads() + sums, count);
  float* memory = scratch.first;
  float* next_sums = memory + memory_each * threads();
  const Share* shares = scratch.second;
  Share* next = scratch.second;
  for_each_share(shape, spans, [&](Share share) {
    if (share.owns_sums()) {
      share.dk = {next_sums, share.keys, d};
      share.dv = {next_sums + share.keys * d, share.keys, d};
      next_sums += 2 * share.keys * d;
    } else {
      const int64_t key_begin = spans[static_cast<size_t>(share.span)].key_begin;
      share.dk = dk.block(key_begin, share.keys, share.kv * d, d);
      share.dv = dv.block(key_begin, share.keys, share.kv * d, d);
    }
    *next++ = share;
  });

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
        const Block block{0, first, std::min(kQueryBlock, share.last - first)};
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
  parallel_for(count, [&](int64_t task) {
    const Share& whole = shares[task];
    if (whole.owns_sums()) return;
    for (int64_t part = 0; part < whole.part; ++part) {
      const Share& share = shares[task - whole.part + part];
      for (int64_t r = 0; r < share.dk.rows; ++r) {
        axpy(1.0f, share.dk.row(r), whole.dk.row(r), d);
        axpy(1.0f, share.dv.row(r), whole.dv.row(r), d);
      }
    }
  });
}

}  // namespace brick::kernels
