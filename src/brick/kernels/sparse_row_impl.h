// One implementation of sparse_row.h for each instruction set that can spread packed values over lanes.
#pragma once

#include <cstdint>

namespace brick::kernels {

struct SparseRowKernels {
  float (*dot)(const uint64_t* mask, const float* packed, const float* x, int64_t cols) noexcept;
  void (*expand)(const uint64_t* mask, const float* packed, int64_t cols, float* out) noexcept;
};

extern const SparseRowKernels kSparseRowScalar, kSparseRowAvx2, kSparseRowAvx512;

}  // namespace brick::kernels
