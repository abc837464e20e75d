#include <immintrin.h>

#include <algorithm>

#include "brick/kernels/sparse_product_impl.h"

#define BRICK_AVX2 __attribute__((target("avx2,fma")))

namespace brick::kernels {
namespace {

using tensor::ConstMatView;
using tensor::MatView;

constexpr int64_t kLanes = 8;

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

// Two sums, of the even and the odd weights: one alone would wait for its own additions.
BRICK_AVX2 inline void sum_list(const KeptWeight* weight, const KeptWeight* end, const float* inputs, float* out) {
  __m256 even[4], odd[4];
  for (int i = 0; i < 4; ++i) even[i] = odd[i] = _mm256_setzero_ps();
  for (; weight + 2 <= end; weight += 2) {
    const __m256 first = _mm256_broadcast_ss(&weight[0].value), second = _mm256_broadcast_ss(&weight[1].value);
    const float *x = inputs + weight[0].offset, *z = inputs + weight[1].offset;
    for (int i = 0; i < 4; ++i) {
      even[i] = _mm256_fmadd_ps(first, _mm256_loadu_ps(x + i * kLanes), even[i]);
      odd[i] = _mm256_fmadd_ps(second, _mm256_loadu_ps(z + i * kLanes), odd[i]);
    }
  }
  if (weight != end) {
    const __m256 last = _mm256_broadcast_ss(&weight->value);
    for (int i = 0; i < 4; ++i)
      even[i] = _mm256_fmadd_ps(last, _mm256_loadu_ps(inputs + weight->offset + i * kLanes), even[i]);
  }
  for (int i = 0; i < 4; ++i) _mm256_storeu_ps(out + i * kLanes, _mm256_add_ps(even[i], odd[i]));
}

BRICK_AVX2 void sum(const KeptLists& lists, int64_t begin, int64_t end, const float* inputs, float beta,
                    MatView y) noexcept {
  alignas(32) float sums[kLanes * kTokensAtATime];  // of eight outputs
  for (int64_t o = begin; o < end; o += kLanes) {
    const int64_t count = std::min(kLanes, end - o);
    for (int64_t i = 0; i < count; ++i)
      sum_list(lists.weights + lists.begin[o + i], lists.weights + lists.begin[o + i + 1], inputs,
               sums + i * kTokensAtATime);
    if (count == kLanes && y.rows == kTokensAtATime) {
      for (int64_t t = 0; t < kTokensAtATime; t += kLanes) {
        __m256 v[kLanes];
        for (int i = 0; i < kLanes; ++i) v[i] = _mm256_load_ps(sums + i * kTokensAtATime + t);
        transpose(v);
        for (int i = 0; i < kLanes; ++i) {
          float* out = y.row(t + i) + o;
          _mm256_storeu_ps(out, beta != 0.0f ? _mm256_add_ps(v[i], _mm256_loadu_ps(out)) : v[i]);
        }
      }
      continue;
    }
    for (int64_t t = 0; t < y.rows; ++t)
      for (int64_t i = 0; i < count; ++i)
        y(t, o + i) = sums[i * kTokensAtATime + t] + (beta != 0.0f ? y(t, o + i) : 0.0f);
  }
}

}  // namespace

const SparseProductKernels kSparseProductAvx2{gather, sum};

}  // namespace brick::kernels
