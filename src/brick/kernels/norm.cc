#include "brick/kernels/norm.h"

#include <cmath>

#include "brick/base/parallel.h"
#include "brick/kernels/simd_targets.h"
#include "brick/kernels/vector_ops.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "brick/kernels/norm.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace brick::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

void NormRow(const float* x, const float* w, float r, float* y, int64_t n) {
  const hn::ScalableTag<float> f;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(f));
  const auto vr = hn::Set(f, r);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    hn::StoreU(hn::Mul(hn::Mul(hn::LoadU(f, x + i), vr), hn::LoadU(f, w + i)), f, y + i);
  for (; i < n; ++i) y[i] = x[i] * r * w[i];
}

void NormRowBackward(const float* x, const float* w, float r, const float* dy, float* dx, int64_t n) {
  const hn::ScalableTag<float> f;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(f));
  auto sum = hn::Zero(f);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    sum = hn::MulAdd(hn::Mul(hn::LoadU(f, dy + i), hn::LoadU(f, w + i)), hn::LoadU(f, x + i), sum);
  float projection = hn::GetLane(hn::SumOfLanes(f, sum));
  for (; i < n; ++i) projection += dy[i] * w[i] * x[i];
  const float c = -projection * r * r * r / static_cast<float>(n);
  const auto vr = hn::Set(f, r), vc = hn::Set(f, c);
  for (i = 0; i + lanes <= n; i += lanes) {
    const auto scaled = hn::Mul(hn::Mul(hn::LoadU(f, dy + i), hn::LoadU(f, w + i)), vr);
    hn::StoreU(hn::Add(hn::LoadU(f, dx + i), hn::MulAdd(hn::LoadU(f, x + i), vc, scaled)), f, dx + i);
  }
  for (; i < n; ++i) dx[i] += dy[i] * w[i] * r + x[i] * c;
}

}  // namespace HWY_NAMESPACE
}  // namespace brick::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace brick::kernels {

HWY_EXPORT(NormRow);
HWY_EXPORT(NormRowBackward);

namespace {
constexpr int64_t kRowGrain = 16;
}

void rms_norm(tensor::ConstMatView x, const float* weight, float eps, tensor::MatView y, float* inverse_rms) noexcept {
  parallel_ranges(x.rows, kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float mean = sum_squares(x.row(t), x.cols) / static_cast<float>(x.cols);
      inverse_rms[t] = 1.0f / std::sqrt(mean + eps);
      HWY_DYNAMIC_DISPATCH(NormRow)(x.row(t), weight, inverse_rms[t], y.row(t), x.cols);
    }
  });
}

void rms_norm_backward(tensor::ConstMatView x, const float* weight, const float* inverse_rms, tensor::ConstMatView dy,
                       tensor::MatView dx) noexcept {
  parallel_ranges(x.rows, kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      HWY_DYNAMIC_DISPATCH(NormRowBackward)(x.row(t), weight, inverse_rms[t], dy.row(t), dx.row(t), x.cols);
  });
}

}  // namespace brick::kernels
#endif  // HWY_ONCE
