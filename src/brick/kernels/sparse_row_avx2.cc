// AVX2: a permutation looked up by eight mask bits spreads packed values over the lanes.
#include <immintrin.h>

#include <array>
#include <bit>

#include "brick/kernels/sparse_row_impl.h"

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

BRICK_AVX2 inline uint8_t bits_of(const uint64_t* mask, int64_t c) {
  return static_cast<uint8_t>(mask[c / 64] >> (c % 64));
}

BRICK_AVX2 inline __m256 spread(uint8_t bits, const float* packed) {
  const __m256i lanes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kSpread[bits].data()));
  const __m256 values = _mm256_permutevar8x32_ps(_mm256_loadu_ps(packed), lanes);
  return _mm256_blendv_ps(values, _mm256_setzero_ps(), _mm256_castsi256_ps(lanes));
}

BRICK_AVX2 inline float sum_of_lanes(__m256 v) {
  const __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(pair, _mm_shuffle_ps(pair, pair, 1)));
}

BRICK_AVX2 float dot(const uint64_t* mask, const float* packed, const float* x, int64_t cols) noexcept {
  __m256 sums[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
  int64_t c = 0;
  for (; c + 2 * kLanes <= cols; c += 2 * kLanes)
    for (int half = 0; half < 2; ++half) {
      const uint8_t bits = bits_of(mask, c + half * kLanes);
      sums[half] = _mm256_fmadd_ps(spread(bits, packed), _mm256_loadu_ps(x + c + half * kLanes), sums[half]);
      packed += std::popcount(bits);
    }
  float total = sum_of_lanes(_mm256_add_ps(sums[0], sums[1]));
  for (; c < cols; ++c)
    if ((mask[c / 64] >> (c % 64) & 1) != 0) total += *packed++ * x[c];
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

const SparseRowKernels kSparseRowAvx2{dot, expand};

}  // namespace brick::kernels
