#include "brick/kernels/vector_ops.h"

#include <bit>
#include <cmath>
#include <cstring>

#include "brick/kernels/simd_targets.h"
#include "brick/tensor/dtype_table.h"
#include "brick/tensor/k_quants.h"
#include "brick/tensor/pack.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "brick/kernels/vector_ops.cc"
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

using F = hn::ScalableTag<float>;

// Visits full vectors with `vector(i)` and the rest one value at a time with `scalar(i)`.
template <class Vector, class Scalar>
HWY_INLINE void sweep(int64_t n, Vector&& vector, Scalar&& scalar) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(F()));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) vector(i);
  for (; i < n; ++i) scalar(i);
}

int64_t CountBits(const uint64_t* words, int64_t n) {
  const hn::ScalableTag<uint64_t> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto sum = hn::Zero(d);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) sum = hn::Add(sum, hn::PopulationCount(hn::LoadU(d, words + i)));
  auto count = static_cast<int64_t>(hn::GetLane(hn::SumOfLanes(d, sum)));
  for (; i < n; ++i) count += static_cast<int64_t>(hwy::PopCount(words[i]));
  return count;
}

float Dot(const float* a, const float* b, int64_t n) {
  const F f;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(f));
  auto s0 = hn::Zero(f), s1 = hn::Zero(f), s2 = hn::Zero(f), s3 = hn::Zero(f);
  int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    s0 = hn::MulAdd(hn::LoadU(f, a + i), hn::LoadU(f, b + i), s0);
    s1 = hn::MulAdd(hn::LoadU(f, a + i + lanes), hn::LoadU(f, b + i + lanes), s1);
    s2 = hn::MulAdd(hn::LoadU(f, a + i + 2 * lanes), hn::LoadU(f, b + i + 2 * lanes), s2);
    s3 = hn::MulAdd(hn::LoadU(f, a + i + 3 * lanes), hn::LoadU(f, b + i + 3 * lanes), s3);
  }
  for (; i + lanes <= n; i += lanes) s0 = hn::MulAdd(hn::LoadU(f, a + i), hn::LoadU(f, b + i), s0);
  float total = hn::GetLane(hn::SumOfLanes(f, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3))));
  for (; i < n; ++i) total += a[i] * b[i];
  return total;
}

void Axpy(float alpha, const float* x, float* y, int64_t n) {
  const F f;
  const auto va = hn::Set(f, alpha);
  sweep(
      n, [&](int64_t i) { hn::StoreU(hn::MulAdd(va, hn::LoadU(f, x + i), hn::LoadU(f, y + i)), f, y + i); },
      [&](int64_t i) { y[i] += alpha * x[i]; });
}

void Scale(float alpha, float* x, int64_t n) {
  const F f;
  const auto va = hn::Set(f, alpha);
  sweep(
      n, [&](int64_t i) { hn::StoreU(hn::Mul(va, hn::LoadU(f, x + i)), f, x + i); }, [&](int64_t i) { x[i] *= alpha; });
}

void Multiply(const float* a, const float* b, float* out, int64_t n) {
  const F f;
  sweep(
      n, [&](int64_t i) { hn::StoreU(hn::Mul(hn::LoadU(f, a + i), hn::LoadU(f, b + i)), f, out + i); },
      [&](int64_t i) { out[i] = a[i] * b[i]; });
}

float MaxValue(const float* x, int64_t n) {
  const F f;
  auto best = hn::Set(f, x[0]);
  float rest = x[0];
  sweep(
      n, [&](int64_t i) { best = hn::Max(best, hn::LoadU(f, x + i)); },
      [&](int64_t i) { rest = x[i] > rest ? x[i] : rest; });
  const float lanes = hn::GetLane(hn::MaxOfLanes(f, best));
  return lanes > rest ? lanes : rest;
}

float ExpSum(float shift, float* x, int64_t n) {
  const F f;
  const auto vs = hn::Set(f, shift);
  auto total = hn::Zero(f);
  float rest = 0;
  sweep(
      n,
      [&](int64_t i) {
        const auto v = hn::Sub(hn::LoadU(f, x + i), vs);
        const auto e = hn::IfThenElse(hn::IsNaN(v), v, hn::Exp(f, v));  // Exp makes zero of a NaN, which would hide it
        hn::StoreU(e, f, x + i);
        total = hn::Add(total, e);
      },
      [&](int64_t i) { rest += x[i] = std::exp(x[i] - shift); });
  return hn::GetLane(hn::SumOfLanes(f, total)) + rest;
}

bool AllFinite(const float* x, int64_t n) {
  const F f;
  auto residue = hn::Zero(f);  // x - x is zero for a finite x, NaN otherwise
  bool rest = true;
  sweep(
      n,
      [&](int64_t i) {
        const auto v = hn::LoadU(f, x + i);
        residue = hn::Add(residue, hn::Sub(v, v));
      },
      [&](int64_t i) { rest = rest && std::isfinite(x[i]); });
  return rest && hn::GetLane(hn::SumOfLanes(f, residue)) == 0.0f;
}

// Of float32 that is not NaN, with the nearest bfloat16 in the upper half.
template <class D, class V>
HWY_INLINE V NearestBits(D u32, V bits) {
  const V odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(u32, 1));
  return hn::Add(hn::Add(bits, hn::Set(u32, 0x7FFF)), odd);
}

void ToBf16(const float* x, uint16_t* out, int64_t n) {
  const F f;
  const hn::Rebind<uint16_t, F> u16;
  const hn::Rebind<uint32_t, F> u32;
  sweep(
      n,
      [&](int64_t i) {
        const auto bits = hn::BitCast(u32, hn::LoadU(f, x + i));
        const auto rounded = hn::ShiftRight<16>(NearestBits(u32, bits));
        const auto quiet = hn::Or(hn::ShiftRight<16>(bits), hn::Set(u32, 0x40));
        const auto nan = hn::RebindMask(u32, hn::IsNaN(hn::LoadU(f, x + i)));
        hn::StoreU(hn::DemoteTo(u16, hn::BitCast(hn::Rebind<int32_t, F>(), hn::IfThenElse(nan, quiet, rounded))), u16,
                   out + i);
      },
      [&](int64_t i) { out[i] = tensor::f32_to_bf16(x[i]); });
}

void RoundToBf16(float* x, int64_t n) {
  const F f;
  const hn::Rebind<uint32_t, F> u32;
  sweep(
      n,
      [&](int64_t i) {
        const auto value = hn::LoadU(f, x + i);
        const auto rounded = hn::And(NearestBits(u32, hn::BitCast(u32, value)), hn::Set(u32, 0xFFFF0000u));
        hn::StoreU(hn::IfThenElse(hn::IsNaN(value), value, hn::BitCast(f, rounded)), f, x + i);
      },
      [&](int64_t i) {
        if (!std::isnan(x[i])) x[i] = tensor::bf16_to_f32(tensor::f32_to_bf16(x[i]));
      });
}

// The fractions that decide are a sequence of two steps that fills the unit square evenly (Roberts 2018): those of
// rows and columns next to each other are far apart.
void DitherToBf16(int64_t row, float* x, int64_t n) {
  constexpr uint32_t kColumnStep = 0xC13FA9A9u, kRowStep = 0x91E10DA5u;
  const hn::ScalableTag<float> d;
  const hn::RebindToUnsigned<decltype(d)> du;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const uint32_t first = static_cast<uint32_t>(row) * kRowStep;
  int64_t c = 0;
  auto steps = hn::Add(hn::Set(du, first), hn::Mul(hn::Iota(du, 0), hn::Set(du, kColumnStep)));
  for (; c + lanes <= n; c += lanes) {
    const auto value = hn::LoadU(d, x + c);
    const auto bits = hn::Add(hn::BitCast(du, value), hn::ShiftRight<16>(steps));
    const auto moved = hn::BitCast(d, hn::And(bits, hn::Set(du, 0xFFFF0000u)));
    hn::StoreU(hn::IfThenElse(hn::IsNaN(value), value, moved), d, x + c);
    steps = hn::Add(steps, hn::Set(du, static_cast<uint32_t>(lanes) * kColumnStep));
  }
  for (; c < n; ++c) {
    const uint32_t fraction = (first + static_cast<uint32_t>(c) * kColumnStep) >> 16;
    if (!std::isnan(x[c])) x[c] = std::bit_cast<float>((std::bit_cast<uint32_t>(x[c]) + fraction) & 0xFFFF0000u);
  }
}

void UnpackBf16(const std::byte* source, int64_t count, float* out) {
  const F f;
  const hn::Rebind<uint16_t, F> u16;
  const hn::Rebind<uint32_t, F> u32;
  const auto* in = reinterpret_cast<const uint16_t*>(source);
  sweep(
      count,
      [&](int64_t i) {
        hn::StoreU(hn::BitCast(f, hn::ShiftLeft<16>(hn::PromoteTo(u32, hn::LoadU(u16, in + i)))), f, out + i);
      },
      [&](int64_t i) { out[i] = tensor::bf16_to_f32(in[i]); });
}

void UnpackF16(const std::byte* source, int64_t count, float* out) {
#if HWY_TARGET <= HWY_AVX2
  const F f;
  const hn::Rebind<hwy::float16_t, F> f16;
  const auto* in = reinterpret_cast<const hwy::float16_t*>(source);
  sweep(
      count, [&](int64_t i) { hn::StoreU(hn::PromoteTo(f, hn::LoadU(f16, in + i)), f, out + i); },
      [&](int64_t i) { tensor::unpack(tensor::DType::kF16, source + 2 * i, 1, out + i); });
#else
  // Highway's emulation takes infinities for numbers.
  tensor::unpack(tensor::DType::kF16, source, count, out);
#endif
}

// The float16 at `source`, without a call, around which the loops' vectors would be spilled.
HWY_INLINE float Half(const std::byte* source) {
  uint16_t bits;
  std::memcpy(&bits, source, 2);
#if HWY_TARGET <= HWY_AVX2
  const hn::CappedTag<float, 4> f;
  const hn::Rebind<uint16_t, decltype(f)> u16;
  const hn::Rebind<hwy::float16_t, decltype(f)> f16;
  return hn::GetLane(hn::PromoteTo(f, hn::BitCast(f16, hn::Set(u16, bits))));
#else
  return tensor::f16_to_f32(bits);
#endif
}

void UnpackQ8(const std::byte* source, int64_t count, float* out) {
  const F f;
  const hn::Rebind<int8_t, F> i8;
  const hn::Rebind<int32_t, F> i32;
  const int lanes = static_cast<int>(hn::Lanes(f));
  constexpr int kBytes = tensor::kBlockBytes<tensor::DType::kQ8_0>;
  for (int64_t i = 0; i < count; i += tensor::kQuantBlock, source += kBytes, out += tensor::kQuantBlock) {
    const auto d = hn::Set(f, Half(source));
    const auto* q = reinterpret_cast<const int8_t*>(source + 2);
    for (int j = 0; j < tensor::kQuantBlock; j += lanes)
      hn::StoreU(hn::Mul(d, hn::ConvertTo(f, hn::PromoteTo(i32, hn::LoadU(i8, q + j)))), f, out + j);
  }
}

// Q4_0 and Q4_1 alike: value = d q + m, with m = -8 d for Q4_0.
void UnpackQ4(const std::byte* source, int64_t count, bool offset, float* out) {
  const F f;
  const hn::Rebind<uint8_t, F> u8;
  const hn::Rebind<int32_t, F> i32;
  const int lanes = static_cast<int>(hn::Lanes(f));
  const auto low = hn::Set(i32, 15);
  for (int64_t i = 0; i < count; i += tensor::kQuantBlock, out += tensor::kQuantBlock) {
    const float d = Half(source);
    const auto vd = hn::Set(f, d), vm = hn::Set(f, offset ? Half(source + 2) : -8.0f * d);
    source += offset ? 4 : 2;
    const auto* q = reinterpret_cast<const uint8_t*>(source);
    for (int j = 0; j < 16; j += lanes) {
      const auto bytes = hn::PromoteTo(i32, hn::LoadU(u8, q + j));
      // A multiplication and an addition, not fused: the bits of the scalar definition.
      hn::StoreU(hn::Add(hn::Mul(vd, hn::ConvertTo(f, hn::And(bytes, low))), vm), f, out + j);
      hn::StoreU(hn::Add(hn::Mul(vd, hn::ConvertTo(f, hn::ShiftRight<4>(bytes))), vm), f, out + j + 16);
    }
    source += 16;
  }
}

// Q5_0 and Q5_1 alike: value = d (q - centre) + m, with m = -0 for Q5_0: that changes not even the sign of a zero.
void UnpackQ5(const std::byte* source, int64_t count, bool offset, float* out) {
  const F f;
  const hn::Rebind<uint8_t, F> u8;
  const hn::Rebind<int32_t, F> i32;
  const int lanes = static_cast<int>(hn::Lanes(f));
  const auto low = hn::Set(i32, 15), bit_of_lane = hn::Shl(hn::Set(i32, 1), hn::Iota(i32, 0));
  const auto with_bit = hn::Set(i32, offset ? 16 : 0), without = hn::Set(i32, offset ? 0 : -16);
  for (int64_t i = 0; i < count; i += tensor::kQuantBlock, out += tensor::kQuantBlock) {
    const auto d = hn::Set(f, Half(source)), m = hn::Set(f, offset ? Half(source + 2) : -0.0f);
    source += offset ? 4 : 2;
    int32_t fifth;
    std::memcpy(&fifth, source, 4);
    const auto bits = hn::Set(i32, fifth);
    const auto* nibbles = reinterpret_cast<const uint8_t*>(source + 4);
    const auto store = [&](auto q, int j) {
      const auto upper = hn::IfThenElse(hn::TestBit(bits, hn::ShiftLeftSame(bit_of_lane, j)), with_bit, without);
      hn::StoreU(hn::Add(hn::Mul(d, hn::ConvertTo(f, hn::Add(q, upper))), m), f, out + j);
    };
    for (int j = 0; j < 16; j += lanes) {
      const auto bytes = hn::PromoteTo(i32, hn::LoadU(u8, nibbles + j));
      store(hn::And(bytes, low), j);
      store(hn::ShiftRight<4>(bytes), j + 16);
    }
    source += 20;
  }
}

// Q4_K and Q5_K alike: value = d s q - m t.
void UnpackAffineK(const std::byte* source, int64_t count, bool five_bits, float* out) {
  const F f;
  const hn::Rebind<uint8_t, F> u8;
  const hn::Rebind<int32_t, F> i32;
  const int lanes = static_cast<int>(hn::Lanes(f));
  const auto low = hn::Set(i32, 15), sixteen = hn::Set(i32, 16);
  for (int64_t i = 0; i < count; i += tensor::kSuperBlock, out += tensor::kSuperBlock) {
    const float d = Half(source), m = Half(source + 2);
    const tensor::SixBits six = tensor::load_six_bits(source + 4);
    const auto* fifth = reinterpret_cast<const uint8_t*>(source + 16);
    const uint8_t* nibbles = five_bits ? fifth + 32 : fifth;
    for (int pair = 0; pair < 4; ++pair)
      for (int j = 0; j < 32; j += lanes) {
        const auto store = [&](auto q, int sub) {
          const auto step = hn::Set(f, d * static_cast<float>(six.s[static_cast<size_t>(sub)]));
          const auto offset = hn::Set(f, m * static_cast<float>(six.t[static_cast<size_t>(sub)]));
          hn::StoreU(hn::Sub(hn::Mul(step, hn::ConvertTo(f, q)), offset), f, out + 32 * sub + j);
        };
        const auto bytes = hn::PromoteTo(i32, hn::LoadU(u8, nibbles + 32 * pair + j));
        auto first = hn::And(bytes, low), second = hn::ShiftRight<4>(bytes);
        if (five_bits) {
          const auto bits = hn::ShiftRightSame(hn::PromoteTo(i32, hn::LoadU(u8, fifth + j)), 2 * pair);
          first = hn::Or(first, hn::And(hn::ShiftLeft<4>(bits), sixteen));
          second = hn::Or(second, hn::And(hn::ShiftLeft<3>(bits), sixteen));
        }
        store(first, 2 * pair);
        store(second, 2 * pair + 1);
      }
    source += five_bits ? tensor::kBlockBytes<tensor::DType::kQ5_K> : tensor::kBlockBytes<tensor::DType::kQ4_K>;
  }
}

// value = d s (q - 32), s for each 16 values.
void UnpackQ6K(const std::byte* source, int64_t count, float* out) {
  const F f;
  const hn::Rebind<uint8_t, F> u8;
  const hn::Rebind<int32_t, F> i32;
  const int lanes = static_cast<int>(hn::Lanes(f));
  const auto low = hn::Set(i32, 15), high = hn::Set(i32, 48), centre = hn::Set(i32, 32);
  for (int64_t i = 0; i < count; i += tensor::kSuperBlock, source += tensor::kBlockBytes<tensor::DType::kQ6_K>) {
    const float d = Half(source + 208);
    for (int half = 0; half < 2; ++half, out += 128) {
      const auto* nibbles = reinterpret_cast<const uint8_t*>(source + 64 * half);
      const auto* pairs = reinterpret_cast<const uint8_t*>(source + 128 + 32 * half);
      const auto* scales = reinterpret_cast<const int8_t*>(source + 192 + 8 * half);
      for (int j = 0; j < 32; j += lanes) {
        const auto store = [&](int quarter, auto nibble, auto upper) {
          const auto q = hn::Sub(hn::Or(nibble, hn::And(upper, high)), centre);
          const int8_t scale = scales[2 * quarter + j / 16];
          const auto step = hn::Set(f, d * static_cast<float>(scale));
          hn::StoreU(hn::Mul(step, hn::ConvertTo(f, q)), f, out + 32 * quarter + j);
        };
        const auto even = hn::PromoteTo(i32, hn::LoadU(u8, nibbles + j));
        const auto odd = hn::PromoteTo(i32, hn::LoadU(u8, nibbles + 32 + j));
        const auto upper = hn::PromoteTo(i32, hn::LoadU(u8, pairs + j));
        store(0, hn::And(even, low), hn::ShiftLeft<4>(upper));
        store(1, hn::And(odd, low), hn::ShiftLeft<2>(upper));
        store(2, hn::ShiftRight<4>(even), upper);
        store(3, hn::ShiftRight<4>(odd), hn::ShiftRight<2>(upper));
      }
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace brick::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace brick::kernels {

HWY_EXPORT(CountBits);
HWY_EXPORT(Dot);
HWY_EXPORT(Axpy);
HWY_EXPORT(Scale);
HWY_EXPORT(Multiply);
HWY_EXPORT(MaxValue);
HWY_EXPORT(ExpSum);
HWY_EXPORT(AllFinite);
HWY_EXPORT(ToBf16);
HWY_EXPORT(RoundToBf16);
HWY_EXPORT(DitherToBf16);
HWY_EXPORT(UnpackBf16);
HWY_EXPORT(UnpackF16);
HWY_EXPORT(UnpackQ8);
HWY_EXPORT(UnpackQ4);
HWY_EXPORT(UnpackQ5);
HWY_EXPORT(UnpackAffineK);
HWY_EXPORT(UnpackQ6K);

int64_t count_bits(const uint64_t* words, int64_t n) noexcept { return HWY_DYNAMIC_DISPATCH(CountBits)(words, n); }
float dot(const float* a, const float* b, int64_t n) noexcept { return HWY_DYNAMIC_DISPATCH(Dot)(a, b, n); }
float sum_squares(const float* a, int64_t n) noexcept { return dot(a, a, n); }
void axpy(float alpha, const float* x, float* y, int64_t n) noexcept { HWY_DYNAMIC_DISPATCH(Axpy)(alpha, x, y, n); }
void scale(float alpha, float* x, int64_t n) noexcept { HWY_DYNAMIC_DISPATCH(Scale)(alpha, x, n); }
void multiply(const float* a, const float* b, float* out, int64_t n) noexcept {
  HWY_DYNAMIC_DISPATCH(Multiply)(a, b, out, n);
}
float max_value(const float* x, int64_t n) noexcept { return HWY_DYNAMIC_DISPATCH(MaxValue)(x, n); }
float exp_sum(float shift, float* x, int64_t n) noexcept { return HWY_DYNAMIC_DISPATCH(ExpSum)(shift, x, n); }
bool all_finite(const float* x, int64_t n) noexcept { return HWY_DYNAMIC_DISPATCH(AllFinite)(x, n); }
void to_bf16(const float* x, uint16_t* out, int64_t n) noexcept { HWY_DYNAMIC_DISPATCH(ToBf16)(x, out, n); }
void round_to_bf16(float* x, int64_t n) noexcept { HWY_DYNAMIC_DISPATCH(RoundToBf16)(x, n); }
void dither_to_bf16(int64_t row, float* x, int64_t n) noexcept { HWY_DYNAMIC_DISPATCH(DitherToBf16)(row, x, n); }

void unpack_values(tensor::DType dtype, const std::byte* source, int64_t count, float* out) noexcept {
  using tensor::DType;
  switch (dtype) {
    case DType::kBF16:
      return HWY_DYNAMIC_DISPATCH(UnpackBf16)(source, count, out);
    case DType::kF16:
      return HWY_DYNAMIC_DISPATCH(UnpackF16)(source, count, out);
    case DType::kQ8_0:
      return HWY_DYNAMIC_DISPATCH(UnpackQ8)(source, count, out);
    case DType::kQ4_0:
      return HWY_DYNAMIC_DISPATCH(UnpackQ4)(source, count, false, out);
    case DType::kQ4_1:
      return HWY_DYNAMIC_DISPATCH(UnpackQ4)(source, count, true, out);
    case DType::kQ5_0:
    case DType::kQ5_1:
      return HWY_DYNAMIC_DISPATCH(UnpackQ5)(source, count, dtype == DType::kQ5_1, out);
    case DType::kQ4_K:
    case DType::kQ5_K:
      return HWY_DYNAMIC_DISPATCH(UnpackAffineK)(source, count, dtype == DType::kQ5_K, out);
    case DType::kQ6_K:
      return HWY_DYNAMIC_DISPATCH(UnpackQ6K)(source, count, out);
    default:
      tensor::unpack(dtype, source, count, out);
  }
}

const char* simd_target() {
  const int64_t supported = hwy::SupportedTargets() & HWY_TARGETS;
  return hwy::TargetName(supported & -supported);
}

}  // namespace brick::kernels
#endif  // HWY_ONCE
