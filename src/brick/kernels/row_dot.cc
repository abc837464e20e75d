#include "brick/kernels/row_dot.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "brick/kernels/simd_targets.h"
#include "brick/tensor/dtype_table.h"
#include "brick/tensor/pack.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "brick/kernels/row_dot.cc"
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace brick::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using F = hn::ScalableTag<float>;
using tensor::kQuantBlock;

// The float16 at `source`; reads 8 bytes.
HWY_INLINE float Scale(const std::byte* source) {
#if HWY_TARGET <= HWY_AVX2
  const hn::CappedTag<float, 4> f;
  const hn::Rebind<hwy::float16_t, decltype(f)> f16;
  return hn::GetLane(hn::PromoteTo(f, hn::LoadU(f16, reinterpret_cast<const hwy::float16_t*>(source))));
#else
  // Highway's emulation takes infinities for numbers.
  uint16_t bits;
  std::memcpy(&bits, source, 2);
  return tensor::f16_to_f32(bits);
#endif
}

float BlockSum(const float* x) {
  const F f;
  auto sum = hn::LoadU(f, x);
  for (int j = static_cast<int>(hn::Lanes(f)); j < kQuantBlock; j += static_cast<int>(hn::Lanes(f)))
    sum = hn::Add(sum, hn::LoadU(f, x + j));
  return hn::GetLane(hn::SumOfLanes(f, sum));
}

void BlockSums(const float* x, int64_t n, float* out) {
  for (int64_t i = 0; i < n / kQuantBlock; ++i) out[i] = BlockSum(x + i * kQuantBlock);
}

// sum over blocks of d (q . x) + m (sum of x), with m = -8 d for Q4_0.
float DotQ4(const std::byte* source, bool offset, const float* x, const float* sums, int64_t n) {
  const F f;
  const hn::Rebind<uint8_t, F> u8;
  const hn::Rebind<int32_t, F> i32;
  const int lanes = static_cast<int>(hn::Lanes(f));
  const auto low = hn::Set(i32, 15);
  auto total = hn::Zero(f);
  float shifts = 0;
  for (int64_t i = 0; i < n / kQuantBlock; ++i, x += kQuantBlock) {
    const float d = Scale(source);
    shifts += (offset ? Scale(source + 2) : -8.0f * d) * sums[i];
    source += offset ? 4 : 2;
    auto block = hn::Zero(f);
    for (int j = 0; j < 16; j += lanes) {
      const auto q = hn::PromoteTo(i32, hn::LoadU(u8, reinterpret_cast<const uint8_t*>(source) + j));
      block = hn::MulAdd(hn::ConvertTo(f, hn::And(q, low)), hn::LoadU(f, x + j), block);
      block = hn::MulAdd(hn::ConvertTo(f, hn::ShiftRight<4>(q)), hn::LoadU(f, x + j + 16), block);
    }
    total = hn::MulAdd(hn::Set(f, d), block, total);
    source += 16;
  }
  return hn::GetLane(hn::SumOfLanes(f, total)) + shifts;
}

float DotQ8(const std::byte* source, const float* x, int64_t n) {
  const F f;
  const hn::Rebind<int8_t, F> i8;
  const hn::Rebind<int32_t, F> i32;
  const int lanes = static_cast<int>(hn::Lanes(f));
  auto total = hn::Zero(f);
  for (int64_t i = 0; i < n / kQuantBlock; ++i, x += kQuantBlock, source += tensor::kBlockBytes<tensor::DType::kQ8_0>) {
    auto block = hn::Zero(f);
    for (int j = 0; j < kQuantBlock; j += lanes) {
      const auto q = hn::PromoteTo(i32, hn::LoadU(i8, reinterpret_cast<const int8_t*>(source) + 2 + j));
      block = hn::MulAdd(hn::ConvertTo(f, q), hn::LoadU(f, x + j), block);
    }
    total = hn::MulAdd(hn::Set(f, Scale(source)), block, total);
  }
  return hn::GetLane(hn::SumOfLanes(f, total));
}

// Values of kBytes each; load(i) gives those from the i-th on as floats.
template <int kBytes, class Load>
HWY_INLINE float DotPlain(const std::byte* row, const float* x, int64_t n, Load&& load) {
  constexpr int64_t kLine = 64, kAhead = 2048;  // bytes that are fetched early: the hardware alone falls behind
  const F f;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(f)), step = std::max(4 * lanes, kLine / kBytes);
  auto s0 = hn::Zero(f), s1 = hn::Zero(f), s2 = hn::Zero(f), s3 = hn::Zero(f);
  int64_t i = 0;
  for (; i + step <= n; i += step) {
    for (int64_t line = 0; line < step * kBytes; line += kLine) hwy::Prefetch(row + i * kBytes + line + kAhead);
    for (int64_t j = i; j < i + step; j += 4 * lanes) {
      s0 = hn::MulAdd(load(j), hn::LoadU(f, x + j), s0);
      s1 = hn::MulAdd(load(j + lanes), hn::LoadU(f, x + j + lanes), s1);
      s2 = hn::MulAdd(load(j + 2 * lanes), hn::LoadU(f, x + j + 2 * lanes), s2);
      s3 = hn::MulAdd(load(j + 3 * lanes), hn::LoadU(f, x + j + 3 * lanes), s3);
    }
  }
  for (; i + lanes <= n; i += lanes) s0 = hn::MulAdd(load(i), hn::LoadU(f, x + i), s0);
  float total = hn::GetLane(hn::SumOfLanes(f, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3))));
  for (; i < n; ++i) {
    uint32_t bits = 0;
    std::memcpy(reinterpret_cast<char*>(&bits) + (4 - kBytes), row + i * kBytes, kBytes);
    total += std::bit_cast<float>(bits) * x[i];
  }
  return total;
}

float DotBf16(const std::byte* row, const float* x, int64_t n) {
  const F f;
  const hn::Rebind<uint16_t, F> u16;
  const hn::Rebind<uint32_t, F> u32;
  return DotPlain<2>(row, x, n, [&](int64_t i) {
    const auto halves = hn::LoadU(u16, reinterpret_cast<const uint16_t*>(row) + i);
    return hn::BitCast(f, hn::ShiftLeft<16>(hn::PromoteTo(u32, halves)));
  });
}

float DotF32(const std::byte* row, const float* x, int64_t n) {
  const F f;
  return DotPlain<4>(row, x, n, [&](int64_t i) { return hn::LoadU(f, reinterpret_cast<const float*>(row) + i); });
}

}  // namespace HWY_NAMESPACE
}  // namespace brick::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace brick::kernels {

HWY_EXPORT(BlockSums);
HWY_EXPORT(DotQ4);
HWY_EXPORT(DotQ8);
HWY_EXPORT(DotBf16);
HWY_EXPORT(DotF32);

using tensor::DType;

bool has_encoded_dot(DType dtype) noexcept {
  switch (dtype) {
    case DType::kQ4_0:
    case DType::kQ4_1:
    case DType::kQ8_0:
    case DType::kBF16:
    case DType::kF32:
      return true;
    default:
      return false;
  }
}

void block_sums(const float* x, int64_t n, float* out) noexcept { HWY_DYNAMIC_DISPATCH(BlockSums)(x, n, out); }

float dot_encoded(DType dtype, const std::byte* row, const float* x, const float* sums, int64_t n) noexcept {
  switch (dtype) {
    case DType::kQ4_0:
      return HWY_DYNAMIC_DISPATCH(DotQ4)(row, false, x, sums, n);
    case DType::kQ4_1:
      return HWY_DYNAMIC_DISPATCH(DotQ4)(row, true, x, sums, n);
    case DType::kQ8_0:
      return HWY_DYNAMIC_DISPATCH(DotQ8)(row, x, n);
    case DType::kBF16:
      return HWY_DYNAMIC_DISPATCH(DotBf16)(row, x, n);
    default:
      return HWY_DYNAMIC_DISPATCH(DotF32)(row, x, n);
  }
}

}  // namespace brick::kernels
#endif  // HWY_ONCE
