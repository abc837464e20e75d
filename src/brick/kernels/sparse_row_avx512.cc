// AVX-512 with VBMI2 and BF16: the expand instruction spreads 32 packed bfloat16 values at once, one more multiplies
// and sums pairs. 2.4 times as fast as AVX2 on Zen 4. (The expand instruction for float32 was the slower one there.)
// GCC 12 warns of its own headers.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#include <bit>
#include <cstring>

#include "brick/kernels/sparse_row_impl.h"
#include "brick/tensor/dtype_table.h"

#define BRICK_AVX512 __attribute__((target("avx512f,avx512bw,avx512vbmi2,avx512bf16,f16c,popcnt")))

namespace brick::kernels {
namespace {

constexpr int64_t kLanes = 32;

BRICK_AVX512 inline __m512bh spread(uint32_t bits, const uint16_t* packed) {
  return (__m512bh)_mm512_maskz_expand_epi16(bits, _mm512_loadu_si512(packed));
}

BRICK_AVX512 float dot(const uint64_t* mask, const uint16_t* packed, const uint16_t* x, int64_t cols) noexcept {
  __m512 even = _mm512_setzero_ps(), odd = _mm512_setzero_ps();
  int64_t c = 0;
  for (; c + 2 * kLanes <= cols; c += 2 * kLanes) {
    const uint64_t bits = mask[c / 64];
    const auto first = static_cast<uint32_t>(bits);
    even = _mm512_dpbf16_ps(even, spread(first, packed), (__m512bh)_mm512_loadu_si512(x + c));
    odd = _mm512_dpbf16_ps(odd, spread(static_cast<uint32_t>(bits >> 32), packed + std::popcount(first)),
                           (__m512bh)_mm512_loadu_si512(x + c + kLanes));
    packed += std::popcount(bits);
  }
  for (; c < cols; c += kLanes) {
    const auto bits = static_cast<uint32_t>(mask[c / 64] >> (c % 64));
    even = _mm512_dpbf16_ps(even, spread(bits, packed), (__m512bh)_mm512_maskz_loadu_epi16(bits, x + c));
    packed += std::popcount(bits);
  }
  return _mm512_reduce_add_ps(_mm512_add_ps(even, odd));
}

BRICK_AVX512 void unpack_q4_1(const std::byte* blocks, int64_t count, uint16_t* out) noexcept {
  const __m128i low = _mm_set1_epi8(15);
  for (int64_t i = 0; i < count; ++i, blocks += tensor::kBlockBytes<tensor::DType::kQ4_1>, out += kLanes) {
    uint32_t scales;
    std::memcpy(&scales, blocks, 4);
    const __m128 dm = _mm_cvtph_ps(_mm_cvtsi32_si128(static_cast<int>(scales)));
    const __m512 d = _mm512_broadcastss_ps(dm), m = _mm512_broadcastss_ps(_mm_movehdup_ps(dm));
    const __m128i q = _mm_loadu_si128(reinterpret_cast<const __m128i*>(blocks + 4));
    const auto decode = [&](__m128i nibbles) BRICK_AVX512 {
      return _mm512_fmadd_ps(d, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(nibbles)), m);
    };
    const __m512 first = decode(_mm_and_si128(q, low)), second = decode(_mm_and_si128(_mm_srli_epi16(q, 4), low));
    _mm512_storeu_si512(out, (__m512i)_mm512_cvtne2ps_pbh(second, first));
  }
}

}  // namespace

const SparseBf16Kernels kSparseBf16Avx512{dot, unpack_q4_1};

}  // namespace brick::kernels
