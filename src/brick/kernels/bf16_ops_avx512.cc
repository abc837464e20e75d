// GCC 12 warns of its own headers.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#include <algorithm>
#include <cmath>

#include "brick/base/parallel.h"
#include "brick/kernels/avx512.h"
#include "brick/kernels/bf16_ops.h"

namespace brick::kernels {
namespace {

using tensor::ConstMatView;
using tensor::MatView;

constexpr int64_t kRowGrain = 8;

template <class From, class To>
BRICK_AVX512 void copy_row(const From* x, To* y, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const __mmask16 lanes = lanes_left(n - i);
    store(y + i, lanes, load(lanes, x + i));
  }
}

template <class From, class To>
void copy(From x, To y) {
  parallel_ranges(x.rows, kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) copy_row(x.row(t), y.row(t), x.cols);
  });
}

// Rows of y from `first` on, kLanes or as many as there are. Neighbouring rows of x are words of 32 bits together.
BRICK_AVX512 void transpose_columns(ConstBf16View x, int64_t first, Bf16View y) {
  const int64_t count = std::min(kLanes, x.cols - first);
  const __mmask16 lanes = lanes_left(count);
  const auto read = [&](int64_t t) __attribute__((target("avx512f,avx512bw,avx512vl"))) {
    return t < x.rows ? _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, x.row(t) + first))
                      : _mm512_setzero_si512();
  };
  for (int64_t t = 0; t < y.cols; t += 2 * kLanes) {
    __m512i words[kLanes];
    for (int64_t i = 0; i < kLanes; ++i)
      words[i] = _mm512_or_si512(read(t + 2 * i), _mm512_slli_epi32(read(t + 2 * i + 1), 16));
    transpose(words);
    const auto whole = static_cast<__mmask32>((uint64_t{1} << std::min(2 * kLanes, y.cols - t)) - 1);
    for (int64_t i = 0; i < count; ++i) _mm512_mask_storeu_epi16(y.row(first + i) + t, whole, words[i]);
  }
}

template <class T>
BRICK_AVX512 inline void store_sum(const float* sums, bool add, T* y, __mmask16 lanes) {
  const __m512 sum = load(lanes, sums);
  store(y, lanes, add ? _mm512_add_ps(sum, load(lanes, y)) : sum);
}
template <class T>
BRICK_AVX512 void store_sum_rows(const ConstMatView& sums, bool add, const tensor::BasicMatView<T>& y) {
  for (int64_t r = 0; r < y.rows; ++r) {
    int64_t i = 0;
    for (; i + kLanes <= y.cols; i += kLanes) store_sum(sums.row(r) + i, add, y.row(r) + i, 0xFFFF);
    if (i < y.cols) store_sum(sums.row(r) + i, add, y.row(r) + i, lanes_left(y.cols - i));
  }
}

template <class From>
BRICK_AVX512 void norm_row(const From* x, const float* weight, float r, uint16_t* y, int64_t n) {
  const __m512 scale = _mm512_set1_ps(r);
  for (int64_t i = 0; i < n; i += kLanes) {
    const __mmask16 lanes = lanes_left(n - i);
    store(y + i, lanes, _mm512_mul_ps(_mm512_mul_ps(load(lanes, x + i), scale), load(lanes, weight + i)));
  }
}

BRICK_AVX512 float keep_and_sum_squares(const float* x, uint16_t* kept, int64_t n) {
  __m512 sum = _mm512_setzero_ps();
  for (int64_t i = 0; i < n; i += kLanes) {
    const __mmask16 lanes = lanes_left(n - i);
    const __m512 value = load(lanes, x + i);
    store(kept + i, lanes, value);
    sum = _mm512_fmadd_ps(value, value, sum);
  }
  return _mm512_reduce_add_ps(sum);
}

BRICK_AVX512 void norm_row_backward(const uint16_t* x, const float* weight, float r, const float* dy, float* dx,
                                    int64_t n) {
  __m512 sum = _mm512_setzero_ps();
  for (int64_t i = 0; i < n; i += kLanes) {
    const __mmask16 lanes = lanes_left(n - i);
    sum = _mm512_fmadd_ps(_mm512_mul_ps(load(lanes, dy + i), load(lanes, weight + i)), load(lanes, x + i), sum);
  }
  const __m512 scale = _mm512_set1_ps(r);
  const __m512 along = _mm512_set1_ps(-_mm512_reduce_add_ps(sum) * r * r * r / static_cast<float>(n));
  for (int64_t i = 0; i < n; i += kLanes) {
    const __mmask16 lanes = lanes_left(n - i);
    const __m512 across = _mm512_mul_ps(_mm512_mul_ps(load(lanes, dy + i), load(lanes, weight + i)), scale);
    store(dx + i, lanes, _mm512_add_ps(load(lanes, dx + i), _mm512_fmadd_ps(load(lanes, x + i), along, across)));
  }
}

BRICK_AVX512 void turn_head(const float* cosine, const float* sine, float direction, uint16_t* head, int64_t half) {
  const __m512 sign = _mm512_set1_ps(direction);
  for (int64_t i = 0; i < half; i += kLanes) {
    const __mmask16 lanes = lanes_left(half - i);
    const __m512 a = load(lanes, head + i), b = load(lanes, head + half + i);
    const __m512 c = load(lanes, cosine + i), s = _mm512_mul_ps(sign, load(lanes, sine + i));
    store(head + i, lanes, _mm512_fnmadd_ps(b, s, _mm512_mul_ps(a, c)));
    store(head + half + i, lanes, _mm512_fmadd_ps(a, s, _mm512_mul_ps(b, c)));
  }
}

void turn(const RopeTable& table, const int32_t* positions, int64_t head_dim, float direction, Bf16View x) {
  parallel_ranges(x.rows, kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t place = positions[t] * table.half;
      for (uint16_t* head = x.row(t); head < x.row(t) + x.cols; head += head_dim)
        turn_head(table.cosines.data() + place, table.sines.data() + place, direction, head, table.half);
    }
  });
}

BRICK_AVX512 inline __m512 sigmoid(__m512 x) {
  const __m512 one = _mm512_set1_ps(1.0f);
  return _mm512_div_ps(one, _mm512_add_ps(one, exp(_mm512_sub_ps(_mm512_setzero_ps(), x))));
}

BRICK_AVX512 void swiglu_row(const uint16_t* gate, const uint16_t* up, uint16_t* y, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const __mmask16 lanes = lanes_left(n - i);
    const __m512 g = load(lanes, gate + i);
    store(y + i, lanes, _mm512_mul_ps(_mm512_mul_ps(g, sigmoid(g)), load(lanes, up + i)));
  }
}

BRICK_AVX512 void swiglu_row_backward(uint16_t* gate, uint16_t* up, const uint16_t* dy, int64_t n) {
  const __m512 one = _mm512_set1_ps(1.0f);
  for (int64_t i = 0; i < n; i += kLanes) {
    const __mmask16 lanes = lanes_left(n - i);
    const __m512 g = load(lanes, gate + i), u = load(lanes, up + i), d = load(lanes, dy + i), s = sigmoid(g);
    const __m512 slope = _mm512_mul_ps(s, _mm512_fmadd_ps(g, _mm512_sub_ps(one, s), one));
    store(up + i, lanes, _mm512_mul_ps(d, _mm512_mul_ps(g, s)));
    store(gate + i, lanes, _mm512_mul_ps(_mm512_mul_ps(d, u), slope));
  }
}

}  // namespace

void to_bf16(ConstMatView x, Bf16View y) noexcept { copy(x, y); }
void to_f32(ConstBf16View x, MatView y) noexcept { copy(x, y); }
Bf16View to_bf16_in_place(MatView x) noexcept {
  const Bf16View y(reinterpret_cast<uint16_t*>(x.data), x.rows, x.cols, 2 * x.stride);
  copy(ConstMatView(x), y);
  for (int64_t r = 0; r < y.rows; ++r)
    std::fill(y.row(r) + y.cols, y.row(r) + std::min(2 * x.stride, y.cols + 2 * kLanes), uint16_t{0});
  return y;
}

void transpose(ConstBf16View x, Bf16View y) noexcept {
  const int64_t groups = (x.cols + kLanes - 1) / kLanes;
  parallel_ranges(groups, 1, [&](int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; ++group) transpose_columns(x, group * kLanes, y);
  });
}

void store_sums(const ConstMatView& sums, bool add, const Bf16View& y) noexcept { store_sum_rows(sums, add, y); }
void store_sums(const ConstMatView& sums, bool add, const MatView& y) noexcept { store_sum_rows(sums, add, y); }

void rms_norm(ConstMatView x, const float* weight, float eps, Bf16View kept, Bf16View y, float* inverse_rms) noexcept {
  parallel_ranges(x.rows, kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float mean = keep_and_sum_squares(x.row(t), kept.row(t), x.cols) / static_cast<float>(x.cols);
      inverse_rms[t] = 1.0f / std::sqrt(mean + eps);
      norm_row(x.row(t), weight, inverse_rms[t], y.row(t), x.cols);
    }
  });
}

void rms_norm_again(ConstBf16View kept, const float* weight, const float* inverse_rms, Bf16View y) noexcept {
  parallel_ranges(kept.rows, kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) norm_row(kept.row(t), weight, inverse_rms[t], y.row(t), kept.cols);
  });
}

void rms_norm_backward(ConstBf16View kept, const float* weight, const float* inverse_rms, ConstMatView dy,
                       MatView dx) noexcept {
  parallel_ranges(kept.rows, kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      norm_row_backward(kept.row(t), weight, inverse_rms[t], dy.row(t), dx.row(t), kept.cols);
  });
}

void rope(const RopeTable& table, const int32_t* positions, int64_t head_dim, Bf16View x) noexcept {
  turn(table, positions, head_dim, 1.0f, x);
}
void rope_backward(const RopeTable& table, const int32_t* positions, int64_t head_dim, Bf16View dx) noexcept {
  turn(table, positions, head_dim, -1.0f, dx);
}

void swiglu(ConstBf16View gate, ConstBf16View up, Bf16View y) noexcept {
  parallel_ranges(gate.rows, kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) swiglu_row(gate.row(t), up.row(t), y.row(t), gate.cols);
  });
}

void swiglu_backward(Bf16View gate, Bf16View up, ConstBf16View dy) noexcept {
  parallel_ranges(gate.rows, kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) swiglu_row_backward(gate.row(t), up.row(t), dy.row(t), gate.cols);
  });
}

}  // namespace brick::kernels
