// One implementation of integer_dot.h for each instruction set that multiplies bytes.
#pragma once

#include "brick/kernels/integer_dot.h"

namespace brick::kernels {

struct IntegerDotKernels {
  using Rows = void (*)(const std::byte* rows, int64_t count, QuantisedRow x, int64_t n, float* out) noexcept;
  Rows q4_0, q4_1, q8_0;
};
extern const IntegerDotKernels kIntegerDotAvx2, kIntegerDotAvxVnni, kIntegerDotAvx512Vnni;

}  // namespace brick::kernels
