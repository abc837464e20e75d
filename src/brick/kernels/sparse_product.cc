#include "brick/kernels/sparse_product.h"

#include <algorithm>

#include "brick/base/cpu.h"
#include "brick/base/parallel.h"
#include "brick/kernels/sparse_product_impl.h"
#include "brick/kernels/vector_ops.h"

namespace brick::kernels {
namespace {

using tensor::ConstMatView;
using tensor::MatView;

constexpr int64_t kRowGrain = 8;
constexpr int64_t kMostInputs = 192;      // of a stretch: 24 KB of tokens
constexpr int64_t kStretchMultiple = 64;  // so that a stretch is whole words of a mask

int64_t pieces_of(int64_t count, int64_t size) { return (count + size - 1) / size; }
int64_t padded(int64_t count) { return pieces_of(count, kListMultiple) * kListMultiple; }

// A row, or a byte for each bit of its mask.
int64_t row_floats(int64_t cols) { return std::max(cols, 16 * tensor::mask_words(cols)); }

// Inputs of a stretch, at most 255; about equal ones.
int64_t stretch_width(int64_t inputs) {
  const int64_t even = pieces_of(inputs, std::max<int64_t>(1, pieces_of(inputs, kMostInputs)));
  return std::max<int64_t>(1, pieces_of(even, kStretchMultiple)) * kStretchMultiple;
}
int64_t stretches_of(int64_t inputs) { return std::max<int64_t>(1, pieces_of(inputs, stretch_width(inputs))); }

// Lays out begin, weights, and behind them what the listing itself needs.
KeptLists lists_in(const KeptRows& rows, float* memory, int64_t outputs, int64_t inputs, float** rest) {
  KeptLists lists;
  lists.outputs = outputs;
  lists.inputs = inputs;
  lists.stretches = stretches_of(inputs);
  lists.width = stretch_width(inputs);
  lists.begin = reinterpret_cast<int64_t*>(memory);
  lists.weights = reinterpret_cast<KeptWeight*>(lists.begin + lists.stretches * outputs + 1);
  *rest = reinterpret_cast<float*>(lists.weights + list_count(rows));
  return lists;
}

// Calls visit(c) for the kept columns of a stretch of row r.
template <class Visit>
void for_each_kept(tensor::MaskView mask, int64_t r, int64_t begin, int64_t end, Visit&& visit) {
  tensor::for_each_kept(mask.row(r) + begin / 64, end - begin, [&](int64_t c) { visit(begin + c); });
}

void pad(KeptWeight* from, KeptWeight* to, int64_t input) {
  std::fill(from, to, KeptWeight{0.0f, static_cast<uint32_t>(input * kTokensAtATime)});
}

}  // namespace

bool has_sparse_product() noexcept {
  static const bool has = active_isa() >= Isa::kAvx2;
  return has;
}

int64_t KeptLists::kept(int64_t stretch, int64_t o) const {
  const KeptWeight* list = weights + begin[stretch * outputs + o];
  int64_t count = begin[stretch * outputs + o + 1] - begin[stretch * outputs + o];
  while (count > 1 && list[count - 1].offset <= list[count - 2].offset) --count;
  return count;
}

int64_t KeptRows::count() const { return count_bits(mask.row(first), (last - first) * tensor::mask_words(mask.cols)); }

int64_t list_count(const KeptRows& rows) {
  const int64_t outputs = rows.last - rows.first, cols = rows.mask.cols;
  return rows.count() + (kListMultiple - 1) * std::max(outputs * stretches_of(cols), cols * stretches_of(outputs));
}

int64_t list_floats(const KeptRows& rows) {
  const int64_t outputs = rows.last - rows.first, cols = rows.mask.cols;
  // Two floats for each weight, begin, and count; of each thread a row, and a count for each list by column.
  return 2 * (list_count(rows) + 1 + std::max(outputs * stretches_of(cols), cols * stretches_of(outputs))) +
         threads() * (row_floats(cols) + 2 * cols * stretches_of(outputs));
}

KeptLists list_by_row(const KeptRows& rows, float* memory) {
  const int64_t cols = rows.mask.cols, width = stretch_width(cols);
  float* buffers;
  KeptLists lists = lists_in(rows, memory, rows.last - rows.first, cols, &buffers);
  int64_t next = 0;
  for (int64_t s = 0; s < lists.stretches; ++s)
    for (int64_t o = 0; o < lists.outputs; ++o) {
      lists.begin[s * lists.outputs + o] = next;
      const int64_t word = s * width / 64, end = tensor::mask_words(std::min((s + 1) * width, cols));
      next += padded(count_bits(rows.mask.row(rows.first + o) + word, end - word));
    }
  lists.begin[lists.stretches * lists.outputs] = next;
  parallel_ranges(lists.outputs, kRowGrain, [&](int64_t begin, int64_t end) {
    float* row = buffers + omp_get_thread_num() * row_floats(cols);
    if (!rows.write) std::fill_n(row, cols, 1.0f);
    for (int64_t o = begin; o < end; ++o) {
      if (rows.write) rows.write(rows.first + o, row);
      for (int64_t s = 0; s < lists.stretches; ++s) {
        KeptWeight* place = lists.weights + lists.begin[s * lists.outputs + o];
        for_each_kept(rows.mask, rows.first + o, s * width, std::min((s + 1) * width, cols), [&](int64_t c) {
          *place++ = {row[c], static_cast<uint32_t>(c * kTokensAtATime)};
        });
        pad(place, lists.weights + lists.begin[s * lists.outputs + o + 1], s * width);
      }
    }
  });
  return lists;
}

KeptLists list_by_column(const KeptRows& rows, float* memory) {
  const int64_t cols = rows.mask.cols, inputs = rows.last - rows.first, width = stretch_width(inputs);
  float* rest;
  KeptLists lists = lists_in(rows, memory, cols, inputs, &rest);
  const int64_t segments = lists.stretches * cols;
  // [threads, segments]: first each thread's counts, then its next place
  auto* places = reinterpret_cast<int64_t*>(rest);
  float* buffers = rest + 2 * threads() * segments;
  std::fill_n(places, threads() * segments, int64_t{0});
  const int64_t words = tensor::mask_words(cols);
  parallel_ranges(inputs, kRowGrain, [&](int64_t begin, int64_t end) {
    auto* counts = reinterpret_cast<uint8_t*>(buffers + omp_get_thread_num() * row_floats(cols));
    for (int64_t i = begin, next; i < end; i = next) {
      next = std::min((i / width + 1) * width, end);
      kSparseProductAvx2.count_columns(rows.mask.row(rows.first + i), next - i, words, counts);
      std::copy_n(counts, cols, places + omp_get_thread_num() * segments + i / width * cols);
    }
  });
  int64_t next = 0;
  for (int64_t s = 0; s < segments; ++s) {
    lists.begin[s] = next;
    for (int t = 0; t < threads(); ++t) {
      const int64_t count = places[t * segments + s];
      places[t * segments + s] = next;
      next += count;
    }
    const int64_t end = lists.begin[s] + padded(next - lists.begin[s]);
    pad(lists.weights + next, lists.weights + end, s / cols * width);
    next = end;
  }
  lists.begin[segments] = next;
  parallel_ranges(inputs, kRowGrain, [&](int64_t begin, int64_t end) {
    float* row = buffers + omp_get_thread_num() * row_floats(cols);
    if (!rows.write) std::fill_n(row, cols, 1.0f);
    for (int64_t i = begin; i < end; ++i) {
      if (rows.write) rows.write(rows.first + i, row);
      int64_t* place = places + omp_get_thread_num() * segments + i / width * cols;
      rows.mask.for_each_kept(rows.first + i, [&](int64_t c) {
        lists.weights[place[c]++] = {row[c], static_cast<uint32_t>(i * kTokensAtATime)};
      });
    }
  });
  return lists;
}

int64_t block_floats(int64_t tokens, int64_t cols) {
  return TokenBlocks{nullptr, tokens, cols}.blocks() * kTokensAtATime * cols;
}

TokenBlocks block_tokens(ConstMatView x, float* memory) {
  const TokenBlocks out{memory, x.rows, x.cols};
  parallel_ranges(out.blocks(), 1, [&](int64_t first, int64_t last) {
    for (int64_t b = first; b < last; ++b) {
      const int64_t begin = b * kTokensAtATime;
      kSparseProductAvx2.gather(x.row_range(begin, std::min(begin + kTokensAtATime, x.rows)), memory + begin * x.cols);
    }
  });
  return out;
}

void sparse_product(const KeptLists& lists, const TokenBlocks& x, float beta, MatView y) {
  const int64_t blocks = x.blocks(), pieces = pieces_of(lists.outputs, kOutputsAtATime);
  parallel_ranges(pieces * blocks, 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t block = i % blocks, output = i / blocks * kOutputsAtATime;
      const int64_t begin = block * kTokensAtATime;
      kSparseProductAvx2.sum(lists, output, std::min(output + kOutputsAtATime, lists.outputs), x.block(block), beta,
                             y.row_range(begin, std::min(begin + kTokensAtATime, x.tokens)));
    }
  });
}

void sampled_product(const KeptLists& lists, const TokenBlocks& u, const TokenBlocks& v, float* g) {
  std::fill_n(g, lists.count(), 0.0f);
  const int64_t pieces = pieces_of(lists.outputs, kOutputsAtATime);
  parallel_ranges(pieces * lists.stretches, 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t output = i / lists.stretches * kOutputsAtATime;
      for (int64_t b = 0; b < v.blocks(); ++b)
        kSparseProductAvx2.sample(lists, i % lists.stretches, output, std::min(output + kOutputsAtATime, lists.outputs),
                                  u.block(b), v.block(b), g);
    }
  });
}

void sparse_and_sampled_product(const KeptLists& lists, const TokenBlocks& u, const TokenBlocks& v, float beta,
                                MatView y, float* g) {
  std::fill_n(g, lists.count(), 0.0f);
  parallel_ranges(lists.outputs, kRowGrain, [&](int64_t first, int64_t last) {
    for (int64_t output = first; output < last; output += kOutputsAtATime)
      for (int64_t b = 0; b < v.blocks(); ++b) {
        const int64_t begin = b * kTokensAtATime;
        kSparseProductAvx2.sum_and_sample(lists, output, std::min(output + kOutputsAtATime, last), u.block(b),
                                          v.block(b), beta,
                                          y.row_range(begin, std::min(begin + kTokensAtATime, v.tokens)), g);
      }
  });
}

}  // namespace brick::kernels
