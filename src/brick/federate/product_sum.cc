#include "brick/federate/product_sum.h"

#include <algorithm>

#include "brick/kernels/gemm.h"

namespace brick::federate {

using kernels::Trans;

// Ranks that are stacked at least: 100 clients of rank 8 are then never summed.
constexpr int64_t kLeastStack = 1024;
// Columns that subspace iteration multiplies by, all steps together: 16 in about 8 products.
constexpr int64_t kIteratedColumns = 128;

ProductSum::ProductSum(int64_t rows, int64_t cols, int64_t most) : rows_(rows), cols_(cols) {
  const int64_t capacity = std::min(most, std::max(kLeastStack, std::min(rows, cols) / 2));
  left_ = tensor::matrix(rows, capacity);
  right_ = tensor::matrix(capacity, cols);
}

void ProductSum::add(double coefficient, const Factor& factor) {
  const double scale = coefficient * factor.scale;
  const int64_t capacity = right_.shape()[0];
  ++terms_;
  for (int64_t begin = 0; begin < factor.a.rows;) {
    if (used_ == capacity) flush();
    const int64_t count = std::min(factor.a.rows - begin, capacity - used_);
    const tensor::MatView left = left_.mat(), right = right_.mat();
    for (int64_t i = 0; i < count; ++i) std::copy_n(factor.a.row(begin + i), cols_, right.row(used_ + i));
    for (int64_t r = 0; r < rows_; ++r)
      std::transform(factor.b.row(r) + begin, factor.b.row(r) + begin + count, left.row(r) + used_,
                     [scale](float x) { return static_cast<float>(scale * x); });
    used_ += count;
    begin += count;
  }
}

void ProductSum::flush() {
  if (sum_.empty()) sum_ = tensor::matrix(rows_, cols_);
  kernels::gemm(Trans::kNo, Trans::kNo, 1.0f, left_.mat().col_range(0, used_), right_.mat().row_range(0, used_),
                summed_ ? 1.0f : 0.0f, sum_.mat());
  summed_ = true;
  used_ = 0;
}

tensor::ConstMatView ProductSum::dense() {
  if (used_ > 0 || !summed_) flush();
  return sum_.mat();
}

void ProductSum::clear() {
  used_ = terms_ = 0;
  summed_ = false;
}

LowRank ProductSum::svd(int64_t rank, uint64_t seed) {
  if (terms_ == 0) return {tensor::matrix(rows_, 1), tensor::matrix(1, cols_), {0.0}, 0};
  if (summed_) return truncated_svd(dense(), rank, seed);
  const Factor stacked{1.0, left_.mat().col_range(0, used_), right_.mat().row_range(0, used_)};
  if (terms_ == 1 || thin_enough(rows_, cols_, used_)) return thin_svd({&stacked, 1}, rank);
  const int64_t by_factors = used_ * (rows_ + cols_) * kIteratedColumns;
  const int64_t by_sum = rows_ * cols_ * (used_ + kIteratedColumns);
  if (by_factors < by_sum) return truncated_svd(FactorMap(stacked), rank, seed);
  return truncated_svd(dense(), rank, seed);
}

}  // namespace brick::federate
