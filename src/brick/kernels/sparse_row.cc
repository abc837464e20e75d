#include "brick/kernels/sparse_row.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "brick/base/cpu.h"
#include "brick/kernels/sparse_row_impl.h"
#include "brick/kernels/vector_ops.h"
#include "brick/tensor/dtype_table.h"
#include "brick/tensor/mask.h"
#include "brick/tensor/pack.h"

namespace brick::kernels {
namespace {

float dot_scalar(const uint64_t* mask, const float* packed, const float* x, int64_t cols) noexcept {
  float sum = 0;
  tensor::for_each_kept(mask, cols, [&](int64_t c) { sum += *packed++ * x[c]; });
  return sum;
}

float dot_bf16_scalar(const uint64_t* mask, const uint16_t* packed, const float* x, int64_t cols) noexcept {
  float sum = 0;
  tensor::for_each_kept(mask, cols, [&](int64_t c) { sum += tensor::bf16_to_f32(*packed++) * x[c]; });
  return sum;
}

void expand_scalar(const uint64_t* mask, const float* packed, int64_t cols, float* out) noexcept {
  std::memset(out, 0, static_cast<size_t>(cols) * sizeof(float));
  tensor::for_each_kept(mask, cols, [&](int64_t c) { out[c] = *packed++; });
}

float dot_q4_1_scalar(const uint64_t* mask, const std::byte* packed, Int16Row x, int64_t cols, int16_t*) noexcept {
  constexpr int kBlock = tensor::kQuantBlock;
  float block[kBlock], sum = 0;
  int next = kBlock;
  tensor::for_each_kept(mask, cols, [&](int64_t c) {
    if (next == kBlock) {
      tensor::unpack(tensor::DType::kQ4_1, packed, kBlock, block);
      packed += tensor::kBlockBytes<tensor::DType::kQ4_1>;
      next = 0;
    }
    sum += block[next++] * static_cast<float>(x.q[c]);
  });
  return x.scale * sum;
}

void unpack_parent_scalar(const tensor::SparseView& view, int64_t r, float* out) noexcept {
  tensor::for_each_parent_value(view, r, [&](int64_t, float value) { *out++ = value; });
}

float dot_parent_scalar(const tensor::SparseView& view, int64_t r, Int16Row x, int16_t*) noexcept {
  float sum = 0;
  tensor::for_each_parent_value(view, r, [&](int64_t c, float value) { sum += value * static_cast<float>(x.q[c]); });
  return x.scale * sum;
}

// AVX2 on AVX-512 machines too, see sparse_row_avx512.cc.
const SparseRowKernels& chosen() {
  static const SparseRowKernels& kernels = active_isa() < Isa::kAvx2         ? kSparseRowScalar
                                           : __builtin_cpu_is("znver1") != 0 ? kSparseRowAvx2Halves
                                                                             : kSparseRowAvx2;
  return kernels;
}

}  // namespace

const SparseRowKernels kSparseRowScalar{dot_scalar,       dot_bf16_scalar,      one_by_one<dot_bf16_scalar>,
                                        expand_scalar,    unpack_parent_scalar, dot_q4_1_scalar,
                                        dot_parent_scalar};

float sparse_dot(const uint64_t* mask, const float* packed, const float* x, int64_t cols) noexcept {
  return chosen().dot(mask, packed, x, cols);
}

float sparse_dot(const uint64_t* mask, const uint16_t* packed, const float* x, int64_t cols) noexcept {
  return chosen().dot_bf16(mask, packed, x, cols);
}

void sparse_dot_pair(const SparseBf16Row (&rows)[2], const float* x, int64_t cols, float* out) noexcept {
  chosen().dot_bf16_pair(rows, x, cols, out);
}

float largest_magnitude(const float* x, int64_t n) noexcept {
  constexpr int64_t kLanes = 8;  // which the compiler turns into vectors
  float largest_of[kLanes] = {};
  for (int64_t i = 0; i + kLanes <= n; i += kLanes)
    for (int64_t j = 0; j < kLanes; ++j) largest_of[j] = std::max(largest_of[j], std::fabs(x[i + j]));
  float largest = *std::max_element(largest_of, largest_of + kLanes);
  for (int64_t i = n / kLanes * kLanes; i < n; ++i) largest = std::max(largest, std::fabs(x[i]));
  return largest;
}

Int16Row round_to_int16(const float* x, int64_t n, float* memory) noexcept {
  auto* q = reinterpret_cast<int16_t*>(memory);
  const float largest = largest_magnitude(x, n);
  const float inverse = largest > 0 ? 32767.0f / largest : 0.0f;
  // Half away from zero: the conversion cuts.
  for (int64_t i = 0; i < n; ++i)
    q[i] = static_cast<int16_t>(static_cast<int32_t>(x[i] * inverse + std::copysign(0.5f, x[i])));
  return {q, largest / 32767.0f};
}

bool has_sparse_dot_int16() noexcept {
  static const bool has = active_isa() >= Isa::kAvx2;
  return has;
}

float sparse_dot(const uint64_t* mask, const std::byte* packed, Int16Row x, int64_t cols, int16_t* memory) noexcept {
  return chosen().dot_q4_1(mask, packed, x, cols, memory);
}

float sparse_dot(const tensor::SparseView& view, int64_t r, Int16Row x, int16_t* memory) noexcept {
  return chosen().dot_parent(view, r, x, memory);
}

bool has_sparse_dot_bf16() noexcept {
  static const bool has = active_isa() >= Isa::kAvx512Bf16 && __builtin_cpu_supports("avx512vbmi2") != 0;
  return has;
}

float sparse_dot(const uint64_t* mask, const uint16_t* packed, const uint16_t* x, int64_t cols) noexcept {
  return kSparseBf16Avx512.dot(mask, packed, x, cols);
}

void unpack_q4_1_bf16(const std::byte* source, int64_t blocks, uint16_t* out) noexcept {
  kSparseBf16Avx512.unpack_q4_1(source, blocks, out);
}

void sparse_expand(const uint64_t* mask, const float* packed, int64_t cols, float* out) noexcept {
  chosen().expand(mask, packed, cols, out);
}

int64_t packed_count(const tensor::SparseView& view, int64_t r) noexcept {
  if (view.coding == tensor::SparseCoding::kParent) return view.mask.count_row(r);
  const tensor::DTypeInfo& type = tensor::info(view.dtype);
  return static_cast<int64_t>(view.row_offset[r + 1] - view.row_offset[r]) / type.block_bytes * type.block_values;
}

void unpack_packed(const tensor::SparseView& view, int64_t r, float* out) noexcept {
  if (view.coding == tensor::SparseCoding::kParent) return chosen().unpack_parent(view, r, out);
  unpack_values(view.dtype, view.values + view.row_offset[r], packed_count(view, r), out);
}

}  // namespace brick::kernels
