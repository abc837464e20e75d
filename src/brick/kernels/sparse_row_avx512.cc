// AVX-512: the expand instruction spreads packed values over the lanes that a mask names. (From a register: its form
// that reads memory is slow on Zen 4.)
// GCC 12 warns of its own headers.
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#include <bit>

#include "brick/kernels/sparse_row_impl.h"

#define BRICK_AVX512 __attribute__((target("avx512f,popcnt")))

namespace brick::kernels {
namespace {

constexpr int64_t kLanes = 16;

BRICK_AVX512 inline __mmask16 bits_of(const uint64_t* mask, int64_t c) {
  return static_cast<__mmask16>(mask[c / 64] >> (c % 64));
}

BRICK_AVX512 float dot(const uint64_t* mask, const float* packed, const float* x, int64_t cols) noexcept {
  __m512 even = _mm512_setzero_ps(), odd = _mm512_setzero_ps();
  int64_t c = 0;
  for (; c + 2 * kLanes <= cols; c += 2 * kLanes) {
    const __mmask16 first = bits_of(mask, c), second = bits_of(mask, c + kLanes);
    even = _mm512_fmadd_ps(_mm512_maskz_expand_ps(first, _mm512_loadu_ps(packed)), _mm512_loadu_ps(x + c), even);
    packed += std::popcount(first);
    odd =
        _mm512_fmadd_ps(_mm512_maskz_expand_ps(second, _mm512_loadu_ps(packed)), _mm512_loadu_ps(x + c + kLanes), odd);
    packed += std::popcount(second);
  }
  for (; c < cols; c += kLanes) {
    const __mmask16 bits = bits_of(mask, c);
    even = _mm512_fmadd_ps(_mm512_maskz_expand_ps(bits, _mm512_loadu_ps(packed)), _mm512_maskz_loadu_ps(bits, x + c),
                           even);
    packed += std::popcount(bits);
  }
  return _mm512_reduce_add_ps(_mm512_add_ps(even, odd));
}

BRICK_AVX512 void expand(const uint64_t* mask, const float* packed, int64_t cols, float* out) noexcept {
  int64_t c = 0;
  for (; c + kLanes <= cols; c += kLanes) {
    const __mmask16 bits = bits_of(mask, c);
    _mm512_storeu_ps(out + c, _mm512_maskz_expand_ps(bits, _mm512_loadu_ps(packed)));
    packed += std::popcount(bits);
  }
  if (c < cols)
    _mm512_mask_storeu_ps(out + c, static_cast<__mmask16>((1u << (cols - c)) - 1),
                          _mm512_maskz_expand_ps(bits_of(mask, c), _mm512_loadu_ps(packed)));
}

}  // namespace

const SparseRowKernels kSparseRowAvx512{dot, expand};

}  // namespace brick::kernels
