// Dot products of float32 vectors with encoded rows, decoded in registers: what a decode step of one token consists of.
#pragma once

#include <cstddef>
#include <cstdint>

#include "brick/tensor/dtype.h"

namespace brick::kernels {

// True for the encodings that dot_encoded() reads.
bool has_encoded_dot(tensor::DType dtype) noexcept;

// out[i] = the sum of block i of x, blocks of kQuantBlock values; n a multiple of it.
void block_sums(const float* x, int64_t n, float* out) noexcept;

// row . x over n values (whole blocks of the encoding), float32 sums. `sums`: block_sums of x, used by Q4_0 and Q4_1.
float dot_encoded(tensor::DType dtype, const std::byte* row, const float* x, const float* sums, int64_t n) noexcept;

}  // namespace brick::kernels
