// Products with a matrix of few columns, as a LoRA branch's gradients need them. One thread; callers split the rows or
// the columns.
#pragma once

#include <cstdint>

#include "brick/tensor/view.h"

namespace brick::kernels {

inline constexpr int64_t kThinColumns = 8;  // thin matrices are as wide as a multiple of it, padded with zeros

constexpr int64_t thin_width(int64_t rank) { return (rank + kThinColumns - 1) / kThinColumns * kThinColumns; }

// out = scale x b; x [T, n], b [n, w], out [T, w], w = thin_width().
void thin_product(float scale, tensor::ConstMatView x, tensor::ConstMatView b, tensor::MatView out) noexcept;

// out += h^T y; h [T, w], y [T, n], out [w, n], w = thin_width().
void thin_outer_product(tensor::ConstMatView h, tensor::ConstMatView y, tensor::MatView out) noexcept;

}  // namespace brick::kernels
