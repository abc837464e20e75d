// Matrices held in bfloat16, with room behind each row.
#pragma once

#include <vector>

#include "brick/kernels/bf16_view.h"
#include "brick/tensor/dtype.h"
#include "kernels/test_util.h"

namespace brick::kernels {

class Bf16Grid {
 public:
  explicit Bf16Grid(const Grid& values, int64_t room = 64)
      : rows_(values.rows()),
        cols_(values.cols()),
        stride_(cols_ + room),
        memory_(static_cast<size_t>(rows_ * stride_)) {
    for (int64_t r = 0; r < rows_; ++r)
      for (int64_t c = 0; c < cols_; ++c) view()(r, c) = tensor::f32_to_bf16(values(r, c));
  }
  Bf16Grid(int64_t rows, int64_t cols) : Bf16Grid(Grid(rows, cols, 0.0f)) {}

  Bf16View view() { return {memory_.data(), rows_, cols_, stride_}; }
  ConstBf16View view() const { return {memory_.data(), rows_, cols_, stride_}; }
  Grid values() const {
    Grid out(rows_, cols_);
    for (int64_t r = 0; r < rows_; ++r)
      for (int64_t c = 0; c < cols_; ++c) out(r, c) = tensor::bf16_to_f32(view()(r, c));
    return out;
  }

 private:
  int64_t rows_, cols_, stride_;
  std::vector<uint16_t> memory_;
};

// As they are after rounding.
inline Grid rounded(const Grid& values) { return Bf16Grid(values).values(); }

constexpr double kBf16Half = 0x1p-8;  // of a value: half a unit in its last place, at most

}  // namespace brick::kernels
