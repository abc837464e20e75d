#include "brick/kernels/sparse_product.h"

#include <algorithm>

#include "brick/base/cpu.h"
#include "brick/base/parallel.h"
#include "brick/kernels/sparse_product_impl.h"

namespace brick::kernels {
namespace {

using tensor::ConstMatView;
using tensor::MatView;

constexpr int64_t kRowGrain = 8;
constexpr int64_t kOutputsAtATime = 96;

int64_t blocks_of(int64_t tokens) { return (tokens + kTokensAtATime - 1) / kTokensAtATime; }

// Lays out weights, begin, and behind them what the listing itself needs.
KeptLists lists_in(float* memory, int64_t kept, int64_t outputs, int64_t inputs, float** rest) {
  KeptLists lists;
  lists.begin = reinterpret_cast<int64_t*>(memory);
  lists.weights = reinterpret_cast<KeptWeight*>(lists.begin + outputs + 1);
  lists.outputs = outputs;
  lists.inputs = inputs;
  *rest = reinterpret_cast<float*>(lists.weights + kept);
  return lists;
}

}  // namespace

bool has_sparse_product() noexcept {
  static const bool has = active_isa() >= Isa::kAvx2;
  return has;
}

int64_t KeptRows::count() const {
  int64_t kept = 0;
  for (int64_t r = first; r < last; ++r) kept += mask.count_row(r);
  return kept;
}

int64_t list_floats(const KeptRows& rows) {
  const int64_t outputs = std::max(rows.last - rows.first, rows.mask.cols);
  // Of each thread: a row, and a count for each column (two floats each).
  return 2 * (rows.count() + outputs + 1) + 3 * threads() * rows.mask.cols;
}

KeptLists list_by_row(const KeptRows& rows, float* memory) {
  const int64_t cols = rows.mask.cols;
  float* buffers;
  KeptLists lists = lists_in(memory, rows.count(), rows.last - rows.first, cols, &buffers);
  lists.begin[0] = 0;
  for (int64_t o = 0; o < lists.outputs; ++o) lists.begin[o + 1] = lists.begin[o] + rows.mask.count_row(rows.first + o);
  parallel_ranges(lists.outputs, kRowGrain, [&](int64_t begin, int64_t end) {
    float* row = buffers + omp_get_thread_num() * cols;
    for (int64_t o = begin; o < end; ++o) {
      rows.write(rows.first + o, row);
      KeptWeight* next = lists.weights + lists.begin[o];
      rows.mask.for_each_kept(rows.first + o, [&](int64_t c) {
        *next++ = {row[c], static_cast<uint32_t>(c * kTokensAtATime)};
      });
    }
  });
  return lists;
}

KeptLists list_by_column(const KeptRows& rows, float* memory) {
  const int64_t cols = rows.mask.cols, inputs = rows.last - rows.first;
  float* rest;
  KeptLists lists = lists_in(memory, rows.count(), cols, inputs, &rest);
  auto* places = reinterpret_cast<int64_t*>(rest);  // [threads, cols]: first each thread's counts, then its next place
  float* buffers = rest + 2 * threads() * cols;
  std::fill_n(places, threads() * cols, int64_t{0});
  parallel_ranges(inputs, kRowGrain, [&](int64_t begin, int64_t end) {
    int64_t* counts = places + omp_get_thread_num() * cols;
    for (int64_t i = begin; i < end; ++i) rows.mask.for_each_kept(rows.first + i, [&](int64_t c) { ++counts[c]; });
  });
  int64_t next = 0;
  for (int64_t c = 0; c < cols; ++c) {
    lists.begin[c] = next;
    for (int t = 0; t < threads(); ++t) {
      const int64_t count = places[t * cols + c];
      places[t * cols + c] = next;
      next += count;
    }
  }
  lists.begin[cols] = next;
  parallel_ranges(inputs, kRowGrain, [&](int64_t begin, int64_t end) {
    int64_t* place = places + omp_get_thread_num() * cols;
    float* row = buffers + omp_get_thread_num() * cols;
    for (int64_t i = begin; i < end; ++i) {
      rows.write(rows.first + i, row);
      rows.mask.for_each_kept(rows.first + i, [&](int64_t c) {
        lists.weights[place[c]++] = {row[c], static_cast<uint32_t>(i * kTokensAtATime)};
      });
    }
  });
  return lists;
}

int64_t input_floats(int64_t tokens, int64_t inputs) { return blocks_of(tokens) * kTokensAtATime * inputs; }

void sparse_product(const KeptLists& lists, ConstMatView x, float beta, MatView y, float* memory) {
  const SparseProductKernels& kernels = kSparseProductAvx2;
  const int64_t blocks = blocks_of(x.rows), block_floats = lists.inputs * kTokensAtATime;
  const auto tokens_of = [&](int64_t b) {
    return std::pair(b * kTokensAtATime, std::min((b + 1) * kTokensAtATime, x.rows));
  };
  parallel_ranges(blocks, 1, [&](int64_t first, int64_t last) {
    for (int64_t b = first; b < last; ++b) {
      const auto [begin, end] = tokens_of(b);
      kernels.gather(x.row_range(begin, end), memory + b * block_floats);
    }
  });
  // Outputs in pieces too, so that few tokens keep several threads busy.
  const int64_t pieces = (lists.outputs + kOutputsAtATime - 1) / kOutputsAtATime;
  parallel_ranges(blocks * pieces, 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const auto [begin, end] = tokens_of(i / pieces);
      const int64_t output = i % pieces * kOutputsAtATime;
      kernels.sum(lists, output, std::min(output + kOutputsAtATime, lists.outputs), memory + i / pieces * block_floats,
                  beta, y.row_range(begin, end));
    }
  });
}

}  // namespace brick::kernels
