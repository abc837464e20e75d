#include <immintrin.h>

#include <cstring>

#include "brick/kernels/sparse_lanes_impl.h"

#define BRICK_AVX2 __attribute__((target("avx2,fma,f16c")))
#define BRICK_AVX2_INLINE BRICK_AVX2 __attribute__((always_inline)) inline

namespace brick::kernels {
namespace {

constexpr int64_t kAhead = 64;  // steps that are fetched early: the hardware alone falls behind

BRICK_AVX2_INLINE __m128i load128(const void* source) { return _mm_loadu_si128(static_cast<const __m128i*>(source)); }

BRICK_AVX2_INLINE __m256i two_windows(const int8_t* first, const int8_t* second) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(load128(first)), load128(second), 1);
}

// Sums of up to 32 products of a group in 16 bits: at most 32 x 15 x 64. Each half has a track, lane i its group i.
struct Sums {
  __m256i high_products, low_products, high, low;
};

// The activations of a step.
struct Fetched {
  __m256i high, low;
};

// Where the tracks' windows are in the high parts.
struct Windows {
  const int8_t *first, *second;
};

BRICK_AVX2_INLINE Fetched add_step(const SparseLanes::Step& step, Windows& at, int64_t to_low, uint8_t moves,
                                   Sums& sums) {
  const __m256i low_bits = _mm256_set1_epi8(15);
  const __m256i entries = _mm256_load_si256(reinterpret_cast<const __m256i*>(&step));
  // Place 0 becomes -1, for which the shuffle gives 0.
  const __m256i places = _mm256_add_epi8(_mm256_and_si256(entries, low_bits), _mm256_set1_epi8(-1));
  const __m256i values = _mm256_and_si256(_mm256_srli_epi16(entries, 4), low_bits);
  const Fetched fetched{_mm256_shuffle_epi8(two_windows(at.first, at.second), places),
                        _mm256_shuffle_epi8(two_windows(at.first + to_low, at.second + to_low), places)};
  at.first += moves & 15;
  at.second += moves >> 4;
  sums.high_products = _mm256_add_epi16(sums.high_products, _mm256_maddubs_epi16(values, fetched.high));
  sums.low_products = _mm256_add_epi16(sums.low_products, _mm256_maddubs_epi16(values, fetched.low));
  return fetched;
}

BRICK_AVX2_INLINE void add_activations(Fetched fetched, Sums& sums) {
  const __m256i ones = _mm256_set1_epi8(1);
  sums.high = _mm256_add_epi16(sums.high, _mm256_maddubs_epi16(ones, fetched.high));
  sums.low = _mm256_add_epi16(sums.low, _mm256_maddubs_epi16(ones, fetched.low));
}

BRICK_AVX2_INLINE uint16_t at16(const std::byte* head, int64_t i) {
  uint16_t value;
  std::memcpy(&value, head + 2 * i, sizeof(value));
  return value;
}

// Of eight groups: scale times products and minimum times activations, each 128 high + low, unpacked side by side.
BRICK_AVX2_INLINE __m256 group_dots(const std::byte* scales, __m256i products, __m256i activations) {
  const __m256i weights = _mm256_set1_epi32(1 << 16 | 128);
  const __m256 p = _mm256_cvtepi32_ps(_mm256_madd_epi16(products, weights));
  const __m256 a = _mm256_cvtepi32_ps(_mm256_madd_epi16(activations, weights));
  const __m256 minima = _mm256_cvtph_ps(load128(scales + 2 * kTileGroups));
  return _mm256_fmadd_ps(minima, a, _mm256_mul_ps(_mm256_cvtph_ps(load128(scales)), p));
}

// The dots of the tile's groups in their order in its head.
BRICK_AVX2_INLINE void tile_dots(const std::byte* head, const SparseLanes::Step* steps, int64_t count, SplitRow x,
                                 float* dots) {
  const auto* moves = reinterpret_cast<const uint8_t*>(head + kMovesAt);
  Windows at{x.high + at16(head, 3 * kTileGroups), x.high + at16(head, 3 * kTileGroups + 1)};
  const int64_t to_low = x.low - x.high;
  Sums sums{};
  int64_t i = count % 2;
  if (i != 0) add_activations(add_step(steps[0], at, to_low, moves[0], sums), sums);
  for (; i < count; i += 2) {
    _mm_prefetch(reinterpret_cast<const char*>(steps + i + kAhead), _MM_HINT_T0);
    const Fetched first = add_step(steps[i], at, to_low, moves[i], sums);
    const Fetched second = add_step(steps[i + 1], at, to_low, moves[i + 1], sums);
    // No sum of two leaves 8 bits.
    add_activations({_mm256_add_epi8(first.high, second.high), _mm256_add_epi8(first.low, second.low)}, sums);
  }
  _mm256_storeu_ps(dots, group_dots(head, _mm256_unpacklo_epi16(sums.high_products, sums.low_products),
                                    _mm256_unpacklo_epi16(sums.high, sums.low)));
  _mm256_storeu_ps(dots + 8, group_dots(head + 16, _mm256_unpackhi_epi16(sums.high_products, sums.low_products),
                                        _mm256_unpackhi_epi16(sums.high, sums.low)));
}

BRICK_AVX2 void add_tiles(const SparseLanes::Panel& panel, SplitRow x, float* sums) noexcept {
  const std::byte* head = panel.heads.data();
  const SparseLanes::Step* steps = panel.steps.data();
  for (const auto [count, tiles] : panel.runs)
    for (int64_t i = 0; i < tiles; ++i, head += kMovesAt + count, steps += count) {
      float dots[kTileGroups];
      tile_dots(head, steps, count, x, dots);
      for (int64_t g = 0; g < kTileGroups; ++g) sums[at16(head, 2 * kTileGroups + g)] += dots[g];
    }
}

}  // namespace

const AddTiles kAddTilesAvx2 = add_tiles;

}  // namespace brick::kernels
