// What sparse_product.cc takes from an instruction set.
#pragma once

#include "brick/kernels/sparse_product.h"

namespace brick::kernels {

inline constexpr int64_t kTokensAtATime = 32;

struct SparseProductKernels {
  // x [tokens <= 32, cols] -> out [cols, 32], zeros where there is no token.
  void (*gather)(tensor::ConstMatView x, float* out) noexcept;
  // y [tokens <= 32, outputs of [begin, end)] = the lists' sums over `inputs` [lists.inputs, 32] + beta y.
  void (*sum)(const KeptLists& lists, int64_t begin, int64_t end, const float* inputs, float beta,
              tensor::MatView y) noexcept;
};

extern const SparseProductKernels kSparseProductAvx2;

}  // namespace brick::kernels
