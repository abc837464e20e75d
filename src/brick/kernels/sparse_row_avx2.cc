// AVX2: a permutation looked up by eight mask bits spreads packed values over the lanes.
#include <immintrin.h>

#include <array>
#include <bit>

#include "brick/kernels/sparse_row_impl.h"
#include "brick/tensor/pack.h"

#define BRICK_AVX2 __attribute__((target("avx2,fma,popcnt")))

namespace brick::kernels {
namespace {

constexpr int64_t kLanes = 8;

// For each byte of mask: the packed value that each lane takes; a lane without a bit has its sign bit set, which the
// permutation ignores and the blend reads.
constexpr auto kSpread = [] {
  std::array<std::array<uint32_t, kLanes>, 256> table{};
  for (uint32_t bits = 0; bits < 256; ++bits)
    for (uint32_t lane = 0, next = 0; lane < kLanes; ++lane)
      table[bits][lane] = (bits >> lane & 1) != 0 ? next++ : 0x80000000u;
  return table;
}();

// The same for eight bfloat16 values, as a shuffle of bytes; one with its sign bit set leaves zero.
constexpr auto kSpreadHalves = [] {
  std::array<std::array<uint8_t, 2 * kLanes>, 256> table{};
  for (uint32_t bits = 0; bits < 256; ++bits)
    for (uint32_t lane = 0, next = 0; lane < kLanes; ++lane) {
      const bool kept = (bits >> lane & 1) != 0;
      table[bits][2 * lane] = static_cast<uint8_t>(kept ? 2 * next : 0x80);
      table[bits][2 * lane + 1] = static_cast<uint8_t>(kept ? 2 * next + 1 : 0x80);
      next += kept ? 1 : 0;
    }
  return table;
}();

BRICK_AVX2 inline uint8_t bits_of(const uint64_t* mask, int64_t c) {
  return static_cast<uint8_t>(mask[c / 64] >> (c % 64));
}

BRICK_AVX2 inline __m256 spread(uint8_t bits, const float* packed) {
  const __m256i lanes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kSpread[bits].data()));
  const __m256 values = _mm256_permutevar8x32_ps(_mm256_loadu_ps(packed), lanes);
  return _mm256_blendv_ps(values, _mm256_setzero_ps(), _mm256_castsi256_ps(lanes));
}

BRICK_AVX2 inline __m256 spread(uint8_t bits, const uint16_t* packed) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(kSpreadHalves[bits].data()));
  const __m128i halves = _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(packed)), bytes);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}

float to_f32(float value) { return value; }
float to_f32(uint16_t value) { return tensor::bf16_to_f32(value); }

BRICK_AVX2 inline float sum_of_lanes(__m256 v) {
  const __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(pair, _mm_shuffle_ps(pair, pair, 1)));
}

template <class T>
BRICK_AVX2 float dot(const uint64_t* mask, const T* packed, const float* x, int64_t cols) noexcept {
  __m256 even = _mm256_setzero_ps(), odd = _mm256_setzero_ps();
  int64_t c = 0;
  for (; c + 2 * kLanes <= cols; c += 2 * kLanes) {
    const uint8_t first = bits_of(mask, c), second = bits_of(mask, c + kLanes);
    const T* after = packed + std::popcount(first);
    even = _mm256_fmadd_ps(spread(first, packed), _mm256_loadu_ps(x + c), even);
    odd = _mm256_fmadd_ps(spread(second, after), _mm256_loadu_ps(x + c + kLanes), odd);
    packed = after + std::popcount(second);
  }
  float total = sum_of_lanes(_mm256_add_ps(even, odd));
  for (; c < cols; ++c)
    if ((mask[c / 64] >> (c % 64) & 1) != 0) total += to_f32(*packed++) * x[c];
  return total;
}

BRICK_AVX2 void expand(const uint64_t* mask, const float* packed, int64_t cols, float* out) noexcept {
  int64_t c = 0;
  for (; c + kLanes <= cols; c += kLanes) {
    const uint8_t bits = bits_of(mask, c);
    _mm256_storeu_ps(out + c, spread(bits, packed));
    packed += std::popcount(bits);
  }
  for (; c < cols; ++c) out[c] = (mask[c / 64] >> (c % 64) & 1) != 0 ? *packed++ : 0.0f;
}

}  // namespace

const SparseRowKernels kSparseRowAvx2{dot<float>, dot<uint16_t>, expand};

}  // namespace brick::kernels
