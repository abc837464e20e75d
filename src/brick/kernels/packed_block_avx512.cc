// GCC 12 warns of its own headers.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "brick/kernels/avx512.h"
#include "brick/kernels/packed_block_impl.h"

namespace brick::kernels {
namespace {

constexpr int64_t kLine = 2 * kPanelCols;  // values of a pair of a panel's rows

template <int kRows>
BRICK_AVX512 void rows_product(const ConstBf16View& a, int64_t row, const uint16_t* panels, float* sums) {
  __m512 left[kRows], right[kRows];
  for (int r = 0; r < kRows; ++r) left[r] = right[r] = _mm512_setzero_ps();
  const int64_t pairs = panel_size(a.cols) / kLine;
  const uint16_t* b = panels + panel_size(a.cols);
  for (int64_t pair = 0; pair < pairs; ++pair) {
    const auto b_left = (__m512bh)_mm512_loadu_si512(panels + pair * kLine);
    const auto b_right = (__m512bh)_mm512_loadu_si512(b + pair * kLine);
    for (int r = 0; r < kRows; ++r) {
      int32_t both;
      std::memcpy(&both, a.row(row + r) + 2 * pair, sizeof(both));
      const auto factor = (__m512bh)_mm512_set1_epi32(both);
      left[r] = _mm512_dpbf16_ps(left[r], factor, b_left);
      right[r] = _mm512_dpbf16_ps(right[r], factor, b_right);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    _mm512_storeu_ps(sums + (row + r) * kStripCols, left[r]);
    _mm512_storeu_ps(sums + (row + r) * kStripCols + kLanes, right[r]);
  }
}

BRICK_AVX512 void transpose_pairs(const uint16_t* const rows[16], const __mmask32 lanes[16], uint32_t* out) {
  __m512i words[16];
  for (int i = 0; i < 16; ++i) words[i] = _mm512_maskz_loadu_epi16(lanes[i], rows[i]);
  transpose(words);
  for (int i = 0; i < 16; ++i) _mm512_storeu_si512(out + i * kPanelCols, words[i]);
}

BRICK_AVX512 inline __m512i rounded(const float* from) {
  return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(from)));
}

BRICK_AVX512 void pair_rows(const float* even, const float* odd, int64_t n, int64_t panel, uint16_t* line) {
  for (int64_t i = 0; i < n; i += kPanelCols, line += panel)
    _mm512_storeu_si512(line, _mm512_or_si512(rounded(even + i), _mm512_slli_epi32(rounded(odd + i), 16)));
}

BRICK_AVX512 void pair_bf16_rows(ConstBf16View rows, int64_t first, uint16_t* block) {
  const int64_t panel = panel_size(rows.rows), pairs = panel / kLine;
  const int64_t cols = std::min(kBlockCols, rows.cols - first);
  const auto load = [&](int64_t r, int64_t i) __attribute__((target("avx512f,avx512bw,avx512vl"))) {
    const int64_t left = r < rows.rows ? std::clamp<int64_t>(cols - i, 0, kLanes) : 0;
    return _mm512_cvtepu16_epi32(
        _mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << left) - 1), rows.data + r * rows.stride + first + i));
  };
  for (int64_t pair = 0; pair < pairs; ++pair)
    for (int64_t i = 0; i < kBlockCols; i += kLanes)
      _mm512_storeu_si512(block + i / kPanelCols * panel + pair * kLine,
                          _mm512_or_si512(load(2 * pair, i), _mm512_slli_epi32(load(2 * pair + 1, i), 16)));
}

BRICK_AVX512 void column_block(ConstBf16View columns, uint16_t* block) {
  const int64_t panel = panel_size(columns.cols);
  for (int64_t k = 0; k < columns.cols; k += 2 * kLanes)
    for (int64_t column = 0; column < kBlockCols; column += kLanes) {
      const uint16_t* rows[16];
      __mmask32 lanes[16];
      const int64_t left = std::min(columns.cols - k, 2 * kLanes);
      for (int64_t i = 0; i < kLanes; ++i) {
        const bool there = column + i < columns.rows;
        rows[i] = there ? columns.row(column + i) + k : columns.data;
        lanes[i] = there ? static_cast<__mmask32>((uint64_t{1} << left) - 1) : 0;
      }
      transpose_pairs(rows, lanes, reinterpret_cast<uint32_t*>(block + column / kPanelCols * panel + k * kPanelCols));
    }
}

}  // namespace

void strip_product_avx512(const ConstBf16View& a, const uint16_t* panels, float* sums) noexcept {
  constexpr int kRows = 8;
  int64_t row = 0;
  for (; row + kRows <= a.rows; row += kRows) rows_product<kRows>(a, row, panels, sums);
  for (; row < a.rows; ++row) rows_product<1>(a, row, panels, sums);
}

void pack_columns(ConstBf16View columns, uint16_t* block) noexcept { column_block(columns, block); }

void pack_row_pair(const float* even, const float* odd, int64_t n, int64_t pair, int64_t k, uint16_t* blocks) noexcept {
  pair_rows(even, odd, n, panel_size(k), blocks + pair * kLine);
}

void pack_rows(ConstBf16View rows, int64_t first, uint16_t* block) noexcept { pair_bf16_rows(rows, first, block); }

}  // namespace brick::kernels
