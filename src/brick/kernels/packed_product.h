// Products of activations in bfloat16 with a weight that exists only row by row, which is packed a block at a time
// (packed_block.h) where it is multiplied. Only where has_bf16_arithmetic().
#pragma once

#include <algorithm>
#include <cstdint>

#include "brick/base/parallel.h"
#include "brick/kernels/bf16_ops.h"
#include "brick/kernels/context.h"
#include "brick/kernels/packed_block.h"
#include "brick/kernels/vector_ops.h"

namespace brick::kernels {

constexpr int64_t kPieceValues = 4 << 20;  // of packed rows at a time: 8 MB
constexpr int64_t kManyBlocks = 4;         // a thread
constexpr int64_t kPartRows = 128;         // of activations that are shared out

inline int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }
// Columns of an activation of so many that these products read: what stands behind its own must be finite.
inline int64_t packed_columns(int64_t cols) { return round_up(cols, kBlockRows); }

inline int64_t block_count(int64_t cols) { return (cols + kBlockCols - 1) / kBlockCols; }
inline int64_t block_size(int64_t k) { return round_up(k, kBlockRows) * kBlockCols; }
// Floats that hold so many values of bfloat16, whole cache lines.
inline int64_t half(int64_t values) { return round_up(values, 32) / 2; }

// x^T [x.cols, stride], zeros behind its columns; `memory` of x.cols * stride values.
inline Bf16View turned(ConstBf16View x, int64_t stride, uint16_t* memory) {
  const Bf16View out(memory, x.cols, stride);
  transpose(x, out);
  return out;
}

// c = a b + beta c of blocks that lie one behind the other.
template <class T>
void multiply_packed(ConstBf16View a, const uint16_t* packed, float beta, tensor::BasicMatView<T> c) {
  const int64_t parts = (a.rows + kPartRows - 1) / kPartRows, size = block_size(a.cols);
  parallel_for(block_count(c.cols) * parts, [&](int64_t task) {
    const int64_t block = task / parts, row = task % parts * kPartRows, rows = std::min(kPartRows, a.rows - row);
    const int64_t first = block * kBlockCols;
    multiply_block(a.row_range(row, row + rows), packed + block * size, beta,
                   c.block(row, rows, first, std::min(kBlockCols, c.cols - first)));
  });
}

// Whether each block is packed by the thread that multiplies it, rather than all before any: where the threads end
// together, within a twelfth, or where there are many values.
inline bool packs_apart(int64_t blocks, int64_t size) {
  const int64_t idle = round_up(blocks, threads()) - blocks;
  return (blocks >= kManyBlocks * threads() && 12 * idle <= blocks) ||
         (blocks >= threads() && blocks * size > kPieceValues);
}

// c = a b + beta c: pack(block, out) leaves each block of b [a.cols, c.cols]. `memory` of blocks_memory() values.
template <class Pack, class T>
void multiply_blocks(ConstBf16View a, uint16_t* memory, Pack&& pack, float beta, tensor::BasicMatView<T> c) {
  const int64_t blocks = block_count(c.cols), size = block_size(a.cols);
  if (packs_apart(blocks, size))
    return parallel_for(blocks, [&](int64_t block) {
      uint16_t* own = memory + omp_get_thread_num() * size;
      pack(block, own);
      multiply_block(a, own, beta, c.col_range(block * kBlockCols, std::min((block + 1) * kBlockCols, c.cols)));
    });
  parallel_for(blocks, [&](int64_t block) { pack(block, memory + block * size); });
  multiply_packed(a, memory, beta, c);
}
inline int64_t blocks_memory(int64_t k, int64_t cols) {
  const int64_t blocks = block_count(cols), size = block_size(k);
  return (packs_apart(blocks, size) ? threads() : blocks) * size;
}

// y = x W^T + beta y; write(r, out) leaves row r of W [y.cols, x.cols] as float32. Several threads call it.
template <class Write, class T>
void multiply_by_rows(Context& context, ConstBf16View x, Write&& write, float beta, tensor::BasicMatView<T> y) {
  const int64_t packed = half(blocks_memory(x.cols, y.cols)), row_floats = half(2 * x.cols);
  const int64_t each = row_floats + half(kBlockCols * x.cols);
  float* memory = context.scratch(Context::kWeights, packed + threads() * each);
  multiply_blocks(
      x, reinterpret_cast<uint16_t*>(memory),
      [&](int64_t block, uint16_t* out) {
        float* row = memory + packed + omp_get_thread_num() * each;
        const int64_t first = block * kBlockCols;
        const Bf16View columns(reinterpret_cast<uint16_t*>(row + row_floats), std::min(kBlockCols, y.cols - first),
                               x.cols);
        for (int64_t i = 0; i < columns.rows; ++i) {
          write(first + i, row);
          to_bf16(row, columns.row(i), x.cols);
        }
        pack_columns(columns, out);
      },
      beta, y);
}

// c = a^T b, sums over their rows.
inline void outer_product(Context& context, ConstBf16View a, ConstBf16View b, tensor::MatView c) {
  const int64_t rows = round_up(a.rows, kBlockRows);
  const int64_t turned_floats = half(a.cols * rows), blocks = blocks_memory(rows, b.cols);
  float* memory = context.scratch(Context::kWeights, turned_floats + half(blocks));
  multiply_blocks(
      turned(a, rows, reinterpret_cast<uint16_t*>(memory)), reinterpret_cast<uint16_t*>(memory + turned_floats),
      [&](int64_t block, uint16_t* out) { pack_rows(b, block * kBlockCols, out); }, 0.0f, c);
}

// Rows of a weight of so many columns that are packed at a time.
inline int64_t piece_rows(int64_t cols) {
  return std::max(kBlockRows,
                  kPieceValues / round_up(std::max<int64_t>(cols, 1), kBlockCols) / kBlockRows * kBlockRows);
}

// dx = dy W + beta dx; write(r, out) leaves row r of W [dy.cols, dx.cols].
template <class Write, class T>
void multiply_by_columns(Context& context, ConstBf16View dy, Write&& write, float beta, tensor::BasicMatView<T> dx) {
  const int64_t cols = dx.cols, wide = round_up(cols, kBlockCols);
  const int64_t step = piece_rows(cols);
  for (int64_t begin = 0; begin == 0 || begin < dy.cols; begin += step) {
    const int64_t end = std::min(begin + step, dy.cols), size = block_size(end - begin);
    const int64_t packed_floats = half(block_count(cols) * size);
    float* memory = context.scratch(Context::kWeights, packed_floats + threads() * 2 * wide);
    auto* packed = reinterpret_cast<uint16_t*>(memory);
    parallel_ranges(round_up(end - begin, kBlockRows) / 2, kBlockRows / 2, [&](int64_t first, int64_t last) {
      float* rows = memory + packed_floats + omp_get_thread_num() * 2 * wide;
      std::fill_n(rows, 2 * wide, 0.0f);
      for (int64_t pair = first; pair < last; ++pair) {
        for (int64_t i = 0; i < 2; ++i) {
          const int64_t r = begin + 2 * pair + i;
          if (r < end)
            write(r, rows + i * wide);
          else
            std::fill_n(rows + i * wide, cols, 0.0f);
        }
        pack_row_pair(rows, rows + wide, wide, pair, end - begin, packed);
      }
    });
    multiply_packed(dy.col_range(begin, end), packed, begin == 0 ? beta : 1.0f, dx);
  }
}

}  // namespace brick::kernels
