// GCC 12 warns of its own headers.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#include <algorithm>
#include <cmath>

#include "brick/kernels/attention_bf16_impl.h"
#include "brick/kernels/attention_shares.h"
#include "brick/kernels/avx512.h"

namespace brick::kernels {
namespace {

using tensor::ConstMatView;

constexpr int kVectors = kQueryBlock / kLanes;

// The queries that see a key.
uint64_t seen_by(const Sight& sight, int64_t key) {
  const uint64_t there = sight.count >= 64 ? ~uint64_t{0} : (uint64_t{1} << sight.count) - 1;
  const int64_t blind = std::max<int64_t>(key - sight.base + 1, 0);
  return blind >= 64 ? 0 : there & (~uint64_t{0} << blind);
}
BRICK_AVX512 inline __mmask16 part(uint64_t seen, int v) { return static_cast<__mmask16>(seen >> (v * kLanes)); }

BRICK_AVX512 void softmax(ConstMatView scores, const Sight& sight, float scale, Bf16View weights, float* top_out,
                          float* sum_out) {
  const __m512 lowest = _mm512_set1_ps(-INFINITY), factor = _mm512_set1_ps(scale);
  __m512 top[kVectors], sum[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    top[v] = lowest;
    sum[v] = _mm512_setzero_ps();
  }
  for (int64_t j = 0; j < scores.rows; ++j) {
    const uint64_t seen = seen_by(sight, j);
    for (int v = 0; v < kVectors; ++v)
      top[v] = _mm512_mask_max_ps(top[v], part(seen, v), top[v], _mm512_loadu_ps(scores.row(j) + v * kLanes));
  }
  for (int64_t j = 0; j < scores.rows; ++j) {
    const uint64_t seen = seen_by(sight, j);
    for (int v = 0; v < kVectors; ++v) {
      const __m512 shifted = _mm512_sub_ps(_mm512_loadu_ps(scores.row(j) + v * kLanes), top[v]);
      const __m512 weight = _mm512_maskz_mov_ps(part(seen, v), exp(_mm512_mul_ps(shifted, factor)));
      sum[v] = _mm512_add_ps(sum[v], weight);
      store(weights.row(j) + v * kLanes, 0xFFFF, weight);
    }
  }
  for (int v = 0; v < kVectors; ++v) {
    _mm512_storeu_ps(top_out + v * kLanes, top[v]);
    _mm512_storeu_ps(sum_out + v * kLanes, sum[v]);
  }
}

BRICK_AVX512 void softmax_backward(ConstMatView scores, ConstMatView d_weights, const Sight& sight, float scale,
                                   const float* log_sum_exp, const float* delta, Bf16View weights, Bf16View d_scores) {
  const __m512 factor = _mm512_set1_ps(scale);
  for (int64_t j = 0; j < scores.rows; ++j) {
    const uint64_t seen = seen_by(sight, j);
    for (int v = 0; v < kVectors; ++v) {
      const int64_t i = v * kLanes;
      const __m512 power =
          _mm512_fmsub_ps(_mm512_loadu_ps(scores.row(j) + i), factor, _mm512_loadu_ps(log_sum_exp + i));
      const __m512 weight = _mm512_maskz_mov_ps(part(seen, v), exp(power));
      const __m512 slope = _mm512_sub_ps(_mm512_loadu_ps(d_weights.row(j) + i), _mm512_loadu_ps(delta + i));
      store(weights.row(j) + i, 0xFFFF, weight);
      store(d_scores.row(j) + i, 0xFFFF, _mm512_maskz_mul_ps(part(seen, v), _mm512_mul_ps(weight, factor), slope));
    }
  }
}

BRICK_AVX512 void store_turned(ConstMatView x, const float* factors, Bf16View out) {
  for (int64_t query = 0; query < out.rows; query += kLanes)
    for (int64_t c = 0; c < out.cols; c += kLanes) {
      __m512i rows[16];
      const __m512 factor = _mm512_loadu_ps(factors + query);
      for (int64_t i = 0; i < kLanes; ++i)
        rows[i] = c + i < out.cols ? _mm512_castps_si512(_mm512_mul_ps(factor, _mm512_loadu_ps(x.row(c + i) + query)))
                                   : _mm512_setzero_si512();
      transpose(rows);
      for (int64_t i = 0; i < kLanes && query + i < out.rows; ++i)
        store(out.row(query + i) + c, lanes_left(out.cols - c), _mm512_castsi512_ps(rows[i]));
    }
}

BRICK_AVX512 float dot_product(const uint16_t* a, const uint16_t* b, int64_t n) {
  __m512 sum = _mm512_setzero_ps();
  for (int64_t i = 0; i < n; i += kLanes) {
    const __mmask16 lanes = lanes_left(n - i);
    sum = _mm512_fmadd_ps(load(lanes, a + i), load(lanes, b + i), sum);
  }
  return _mm512_reduce_add_ps(sum);
}

}  // namespace

void softmax_columns(ConstMatView scores, const Sight& sight, float scale, Bf16View weights, float* log_sum_exp,
                     float* inverse_sum) noexcept {
  softmax(scores, sight, scale, weights, log_sum_exp, inverse_sum);
  for (int64_t i = 0; i < sight.count; ++i) {
    log_sum_exp[i] = scale * log_sum_exp[i] + std::log(inverse_sum[i]);
    inverse_sum[i] = 1.0f / inverse_sum[i];
  }
}

void softmax_columns_backward(ConstMatView scores, ConstMatView d_weights, const Sight& sight, float scale,
                              const float* log_sum_exp, const float* delta, Bf16View weights,
                              Bf16View d_scores) noexcept {
  softmax_backward(scores, d_weights, sight, scale, log_sum_exp, delta, weights, d_scores);
}

void store_transposed(ConstMatView x, const float* factors, Bf16View out) noexcept { store_turned(x, factors, out); }

float dot(const uint16_t* a, const uint16_t* b, int64_t n) noexcept { return dot_product(a, b, n); }

}  // namespace brick::kernels
