#include "brick/kernels/integer_dot.h"

#include "brick/kernels/integer_dot_impl.h"
#include "brick/kernels/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "brick/kernels/integer_dot.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace brick::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using tensor::kQuantBlock;

// Writes d and d times the sum of q for each block.
void QuantiseRow(const float* x, int64_t n, int8_t* q, float* scales) {
  const hn::ScalableTag<float> f;
  const hn::Rebind<int32_t, decltype(f)> i32;
  const hn::Rebind<int8_t, decltype(f)> i8;
  const int lanes = static_cast<int>(hn::Lanes(f));
  for (int64_t i = 0; i < n; i += kQuantBlock, scales += 2) {
    auto largest = hn::Zero(f);
    for (int j = 0; j < kQuantBlock; j += lanes) largest = hn::Max(largest, hn::Abs(hn::LoadU(f, x + i + j)));
    const float d = hn::GetLane(hn::MaxOfLanes(f, largest)) / 127.0f;
    const auto inverse = hn::Set(f, d > 0 ? 1.0f / d : 0.0f);
    auto sum = hn::Zero(i32);
    for (int j = 0; j < kQuantBlock; j += lanes) {
      const auto rounded = hn::NearestInt(hn::Mul(hn::LoadU(f, x + i + j), inverse));
      hn::StoreU(hn::DemoteTo(i8, rounded), i8, q + i + j);
      sum = hn::Add(sum, rounded);
    }
    scales[0] = d;
    scales[1] = d * static_cast<float>(hn::GetLane(hn::SumOfLanes(i32, sum)));
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace brick::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace brick::kernels {
namespace {

using tensor::DType;
using tensor::kQuantBlock;

HWY_EXPORT(QuantiseRow);

const IntegerDotKernels& chosen() {
  static const IntegerDotKernels& kernels = active_vnni() == Vnni::kAvx512 ? kIntegerDotAvx512Vnni
                                            : active_vnni() == Vnni::kAvx  ? kIntegerDotAvxVnni
                                                                           : kIntegerDotAvx2;
  return kernels;
}

}  // namespace

bool has_integer_dot(DType dtype) noexcept {
  static const bool has = active_isa() >= Isa::kAvx2;
  return has && tensor::is_quantised(dtype);
}

QuantisedRow quantise_row(const float* x, int64_t n, float* memory) noexcept {
  auto* q = reinterpret_cast<int8_t*>(memory + n / kQuantBlock * 2);
  HWY_DYNAMIC_DISPATCH(QuantiseRow)(x, n, q, memory);
  return {q, memory};
}

void integer_dots(DType dtype, const std::byte* rows, int64_t count, QuantisedRow x, int64_t n, float* out) noexcept {
  chosen().of(dtype)(rows, count, x, n, out);
}

}  // namespace brick::kernels
#endif  // HWY_ONCE
