// One implementation of integer_dot.h for each instruction set that multiplies bytes.
#pragma once

#include "brick/kernels/integer_dot.h"

namespace brick::kernels {

struct IntegerDotKernels {
  using Rows = void (*)(const std::byte* rows, int64_t count, QuantisedRow x, int64_t n, float* out) noexcept;
  Rows q4_0, q4_1, q5_0, q5_1, q8_0, q4_k, q5_k, q6_k;

  Rows of(tensor::DType dtype) const {
    using tensor::DType;
    switch (dtype) {
      case DType::kQ4_0:
        return q4_0;
      case DType::kQ4_1:
        return q4_1;
      case DType::kQ5_0:
        return q5_0;
      case DType::kQ5_1:
        return q5_1;
      case DType::kQ4_K:
        return q4_k;
      case DType::kQ5_K:
        return q5_k;
      case DType::kQ6_K:
        return q6_k;
      default:
        return q8_0;
    }
  }
};
extern const IntegerDotKernels kIntegerDotAvx2, kIntegerDotAvxVnni, kIntegerDotAvx512Vnni;

}  // namespace brick::kernels
