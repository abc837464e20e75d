// One implementation of sparse_row.h for each instruction set that can spread packed values over lanes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "brick/kernels/sparse_row.h"

namespace brick::kernels {

struct SparseRowKernels {
  float (*dot)(const uint64_t* mask, const float* packed, const float* x, int64_t cols) noexcept;
  float (*dot_bf16)(const uint64_t* mask, const uint16_t* packed, const float* x, int64_t cols) noexcept;
  void (*dot_bf16_pair)(const SparseBf16Row (&rows)[2], const float* x, int64_t cols, float* out) noexcept;
  void (*expand)(const uint64_t* mask, const float* packed, int64_t cols, float* out) noexcept;
  void (*unpack_parent)(const tensor::SparseView& view, int64_t r, float* out) noexcept;  // of a kParent matrix
  float (*dot_q4_1)(const uint64_t* mask, const std::byte* packed, Int16Row x, int64_t cols, int16_t* memory) noexcept;
  float (*dot_parent)(const tensor::SparseView& view, int64_t r, Int16Row x, int16_t* memory) noexcept;
};

// dot_bf16_pair where two rows at once gain nothing.
template <auto kDotBf16>
void one_by_one(const SparseBf16Row (&rows)[2], const float* x, int64_t cols, float* out) noexcept {
  for (int i = 0; i < 2; ++i) out[i] = kDotBf16(rows[i].mask, rows[i].packed, x, cols);
}

// kSparseRowAvx2Halves: for CPUs that compute 256 bits in two halves.
extern const SparseRowKernels kSparseRowScalar, kSparseRowAvx2, kSparseRowAvx2Halves;

// With x in bfloat16 too.
struct SparseBf16Kernels {
  float (*dot)(const uint64_t* mask, const uint16_t* packed, const uint16_t* x, int64_t cols) noexcept;
  void (*unpack_q4_1)(const std::byte* blocks, int64_t count, uint16_t* out) noexcept;
};
extern const SparseBf16Kernels kSparseBf16Avx512;

}  // namespace brick::kernels
