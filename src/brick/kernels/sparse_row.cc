#include "brick/kernels/sparse_row.h"

#include <bit>
#include <cstring>

#include "brick/base/cpu.h"
#include "brick/kernels/sparse_row_impl.h"

namespace brick::kernels {
namespace {

template <class Body>
void for_each_kept(const uint64_t* mask, int64_t cols, Body&& body) {
  for (int64_t begin = 0; begin < cols; begin += 64)
    for (uint64_t bits = mask[begin / 64]; bits != 0; bits &= bits - 1) body(begin + std::countr_zero(bits));
}

float dot_scalar(const uint64_t* mask, const float* packed, const float* x, int64_t cols) noexcept {
  float sum = 0;
  for_each_kept(mask, cols, [&](int64_t c) { sum += *packed++ * x[c]; });
  return sum;
}

void expand_scalar(const uint64_t* mask, const float* packed, int64_t cols, float* out) noexcept {
  std::memset(out, 0, static_cast<size_t>(cols) * sizeof(float));
  for_each_kept(mask, cols, [&](int64_t c) { out[c] = *packed++; });
}

const SparseRowKernels& chosen() {
  static const SparseRowKernels& kernels = active_isa() >= Isa::kAvx512 ? kSparseRowAvx512
                                           : active_isa() >= Isa::kAvx2 ? kSparseRowAvx2
                                                                        : kSparseRowScalar;
  return kernels;
}

}  // namespace

const SparseRowKernels kSparseRowScalar{dot_scalar, expand_scalar};

float sparse_dot(const uint64_t* mask, const float* packed, const float* x, int64_t cols) noexcept {
  return chosen().dot(mask, packed, x, cols);
}

void sparse_expand(const uint64_t* mask, const float* packed, int64_t cols, float* out) noexcept {
  chosen().expand(mask, packed, cols, out);
}

}  // namespace brick::kernels
