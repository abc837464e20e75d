#include <immintrin.h>

#include <cstring>

#include "brick/kernels/sparse_lanes_impl.h"

#define BRICK_AVX2 __attribute__((target("avx2,fma,f16c")))
#define BRICK_AVX2_INLINE BRICK_AVX2 __attribute__((always_inline)) inline

namespace brick::kernels {
namespace {

constexpr int64_t kAhead = 64;  // pairs of steps that are fetched early: the hardware alone falls behind

BRICK_AVX2_INLINE __m128i load128(const void* source) { return _mm_loadu_si128(static_cast<const __m128i*>(source)); }

BRICK_AVX2_INLINE __m256i two_windows(const int8_t* first, const int8_t* second) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(load128(first)), load128(second), 1);
}

// Sums of up to 32 products of a group in 16 bits: at most 32 x 15 x 64. Lane i of either half is group i.
struct Sums {
  __m256i high_products, low_products, high, low;
};

// The activations of two steps.
struct Fetched {
  __m256i high, low;
};

BRICK_AVX2_INLINE Fetched add_pair(const SparseLanes::StepPair& steps, const int8_t*& x, int64_t to_low, uint8_t moves,
                                   Sums& sums) {
  const __m256i low_bits = _mm256_set1_epi8(15);
  const __m256i entries = _mm256_load_si256(reinterpret_cast<const __m256i*>(&steps));
  // Place 0 becomes -1, for which the shuffle gives 0.
  const __m256i places = _mm256_add_epi8(_mm256_and_si256(entries, low_bits), _mm256_set1_epi8(-1));
  const __m256i values = _mm256_and_si256(_mm256_srli_epi16(entries, 4), low_bits);
  const int8_t* second = x + (moves & 15);
  const Fetched fetched{_mm256_shuffle_epi8(two_windows(x, second), places),
                        _mm256_shuffle_epi8(two_windows(x + to_low, second + to_low), places)};
  x = second + (moves >> 4);
  sums.high_products = _mm256_add_epi16(sums.high_products, _mm256_maddubs_epi16(values, fetched.high));
  sums.low_products = _mm256_add_epi16(sums.low_products, _mm256_maddubs_epi16(values, fetched.low));
  return fetched;
}

BRICK_AVX2_INLINE void add_activations(Fetched fetched, Sums& sums) {
  const __m256i ones = _mm256_set1_epi8(1);
  sums.high = _mm256_add_epi16(sums.high, _mm256_maddubs_epi16(ones, fetched.high));
  sums.low = _mm256_add_epi16(sums.low, _mm256_maddubs_epi16(ones, fetched.low));
}

// 128 high + low of the eight groups.
BRICK_AVX2_INLINE __m256 joined(__m256i high, __m256i low) {
  const __m128i h = _mm_add_epi16(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
  const __m128i l = _mm_add_epi16(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
  const __m128i weights = _mm_set1_epi32(1 << 16 | 128);
  const __m128i first = _mm_madd_epi16(_mm_unpacklo_epi16(h, l), weights);
  const __m128i last = _mm_madd_epi16(_mm_unpackhi_epi16(h, l), weights);
  return _mm256_cvtepi32_ps(_mm256_inserti128_si256(_mm256_castsi128_si256(first), last, 1));
}

BRICK_AVX2_INLINE uint16_t at16(const std::byte* head, int64_t i) {
  uint16_t value;
  std::memcpy(&value, head + 2 * i, sizeof(value));
  return value;
}

BRICK_AVX2_INLINE __m256 tile_dots(const std::byte* head, const SparseLanes::StepPair* steps, int64_t step_pairs,
                                   SplitRow x) {
  const auto* moves = reinterpret_cast<const uint8_t*>(head + kMovesAt);
  const int8_t* window = x.high + at16(head, 3 * kTileGroups);
  const int64_t to_low = x.low - x.high;
  Sums sums{};
  int64_t i = step_pairs % 2;
  if (i != 0) add_activations(add_pair(steps[0], window, to_low, moves[0], sums), sums);
  for (; i < step_pairs; i += 2) {
    _mm_prefetch(reinterpret_cast<const char*>(steps + i + kAhead), _MM_HINT_T0);
    const Fetched first = add_pair(steps[i], window, to_low, moves[i], sums);
    const Fetched second = add_pair(steps[i + 1], window, to_low, moves[i + 1], sums);
    // No sum of two leaves 8 bits.
    add_activations({_mm256_add_epi8(first.high, second.high), _mm256_add_epi8(first.low, second.low)}, sums);
  }

  const __m256 scales = _mm256_cvtph_ps(load128(head)), minima = _mm256_cvtph_ps(load128(head + 2 * kTileGroups));
  const __m256 products = _mm256_mul_ps(scales, joined(sums.high_products, sums.low_products));
  return _mm256_fmadd_ps(minima, joined(sums.high, sums.low), products);
}

BRICK_AVX2 void add_tiles(const SparseLanes::Panel& panel, SplitRow x, float* sums) noexcept {
  const std::byte* head = panel.heads.data();
  const SparseLanes::StepPair* steps = panel.steps.data();
  for (const auto [step_pairs, tiles] : panel.runs)
    for (int64_t i = 0; i < tiles; ++i, head += kMovesAt + step_pairs, steps += step_pairs) {
      float dots[kTileGroups];
      _mm256_storeu_ps(dots, tile_dots(head, steps, step_pairs, x));
      for (int64_t g = 0; g < kTileGroups; ++g) sums[at16(head, 2 * kTileGroups + g)] += dots[g];
    }
}

}  // namespace

const AddTiles kAddTilesAvx2 = add_tiles;

}  // namespace brick::kernels
