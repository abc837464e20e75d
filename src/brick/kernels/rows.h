// Passes over the rows of float32 matrices.
#pragma once

#include <span>

#include "brick/tensor/view.h"

namespace brick::kernels {

// Of equal shapes.
void copy_rows(tensor::ConstMatView from, tensor::MatView to) noexcept;

// Each row of y += bias [cols]; an empty one adds nothing.
void add_bias(std::span<const float> bias, tensor::MatView y) noexcept;

}  // namespace brick::kernels
