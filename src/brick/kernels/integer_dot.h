// Rows of GGUF's block formats times activations rounded to int8, in integer instructions. As ggml does for speed, each
// block of 32 activations has a scale d = max |x| / 127 and q = round(x / d); the products of integers are exact.
#pragma once

#include <cstddef>
#include <cstdint>

#include "brick/base/cpu.h"
#include "brick/tensor/dtype.h"

namespace brick::kernels {

// n activations, n a multiple of kQuantBlock: q [n]; scales [n / kQuantBlock][2] = d and d times the sum of q.
struct QuantisedRow {
  const int8_t* q;
  const float* scales;
};

// Whether this machine multiplies rows of that type so: all block formats with AVX2 or more.
bool has_integer_dot(tensor::DType dtype) noexcept;

// Memory for QuantisedRow of n activations, in floats, and its making there.
inline int64_t quantised_floats(int64_t n) { return n / 4 + n / tensor::kQuantBlock * 2; }
QuantisedRow quantise_row(const float* x, int64_t n, float* memory) noexcept;

// out[i] = row i . x, `count` rows of n values, row_bytes(dtype, n) apart. Only where has_integer_dot().
void integer_dots(tensor::DType dtype, const std::byte* rows, int64_t count, QuantisedRow x, int64_t n,
                  float* out) noexcept;

}  // namespace brick::kernels
