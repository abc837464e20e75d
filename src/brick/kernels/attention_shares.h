// How attention's work is cut into blocks of queries and, backward, into shares for the threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>

#include "brick/base/parallel.h"
#include "brick/kernels/attention.h"

namespace brick::kernels {

constexpr int64_t kQueryBlock = 64;

inline int64_t visible_keys(const AttentionSpan& span, int64_t query) { return span.keys - span.queries + query + 1; }

inline int64_t longest(std::span<const AttentionSpan> spans) {
  int64_t keys = 0;
  for (const AttentionSpan& span : spans) keys = std::max(keys, span.keys);
  return keys;
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

struct QueryBlock {
  int64_t span = 0, first = 0, count = 0;  // queries [first, +count) of a span
};

// A task of the backward: queries [first, last) of a span, and the heads that share a KV head.
struct Share {
  int64_t span, kv, first, last, part, parts;  // which of its span's and KV head's parts
  int64_t keys;                                // that it sees
  tensor::MatView dk, dv;                      // [keys, head_dim], its own or the result's

  bool owns_sums() const { return part + 1 < parts; }
  void clear_sums() const;
};

int64_t query_blocks(std::span<const AttentionSpan> spans);
void list_query_blocks(std::span<const AttentionSpan> spans, QueryBlock* out);

int64_t share_count(const AttentionShape& shape, std::span<const AttentionSpan> spans);
int64_t share_sums(const AttentionShape& shape, std::span<const AttentionSpan> spans);  // floats that they own
// Those that own their sums take them from `memory`, the others are parts of dk and dv. Returns their number.
int64_t list_shares(const AttentionShape& shape, std::span<const AttentionSpan> spans, float* memory,
                    tensor::MatView dk, tensor::MatView dv, Share* out);
// Adds the sums that shares own to the results, in a fixed order.
void add_up(const Share* shares, int64_t count);

}  // namespace brick::kernels
