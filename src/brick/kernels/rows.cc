#include "brick/kernels/rows.h"

#include <cstring>

#include "brick/kernels/vector_ops.h"

namespace brick::kernels {

void copy_rows(tensor::ConstMatView from, tensor::MatView to) noexcept {
  for (int64_t r = 0; r < from.rows; ++r)
    std::memcpy(to.row(r), from.row(r), static_cast<size_t>(from.cols) * sizeof(float));
}

void add_bias(std::span<const float> bias, tensor::MatView y) noexcept {
  for (int64_t r = 0; r < y.rows && !bias.empty(); ++r) axpy(1.0f, bias.data(), y.row(r), y.cols);
}

}  // namespace brick::kernels
