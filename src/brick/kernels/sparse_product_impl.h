// What sparse_product.cc takes from an instruction set.
#pragma once

#include "brick/kernels/sparse_product.h"

namespace brick::kernels {

inline constexpr int64_t kListMultiple = 4;      // of the weights in a list
inline constexpr int64_t kOutputsAtATime = 128;  // their lists stay in the second-level cache while all tokens pass

struct SparseProductKernels {
  // counts[c] = the rows of [0, rows), at most 255, that keep column c; mask rows of `words`, counts [64 words].
  void (*count_columns)(const uint64_t* mask, int64_t rows, int64_t words, uint8_t* counts) noexcept;
  // x [tokens <= 32, cols] -> out [cols, 32], zeros where there is no token.
  void (*gather)(tensor::ConstMatView x, float* out) noexcept;
  // y [tokens <= 32, outputs of [begin, end), at most kOutputsAtATime] = the lists' sums over `inputs`
  // [lists.inputs, 32] + beta y.
  void (*sum)(const KeptLists& lists, int64_t begin, int64_t end, const float* inputs, float beta,
              tensor::MatView y) noexcept;
  // g[k] += the products of 32 tokens, for the weights of outputs [begin, end) in one stretch; u [lists.outputs, 32],
  // v [lists.inputs, 32]. All products expect the next block of tokens behind this one.
  void (*sample)(const KeptLists& lists, int64_t stretch, int64_t begin, int64_t end, const float* u, const float* v,
                 float* g) noexcept;
  // Both, for all stretches: y as sum() of v.
  void (*sum_and_sample)(const KeptLists& lists, int64_t begin, int64_t end, const float* u, const float* v, float beta,
                         tensor::MatView y, float* g) noexcept;
};

extern const SparseProductKernels kSparseProductAvx2;

}  // namespace brick::kernels
