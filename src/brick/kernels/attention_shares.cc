#include "brick/kernels/attention_shares.h"

#include <algorithm>
#include <cmath>

#include "brick/base/parallel.h"
#include "brick/kernels/vector_ops.h"

namespace brick::kernels {
namespace {

using tensor::MatView;

constexpr int64_t kSharesAThread = 6;  // with fewer, threads wait long for the last one

int64_t block_count(const AttentionSpan& span) { return (span.queries + kQueryBlock - 1) / kQueryBlock; }

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

int64_t query_blocks(std::span<const AttentionSpan> spans) {
  int64_t count = 0;
  for (const AttentionSpan& span : spans) count += block_count(span);
  return count;
}

void list_query_blocks(std::span<const AttentionSpan> spans, QueryBlock* out) {
  for (size_t s = 0; s < spans.size(); ++s)
    for (int64_t first = 0; first < spans[s].queries; first += kQueryBlock)
      *out++ = {static_cast<int64_t>(s), first, std::min(kQueryBlock, spans[s].queries - first)};
}

void Share::clear_sums() const {
  for (int64_t r = 0; r < dk.rows; ++r) {
    std::fill_n(dk.row(r), dk.cols, 0.0f);
    std::fill_n(dv.row(r), dv.cols, 0.0f);
  }
}

int64_t share_count(const AttentionShape& shape, std::span<const AttentionSpan> spans) {
  int64_t count = 0;
  for_each_share(shape, spans, [&](const Share&) { ++count; });
  return count;
}

int64_t share_sums(const AttentionShape& shape, std::span<const AttentionSpan> spans) {
  int64_t sums = 0;
  for_each_share(shape, spans,
                 [&](const Share& share) { sums += share.owns_sums() ? 2 * share.keys * shape.head_dim : 0; });
  return sums;
}

int64_t list_shares(const AttentionShape& shape, std::span<const AttentionSpan> spans, float* memory, MatView dk,
                    MatView dv, Share* out) {
  const int64_t d = shape.head_dim;
  const Share* first = out;
  for_each_share(shape, spans, [&](Share share) {
    if (share.owns_sums()) {
      share.dk = {memory, share.keys, d};
      share.dv = {memory + share.keys * d, share.keys, d};
      memory += 2 * share.keys * d;
    } else {
      const int64_t key_begin = spans[static_cast<size_t>(share.span)].key_begin;
      share.dk = dk.block(key_begin, share.keys, share.kv * d, d);
      share.dv = dv.block(key_begin, share.keys, share.kv * d, d);
    }
    *out++ = share;
  });
  return out - first;
}

void add_up(const Share* shares, int64_t count) {
  parallel_for(count, [&](int64_t task) {
    const Share& whole = shares[task];
    if (whole.owns_sums()) return;
    for (int64_t part = 0; part < whole.part; ++part) {
      const Share& share = shares[task - whole.part + part];
      for (int64_t r = 0; r < share.dk.rows; ++r) {
        axpy(1.0f, share.dk.row(r), whole.dk.row(r), share.dk.cols);
        axpy(1.0f, share.dv.row(r), whole.dv.row(r), share.dv.cols);
      }
    }
  });
}

}  // namespace brick::kernels
