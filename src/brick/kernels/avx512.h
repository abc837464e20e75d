// What the sources in AVX-512 intrinsics share, for machines with bfloat16 arithmetic.
#pragma once

#include <immintrin.h>

#include <cstdint>

#define BRICK_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma")))

namespace brick::kernels {

constexpr int64_t kLanes = 16;

BRICK_AVX512 inline __mmask16 lanes_left(int64_t count) {
  return static_cast<__mmask16>(count >= kLanes ? 0xFFFF : (1 << count) - 1);
}
BRICK_AVX512 inline __m512 load(__mmask16 lanes, const uint16_t* from) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, from)), 16));
}
BRICK_AVX512 inline __m512 load(__mmask16 lanes, const float* from) { return _mm512_maskz_loadu_ps(lanes, from); }
BRICK_AVX512 inline void store(uint16_t* to, __mmask16 lanes, __m512 value) {
  _mm256_mask_storeu_epi16(to, lanes, (__m256i)_mm512_cvtneps_pbh(value));
}
BRICK_AVX512 inline void store(float* to, __mmask16 lanes, __m512 value) { _mm512_mask_storeu_ps(to, lanes, value); }

// Of 16 x 16 words of 32 bits: neighbouring rows are interleaved by one, then by two words, then quarters of registers
// change places.
BRICK_AVX512 inline void transpose(__m512i rows[16]) {
  __m512i turned[16];
  for (int i = 0; i < 16; i += 2) {
    turned[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    turned[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
  }
  for (int i = 0; i < 16; i += 4)
    for (int j = 0; j < 2; ++j) {
      rows[i + 2 * j] = _mm512_unpacklo_epi64(turned[i + j], turned[i + j + 2]);
      rows[i + 2 * j + 1] = _mm512_unpackhi_epi64(turned[i + j], turned[i + j + 2]);
    }
  // Quarter q of rows[4 g + c] is column 4 q + c of rows 4 g to 4 g + 3.
  for (int c = 0; c < 4; ++c) {
    const __m512i low01 = _mm512_shuffle_i32x4(rows[c], rows[4 + c], 0x44);
    const __m512i low23 = _mm512_shuffle_i32x4(rows[8 + c], rows[12 + c], 0x44);
    const __m512i high01 = _mm512_shuffle_i32x4(rows[c], rows[4 + c], 0xEE);
    const __m512i high23 = _mm512_shuffle_i32x4(rows[8 + c], rows[12 + c], 0xEE);
    turned[c] = _mm512_shuffle_i32x4(low01, low23, 0x88);
    turned[4 + c] = _mm512_shuffle_i32x4(low01, low23, 0xDD);
    turned[8 + c] = _mm512_shuffle_i32x4(high01, high23, 0x88);
    turned[12 + c] = _mm512_shuffle_i32x4(high01, high23, 0xDD);
  }
  for (int i = 0; i < 16; ++i) rows[i] = turned[i];
}

// Within 2 ulp; infinite above 88.73, 0 below -103.97, NaN stays. Cody and Waite's reduction by multiples of log 2,
// then Taylor's polynomial on [-log(2)/2, log(2)/2].
BRICK_AVX512 inline __m512 exp(__m512 x) {
  x = _mm512_max_ps(_mm512_set1_ps(-200.0f), _mm512_min_ps(_mm512_set1_ps(200.0f), x));  // in this order a NaN stays
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 0);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
  __m512 p = _mm512_set1_ps(1.0f / 5040);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 720));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 120));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 24));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 6));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, n);
}

}  // namespace brick::kernels
