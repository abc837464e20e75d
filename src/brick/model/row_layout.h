// Which rows of a batch have queries in a layer, and how their rows move together and back.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "brick/kernels/attention.h"
#include "brick/tensor/view.h"

namespace brick::model {

struct RowLayout {
  std::vector<kernels::AttentionSpan> spans;
  std::vector<int32_t> positions;

  int64_t rows() const { return static_cast<int64_t>(positions.size()); }
};

// Where the queries of a sequence lie among all its rows.
inline int64_t first_query(const kernels::AttentionSpan& span) { return span.key_begin + span.keys - span.queries; }

// The rows of x that have queries move to the front, sequence behind sequence.
template <class T>
void gather(std::span<const kernels::AttentionSpan> spans, tensor::BasicMatView<T> x) {
  for (const kernels::AttentionSpan& span : spans)
    for (int64_t i = 0; i < span.queries && first_query(span) != span.query_begin; ++i)
      std::copy_n(x.row(first_query(span) + i), x.cols, x.row(span.query_begin + i));
}
// And back; the others become 0.
template <class T>
void scatter(std::span<const kernels::AttentionSpan> spans, tensor::BasicMatView<T> x) {
  for (auto span = spans.rbegin(); span != spans.rend(); ++span) {
    const int64_t to = first_query(*span);
    for (int64_t i = span->queries - 1; i >= 0 && to != span->query_begin; --i)
      std::copy_n(x.row(span->query_begin + i), x.cols, x.row(to + i));
    for (int64_t t = span->key_begin; t < to; ++t) std::fill_n(x.row(t), x.cols, T{0});
  }
}

}  // namespace brick::model
