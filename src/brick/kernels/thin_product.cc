#include "brick/kernels/thin_product.h"

#include <algorithm>

#include "brick/kernels/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "brick/kernels/thin_product.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace brick::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using tensor::ConstMatView;
using tensor::MatView;
using Thin = hn::CappedTag<float, kThinColumns>;

template <int kRows>
void ThinRows(float scale, ConstMatView x, ConstMatView b, MatView out, int64_t row) {
  const Thin d;
  for (int64_t w = 0; w < b.cols; w += static_cast<int64_t>(hn::Lanes(d))) {
    hn::Vec<Thin> sums[kRows];
    for (auto& sum : sums) sum = hn::Zero(d);
    for (int64_t i = 0; i < x.cols; ++i) {
      const auto factor = hn::LoadU(d, b.row(i) + w);
      for (int r = 0; r < kRows; ++r) sums[r] = hn::MulAdd(hn::Set(d, x.row(row + r)[i]), factor, sums[r]);
    }
    for (int r = 0; r < kRows; ++r) hn::StoreU(hn::Mul(hn::Set(d, scale), sums[r]), d, out.row(row + r) + w);
  }
}

void ThinProduct(float scale, ConstMatView x, ConstMatView b, MatView out) {
  constexpr int kRows = 8;
  int64_t row = 0;
  for (; row + kRows <= x.rows; row += kRows) ThinRows<kRows>(scale, x, b, out, row);
  for (; row < x.rows; ++row) ThinRows<1>(scale, x, b, out, row);
}

// Rows w and w + 1 of out += kRows rows of h^T y, at columns [begin, end).
template <int kRows>
void OuterRows(ConstMatView h, ConstMatView y, MatView out, int64_t row, int64_t w, int64_t begin, int64_t end) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  hn::Vec<decltype(d)> left[kRows], right[kRows];
  for (int r = 0; r < kRows; ++r) {
    left[r] = hn::Set(d, h(row + r, w));
    right[r] = hn::Set(d, h(row + r, w + 1));
  }
  float *left_out = out.row(w), *right_out = out.row(w + 1);
  int64_t c = begin;
  for (; c + lanes <= end; c += lanes) {
    auto left_sum = hn::LoadU(d, left_out + c), right_sum = hn::LoadU(d, right_out + c);
    for (int r = 0; r < kRows; ++r) {
      const auto value = hn::LoadU(d, y.row(row + r) + c);
      left_sum = hn::MulAdd(left[r], value, left_sum);
      right_sum = hn::MulAdd(right[r], value, right_sum);
    }
    hn::StoreU(left_sum, d, left_out + c);
    hn::StoreU(right_sum, d, right_out + c);
  }
  for (; c < end; ++c)
    for (int r = 0; r < kRows; ++r) {
      left_out[c] += h(row + r, w) * y(row + r, c);
      right_out[c] += h(row + r, w + 1) * y(row + r, c);
    }
}

void ThinOuterProduct(ConstMatView h, ConstMatView y, MatView out) {
  constexpr int kRows = 4;
  constexpr int64_t kColumns = 512;  // so that they stay in the first cache over all rows
  for (int64_t begin = 0; begin < y.cols; begin += kColumns) {
    const int64_t end = std::min(begin + kColumns, y.cols);
    int64_t row = 0;
    for (; row + kRows <= y.rows; row += kRows)
      for (int64_t w = 0; w < h.cols; w += 2) OuterRows<kRows>(h, y, out, row, w, begin, end);
    for (; row < y.rows; ++row)
      for (int64_t w = 0; w < h.cols; w += 2) OuterRows<1>(h, y, out, row, w, begin, end);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace brick::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace brick::kernels {

HWY_EXPORT(ThinProduct);
HWY_EXPORT(ThinOuterProduct);

void thin_product(float scale, tensor::ConstMatView x, tensor::ConstMatView b, tensor::MatView out) noexcept {
  HWY_DYNAMIC_DISPATCH(ThinProduct)(scale, x, b, out);
}

void thin_outer_product(tensor::ConstMatView h, tensor::ConstMatView y, tensor::MatView out) noexcept {
  HWY_DYNAMIC_DISPATCH(ThinOuterProduct)(h, y, out);
}

}  // namespace brick::kernels
#endif
