// Rows of a bitmask-sparse matrix against dense vectors. The kept values of the row lie packed; the mask is bit c % 64
// of word c / 64 for column c, no bit beyond the last column.
#pragma once

#include <cstddef>
#include <cstdint>

#include "brick/tensor/sparse.h"

namespace brick::kernels {

// `packed` must be readable to this many values past the last kept one.
inline constexpr int64_t kPackedSlack = 32;

// The row's dot product with x [cols]; the kept values as float32 or bfloat16.
float sparse_dot(const uint64_t* mask, const float* packed, const float* x, int64_t cols) noexcept;
float sparse_dot(const uint64_t* mask, const uint16_t* packed, const float* x, int64_t cols) noexcept;

// The same of two rows, out [2]: each the very number that it is alone.
struct SparseBf16Row {
  const uint64_t* mask;
  const uint16_t* packed;
};
void sparse_dot_pair(const SparseBf16Row (&rows)[2], const float* x, int64_t cols, float* out) noexcept;

// The largest |x|; 0 of none.
float largest_magnitude(const float* x, int64_t n) noexcept;

// n activations as integers, x = scale q, |q| <= 32767; in `memory` of (n + 1) / 2 floats.
struct Int16Row {
  const int16_t* q;
  float scale;
};
Int16Row round_to_int16(const float* x, int64_t n, float* memory) noexcept;

// With the kept values in blocks of Q4_1 and rounded activations: the products of integers within a block are exact.
// `memory` of packed_input_size(cols). Only where has_sparse_dot_int16().
bool has_sparse_dot_int16() noexcept;
inline int64_t packed_input_size(int64_t cols) { return cols + kPackedSlack; }
float sparse_dot(const uint64_t* mask, const std::byte* packed, Int16Row x, int64_t cols, int16_t* memory) noexcept;

// The same of row r of a kParent matrix.
float sparse_dot(const tensor::SparseView& view, int64_t r, Int16Row x, int16_t* memory) noexcept;

// With x in bfloat16 too, summed in float32; only where has_sparse_dot_bf16().
bool has_sparse_dot_bf16() noexcept;
float sparse_dot(const uint64_t* mask, const uint16_t* packed, const uint16_t* x, int64_t cols) noexcept;
// Blocks of Q4_1 as bfloat16, out [32 blocks].
void unpack_q4_1_bf16(const std::byte* source, int64_t blocks, uint16_t* out) noexcept;

// The row with its zeros, out [cols].
void sparse_expand(const uint64_t* mask, const float* packed, int64_t cols, float* out) noexcept;

// Values that row r's kept ones are stored as: they, and what pads their last block.
int64_t packed_count(const tensor::SparseView& view, int64_t r) noexcept;

// The kept values of row r as float32, one behind the other; `out` has room for a row and kPackedSlack.
void unpack_packed(const tensor::SparseView& view, int64_t r, float* out) noexcept;

}  // namespace brick::kernels
