// Single passes over float32 vectors, by instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "brick/tensor/dtype.h"

namespace brick::kernels {

float dot(const float* a, const float* b, int64_t n) noexcept;
float sum_squares(const float* a, int64_t n) noexcept;
void axpy(float alpha, const float* x, float* y, int64_t n) noexcept;  // y += alpha x
void scale(float alpha, float* x, int64_t n) noexcept;
void multiply(const float* a, const float* b, float* out, int64_t n) noexcept;
float max_value(const float* x, int64_t n) noexcept;       // n > 0
float exp_sum(float shift, float* x, int64_t n) noexcept;  // x = exp(x - shift); returns the sum
bool all_finite(const float* x, int64_t n) noexcept;

int64_t count_bits(const uint64_t* words, int64_t n) noexcept;

// Decodes whole blocks of any float or block format: the fast twin of tensor::unpack.
void unpack_values(tensor::DType dtype, const std::byte* source, int64_t count, float* out) noexcept;

// To bfloat16, nearest even.
void to_bf16(const float* x, uint16_t* out, int64_t n) noexcept;

void round_to_bf16(float* x, int64_t n) noexcept;  // the same in place, as float32

// Each value to one of its two neighbours in bfloat16, the nearer the likelier, so that what is far below their
// distance is kept on average; beyond the largest, infinity is one. NaN stays. The numbers that decide are those of
// (row, column): the same in every call.
void dither_to_bf16(int64_t row, float* x, int64_t n) noexcept;

const char* simd_target();  // the instruction set that dispatch chose, in Highway's words

}  // namespace brick::kernels
