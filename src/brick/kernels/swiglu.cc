#include "brick/kernels/swiglu.h"

#include <cmath>

#include "brick/base/parallel.h"
#include "brick/kernels/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "brick/kernels/swiglu.cc"
// foreach_target comes first.
// clang-format off
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
#include <hwy/contrib/math/math-inl.h>
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace brick::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class V>
HWY_INLINE V Sigmoid(hn::ScalableTag<float> f, V g) {
  const auto one = hn::Set(f, 1.0f);
  // Highway's Exp turns to nonsense beyond 104; at 100 it is infinite already and the sigmoid zero.
  const auto exponent = hn::Min(hn::Neg(g), hn::Set(f, 100.0f));
  return hn::Div(one, hn::Add(one, hn::Exp(f, exponent)));
}

void SwigluRow(const float* g, const float* u, float* y, int64_t n) {
  const hn::ScalableTag<float> f;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(f));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto vg = hn::LoadU(f, g + i);
    hn::StoreU(hn::Mul(hn::Mul(vg, Sigmoid(f, vg)), hn::LoadU(f, u + i)), f, y + i);
  }
  for (; i < n; ++i) y[i] = g[i] / (1.0f + std::exp(-g[i])) * u[i];
}

void SwigluRowBackward(const float* g, const float* u, const float* dy, float* dg, float* du, int64_t n) {
  const hn::ScalableTag<float> f;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(f));
  const auto one = hn::Set(f, 1.0f);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto vg = hn::LoadU(f, g + i), vu = hn::LoadU(f, u + i), vd = hn::LoadU(f, dy + i);
    const auto s = Sigmoid(f, vg);
    const auto slope = hn::Mul(s, hn::MulAdd(vg, hn::Sub(one, s), one));
    hn::StoreU(hn::Mul(vd, hn::Mul(vg, s)), f, du + i);
    hn::StoreU(hn::Mul(hn::Mul(vd, vu), slope), f, dg + i);
  }
  for (; i < n; ++i) {
    const float gate = g[i], s = 1.0f / (1.0f + std::exp(-gate)), up = u[i];
    du[i] = dy[i] * gate * s;
    dg[i] = dy[i] * up * s * (1.0f + gate * (1.0f - s));
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace brick::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace brick::kernels {

HWY_EXPORT(SwigluRow);
HWY_EXPORT(SwigluRowBackward);

namespace {
constexpr int64_t kRowGrain = 8;
}

void swiglu(tensor::ConstMatView gate, tensor::ConstMatView up, tensor::MatView y) noexcept {
  parallel_ranges(gate.rows, kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) HWY_DYNAMIC_DISPATCH(SwigluRow)(gate.row(t), up.row(t), y.row(t), gate.cols);
  });
}

void swiglu_backward(tensor::ConstMatView gate, tensor::ConstMatView up, tensor::ConstMatView dy, tensor::MatView dgate,
                     tensor::MatView dup) noexcept {
  parallel_ranges(gate.rows, kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) HWY_DYNAMIC_DISPATCH(SwigluRowBackward)
    (gate.row(t), up.row(t), dy.row(t), dgate.row(t), dup.row(t), gate.cols);
  });
}

}  // namespace brick::kernels
#endif  // HWY_ONCE
