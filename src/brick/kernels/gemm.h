// Dense products through oneDNN.
#pragma once

#include "brick/tensor/view.h"

namespace brick::kernels {

enum class Trans : uint8_t { kNo, kYes };

// c = alpha op(a) op(b) + beta c, row-major float32; op transposes where asked. One thread when called from a
// parallel region.
void gemm(Trans trans_a, Trans trans_b, float alpha, tensor::ConstMatView a, tensor::ConstMatView b, float beta,
          tensor::MatView c) noexcept;

// bfloat16 operands, float32 sums and result: c = op(a) op(b) + beta c with beta 0 or 1. a is [k, m] when transposed,
// else [m, k]; b is [n, k] when transposed, else [k, n]; rows are dense.
void gemm_bf16(Trans trans_a, Trans trans_b, const uint16_t* a, const uint16_t* b, int64_t m, int64_t n, int64_t k,
               float beta, tensor::MatView c);

}  // namespace brick::kernels
