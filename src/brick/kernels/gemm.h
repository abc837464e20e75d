// Dense products through oneDNN.
#pragma once

#include "brick/tensor/view.h"

namespace brick::kernels {

enum class Trans : uint8_t { kNo, kYes };

// c = alpha op(a) op(b) + beta c, row-major float32; op transposes where asked. One thread when called from a
// parallel region.
void gemm(Trans trans_a, Trans trans_b, float alpha, tensor::ConstMatView a, tensor::ConstMatView b, float beta,
          tensor::MatView c) noexcept;

}  // namespace brick::kernels
