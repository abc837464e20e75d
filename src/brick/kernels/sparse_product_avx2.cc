#include <immintrin.h>

#include <algorithm>

#include "brick/kernels/sparse_product_impl.h"

#define BRICK_AVX2 __attribute__((target("avx2,fma")))

namespace brick::kernels {
namespace {

using tensor::ConstMatView;
using tensor::MatView;

constexpr int64_t kLanes = 8;
constexpr int kVectors = kTokensAtATime / kLanes;

BRICK_AVX2 void count_columns(const uint64_t* mask, int64_t rows, int64_t words, uint8_t* counts) noexcept {
  // Byte i of a half asks for bit i % 8 of byte i / 8 of its 16 columns.
  const __m256i byte = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
  const __m256i bit = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201));
  for (int64_t w = 0; w < 2 * words; ++w) {
    __m256i count = _mm256_setzero_si256();
    for (int64_t r = 0; r < rows; ++r) {
      const __m256i bits = _mm256_set1_epi32(static_cast<int>(mask[r * words + w / 2] >> (w % 2 * 32)));
      const __m256i kept = _mm256_and_si256(_mm256_shuffle_epi8(bits, byte), bit);
      count = _mm256_sub_epi8(count, _mm256_cmpeq_epi8(kept, bit));
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(counts + 32 * w), count);
  }
}

BRICK_AVX2 inline void transpose(__m256 (&v)[kLanes]) {
  __m256 pairs[kLanes], quads[kLanes];
  for (int i = 0; i < 4; ++i) {
    pairs[2 * i] = _mm256_unpacklo_ps(v[2 * i], v[2 * i + 1]);
    pairs[2 * i + 1] = _mm256_unpackhi_ps(v[2 * i], v[2 * i + 1]);
  }
  for (int half = 0; half < 2; ++half)
    for (int i = 0; i < 2; ++i) {
      const __m256 a = pairs[4 * half + i], b = pairs[4 * half + i + 2];
      quads[4 * half + 2 * i] = _mm256_shuffle_ps(a, b, 0x44);
      quads[4 * half + 2 * i + 1] = _mm256_shuffle_ps(a, b, 0xee);
    }
  for (int i = 0; i < 4; ++i) {
    v[i] = _mm256_permute2f128_ps(quads[i], quads[i + 4], 0x20);
    v[i + 4] = _mm256_permute2f128_ps(quads[i], quads[i + 4], 0x31);
  }
}

BRICK_AVX2 void gather(ConstMatView x, float* out) noexcept {
  int64_t c = 0;
  if (x.rows == kTokensAtATime)
    for (; c + kLanes <= x.cols; c += kLanes)
      for (int64_t t = 0; t < kTokensAtATime; t += kLanes) {
        __m256 v[kLanes];
        for (int i = 0; i < kLanes; ++i) v[i] = _mm256_loadu_ps(x.row(t + i) + c);
        transpose(v);
        for (int i = 0; i < kLanes; ++i) _mm256_storeu_ps(out + (c + i) * kTokensAtATime + t, v[i]);
      }
  for (; c < x.cols; ++c)
    for (int64_t t = 0; t < kTokensAtATime; ++t) out[c * kTokensAtATime + t] = t < x.rows ? x(t, c) : 0.0f;
}

// Fetches one of `count` equal shares of `inputs` inputs' tokens, which start at `next`: a list reads them in no order
// that the hardware foresees. Returns the next share.
BRICK_AVX2 inline const float* fetch_share(const float* next, int64_t inputs, int64_t count) {
  constexpr int64_t kLineFloats = 16;
  const float* end = next + (inputs * kTokensAtATime / count + kLineFloats - 1) / kLineFloats * kLineFloats;
  for (; next < end; next += kLineFloats) _mm_prefetch(reinterpret_cast<const char*>(next), _MM_HINT_T0);
  return next;
}

// Two sums of each token, of the even and the odd weights: one alone would wait for its own additions. Adds to `out`
// where `more`. (Loops over registers are unrolled by name: GCC 12 keeps an array that it sees in a loop in memory.)
BRICK_AVX2 inline void sum_list(const KeptWeight* weight, const KeptWeight* end, const float* inputs, bool more,
                                float* out) {
  __m256 sums[2][kVectors];
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) sums[0][v] = sums[1][v] = _mm256_setzero_ps();
  for (; weight != end; weight += kListMultiple)
#pragma GCC unroll 4
    for (int i = 0; i < kListMultiple; ++i) {
      const __m256 value = _mm256_broadcast_ss(&weight[i].value);
      const float* x = inputs + weight[i].offset;
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v)
        sums[i % 2][v] = _mm256_fmadd_ps(value, _mm256_loadu_ps(x + v * kLanes), sums[i % 2][v]);
    }
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    const __m256 sum = _mm256_add_ps(sums[0][v], sums[1][v]);
    _mm256_store_ps(out + v * kLanes, more ? _mm256_add_ps(_mm256_load_ps(out + v * kLanes), sum) : sum);
  }
}

// The sums [outputs of [begin, end), 32] into y, + beta y.
BRICK_AVX2 void store_sums(const float* sums, int64_t begin, int64_t end, float beta, MatView y) {
  int64_t o = begin;
  if (y.rows == kTokensAtATime)
    for (; o + kLanes <= end; o += kLanes)
      for (int64_t t = 0; t < kTokensAtATime; t += kLanes) {
        __m256 v[kLanes];
        for (int i = 0; i < kLanes; ++i) v[i] = _mm256_load_ps(sums + (o - begin + i) * kTokensAtATime + t);
        transpose(v);
        for (int i = 0; i < kLanes; ++i) {
          float* out = y.row(t + i) + o;
          _mm256_storeu_ps(out, beta != 0.0f ? _mm256_add_ps(v[i], _mm256_loadu_ps(out)) : v[i]);
        }
      }
  for (int64_t t = 0; t < y.rows; ++t)
    for (int64_t rest = o; rest < end; ++rest)
      y(t, rest) = sums[(rest - begin) * kTokensAtATime + t] + (beta != 0.0f ? y(t, rest) : 0.0f);
}

BRICK_AVX2 void sum(const KeptLists& lists, int64_t begin, int64_t end, const float* inputs, float beta,
                    MatView y) noexcept {
  alignas(32) float sums[kOutputsAtATime * kTokensAtATime];
  for (int64_t s = 0; s < lists.stretches; ++s) {
    const int64_t* list = lists.begin + s * lists.outputs;
    const float* next = inputs + (s + 1) * lists.width * kTokensAtATime;
    for (int64_t o = begin; o < end; ++o) {
      next = fetch_share(next, lists.width, end - begin);
      sum_list(lists.weights + list[o], lists.weights + list[o + 1], inputs, s > 0,
               sums + (o - begin) * kTokensAtATime);
    }
  }
  store_sums(sums, begin, end, beta, y);
}

// {a0 + a2, b0 + b2, a1 + a3, b1 + b3} of each half.
BRICK_AVX2 inline __m256 add_pairs(__m256 a, __m256 b) {
  return _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
}

// Adds the sum of each vector's lanes to g.
BRICK_AVX2 inline void add_sums(const __m256 (&sums)[kListMultiple], float* g) {
  const __m256 first = add_pairs(sums[0], sums[1]), second = add_pairs(sums[2], sums[3]);
  const __m256 both = _mm256_add_ps(_mm256_shuffle_ps(first, second, 0x44), _mm256_shuffle_ps(first, second, 0xee));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(both), _mm256_extractf128_ps(both, 1));
  _mm_storeu_ps(g, _mm_add_ps(_mm_loadu_ps(g), four));
}

BRICK_AVX2 void sample(const KeptLists& lists, int64_t stretch, int64_t begin, int64_t end, const float* u,
                       const float* v, float* g) noexcept {
  const int64_t* list = lists.begin + stretch * lists.outputs;
  const float* next_u = u + (lists.outputs + begin) * kTokensAtATime;
  const float* next_v = v + (lists.inputs + stretch * lists.width) * kTokensAtATime;
  for (int64_t o = begin; o < end; ++o) {
    next_u = fetch_share(next_u, end - begin, end - begin);
    next_v = fetch_share(next_v, lists.width, end - begin);
    __m256 output[kVectors];
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) output[i] = _mm256_loadu_ps(u + o * kTokensAtATime + i * kLanes);
    for (int64_t k = list[o]; k < list[o + 1]; k += kListMultiple) {
      __m256 sums[kListMultiple];
#pragma GCC unroll 4
      for (int i = 0; i < kListMultiple; ++i) {
        const float* input = v + lists.weights[k + i].offset;
        sums[i] = _mm256_mul_ps(output[0], _mm256_loadu_ps(input));
#pragma GCC unroll 4
        for (int j = 1; j < kVectors; ++j)
          sums[i] = _mm256_fmadd_ps(output[j], _mm256_loadu_ps(input + j * kLanes), sums[i]);
      }
      add_sums(sums, g + k);
    }
  }
}

// Four weights meet the same eight tokens before the next eight: each sample waits for its own last addition.
BRICK_AVX2 void sum_and_sample(const KeptLists& lists, int64_t begin, int64_t end, const float* u, const float* v,
                               float beta, MatView y, float* g) noexcept {
  alignas(32) float sums[kOutputsAtATime * kTokensAtATime];
  for (int64_t s = 0; s < lists.stretches; ++s) {
    const int64_t* list = lists.begin + s * lists.outputs;
    const float* next = v + (s + 1) * lists.width * kTokensAtATime;
    for (int64_t o = begin; o < end; ++o) {
      next = fetch_share(next, lists.width, end - begin);
      float* out = sums + (o - begin) * kTokensAtATime;
      const float* output = u + o * kTokensAtATime;
      __m256 sum[kVectors];
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; ++j) sum[j] = s > 0 ? _mm256_load_ps(out + j * kLanes) : _mm256_setzero_ps();
      for (int64_t k = list[o]; k < list[o + 1]; k += kListMultiple) {
        const KeptWeight* weight = lists.weights + k;
        __m256 values[kListMultiple], samples[kListMultiple];
        const float* inputs[kListMultiple];
#pragma GCC unroll 4
        for (int i = 0; i < kListMultiple; ++i) {
          values[i] = _mm256_broadcast_ss(&weight[i].value);
          inputs[i] = v + weight[i].offset;
        }
#pragma GCC unroll 4
        for (int j = 0; j < kVectors; ++j) {
          const __m256 output_j = _mm256_loadu_ps(output + j * kLanes);
#pragma GCC unroll 4
          for (int i = 0; i < kListMultiple; ++i) {
            const __m256 input = _mm256_loadu_ps(inputs[i] + j * kLanes);
            sum[j] = _mm256_fmadd_ps(values[i], input, sum[j]);
            samples[i] = j == 0 ? _mm256_mul_ps(output_j, input) : _mm256_fmadd_ps(output_j, input, samples[i]);
          }
        }
        add_sums(samples, g + k);
      }
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; ++j) _mm256_store_ps(out + j * kLanes, sum[j]);
    }
  }
  store_sums(sums, begin, end, beta, y);
}

}  // namespace

const SparseProductKernels kSparseProductAvx2{count_columns, gather, sum, sample, sum_and_sample};

}  // namespace brick::kernels
