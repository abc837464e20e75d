// What sparse_pairs.cc takes from an instruction set.
#pragma once

#include "brick/kernels/sparse_pairs.h"

namespace brick::kernels {

inline constexpr int64_t kPairLanes = 8;
inline constexpr int64_t kPairBlock = 128;  // columns
inline constexpr int64_t kPlacesBytes = kPairLanes * sizeof(uint32_t);

// out[i] = row i of the pair . x [cols], i < 2.
using PairDot = void (*)(const std::byte* pair, const float* x, int64_t cols, float* out) noexcept;
struct PairKernels {
  PairDot f32, bf16;
};
extern const PairKernels kPairsScalar, kPairsAvx2;

}  // namespace brick::kernels
