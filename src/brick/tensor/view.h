// Views of float32 matrices: they never own, and live as long as what they look at.
#pragma once

#include <cstdint>

namespace brick::tensor {

// Row-major [rows, cols] with `stride` floats between rows.
template <class T>
struct BasicMatView {
  T* data = nullptr;
  int64_t rows = 0, cols = 0, stride = 0;

  BasicMatView() = default;
  BasicMatView(T* first, int64_t row_count, int64_t column_count)
      : BasicMatView(first, row_count, column_count, column_count) {}
  BasicMatView(T* first, int64_t row_count, int64_t column_count, int64_t row_stride)
      : data(first), rows(row_count), cols(column_count), stride(row_stride) {}
  template <class U>
  requires(!__is_same(U, T) && __is_same(const U, T))
      BasicMatView(const BasicMatView<U>& other)  // NOLINT: a mutable view is a const view
      : BasicMatView(other.data, other.rows, other.cols, other.stride) {}

  T* row(int64_t r) const { return data + r * stride; }
  T& operator()(int64_t r, int64_t c) const { return data[r * stride + c]; }
  BasicMatView block(int64_t row0, int64_t row_count, int64_t col0, int64_t col_count) const {
    return {data + row0 * stride + col0, row_count, col_count, stride};
  }
  BasicMatView row_range(int64_t begin, int64_t end) const { return block(begin, end - begin, 0, cols); }
  BasicMatView col_range(int64_t begin, int64_t end) const { return block(0, rows, begin, end - begin); }
};

using MatView = BasicMatView<float>;
using ConstMatView = BasicMatView<const float>;

}  // namespace brick::tensor
