#include <immintrin.h>

#include "brick/kernels/sparse_pairs_impl.h"

#define BRICK_AVX2 __attribute__((target("avx2,fma")))
#define BRICK_AVX2_INLINE BRICK_AVX2 __attribute__((always_inline)) inline

namespace brick::kernels {
namespace {

constexpr int64_t kAhead = 2048;  // bytes that are fetched early: the hardware alone falls behind

struct TwoVectors {
  __m256 first, second;
};

template <class Value>
BRICK_AVX2_INLINE TwoVectors weights_at(const std::byte* at);

template <>
BRICK_AVX2_INLINE TwoVectors weights_at<float>(const std::byte* at) {
  const auto* weights = reinterpret_cast<const float*>(at);
  return {_mm256_loadu_ps(weights), _mm256_loadu_ps(weights + kPairLanes)};
}

// Loaded from two bytes before, the low halves are high ones: shifts are scarcer than loads.
template <>
BRICK_AVX2_INLINE TwoVectors weights_at<uint16_t>(const std::byte* at) {
  const __m256 high = _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(0xffff0000)));
  return {_mm256_and_ps(_mm256_loadu_ps(reinterpret_cast<const float*>(at - 2)), high),
          _mm256_and_ps(_mm256_loadu_ps(reinterpret_cast<const float*>(at)), high)};
}

// Products of 16 columns; `places` moves on to the next ones, `at` behind the weights.
template <class Value>
BRICK_AVX2_INLINE void add_sixteen(const std::byte*& at, __m256i& places, const float* x, __m256& even, __m256& odd) {
  const TwoVectors weights = weights_at<Value>(at);
  even = _mm256_fmadd_ps(weights.first, _mm256_permutevar_ps(_mm256_loadu_ps(x), places), even);
  places = _mm256_srli_epi32(places, 2);
  odd = _mm256_fmadd_ps(weights.second, _mm256_permutevar_ps(_mm256_loadu_ps(x + kPairLanes), places), odd);
  places = _mm256_srli_epi32(places, 2);
  at += 2 * kPairLanes * sizeof(Value);
}

// A block's places; `at` moves on behind them.
BRICK_AVX2_INLINE __m256i take_places(const std::byte*& at) {
  const __m256i places = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
  at += kPlacesBytes;
  return places;
}

template <class Value>
BRICK_AVX2 void dot(const std::byte* at, const float* x, int64_t cols, float* out) noexcept {
  constexpr int64_t kBytes = kPlacesBytes + kPairBlock * static_cast<int64_t>(sizeof(Value)), kLine = 64;
  __m256 s0 = _mm256_setzero_ps(), s1 = s0, s2 = s0, s3 = s0;
  for (; cols >= kPairBlock; cols -= kPairBlock) {
    for (int64_t i = 0; i < kBytes; i += kLine)
      _mm_prefetch(reinterpret_cast<const char*>(at + kAhead + i), _MM_HINT_T0);
    __m256i places = take_places(at);
    for (const float* end = x + kPairBlock; x != end; x += 32) {
      add_sixteen<Value>(at, places, x, s0, s1);
      add_sixteen<Value>(at, places, x + 16, s2, s3);
    }
  }
  if (cols > 0)
    for (__m256i places = take_places(at); cols > 0; cols -= 16, x += 16) add_sixteen<Value>(at, places, x, s0, s1);

  const __m256 sum = _mm256_add_ps(_mm256_add_ps(s0, s1), _mm256_add_ps(s2, s3));
  const __m128 half = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps(sum, 1));
  const __m128 rows = _mm_hadd_ps(half, half);
  out[0] = _mm_cvtss_f32(rows);
  out[1] = _mm_cvtss_f32(_mm_movehdup_ps(rows));
}

}  // namespace

const PairKernels kPairsAvx2{dot<float>, dot<uint16_t>};

}  // namespace brick::kernels
