// Which kernel multiplies a sparse weight: its kept weights alone (sparse_product.h), or its expansion and a dense
// product. One table a process; what was measured, as a plain struct.
#pragma once

#include <array>
#include <cstdint>

#include "brick/kernels/context.h"
#include "brick/tensor/mask.h"

namespace brick::kernels {

// The largest shares of kept weights at which the kept weights alone are faster; 0 for never. All shapes share them.
struct KeptShares {
  double product = 0;   // y = x W^T and dx = dy W
  double gradient = 0;  // dW = dy^T x where a mask keeps it
};

struct KernelTable {
  static constexpr std::array<int64_t, 3> kTokens{8, 32, 128};  // row i: from so many tokens on
  using Rows = std::array<KeptShares, kTokens.size()>;
  Rows f32, bf16;  // by the arithmetic of the dense product

  Rows& rows(Compute compute) { return compute == Compute::kF32 ? f32 : bf16; }
  const Rows& rows(Compute compute) const { return compute == Compute::kF32 ? f32 : bf16; }
};

// AVX2: what `brick bench --calibrate` wrote on two cores of a Zen 3 machine. Others: products as measured on a Zen 4
// machine before lists were cut into stretches; gradients unmeasured, so never.
KernelTable builtin_kernel_table();

// The table in use: at first the built-in one. Set it before the first kernel, not while one runs.
const KernelTable& kernel_table();
void use_kernel_table(const KernelTable& table);

// Whether the kept weights alone, in float32, are faster than the dense product in `compute`.
bool sparse_product_wins(tensor::MaskView mask, int64_t tokens, Compute compute);
bool sampled_product_wins(tensor::MaskView mask, int64_t tokens, Compute compute);

}  // namespace brick::kernels
