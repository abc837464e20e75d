// AVX2: a permutation looked up by eight mask bits spreads packed values over the lanes.
#include <immintrin.h>

#include <array>
#include <bit>
#include <cstring>

#include "brick/kernels/sparse_row_impl.h"
#include "brick/tensor/dtype_table.h"
#include "brick/tensor/pack.h"

#define BRICK_AVX2 __attribute__((target("avx2,fma,f16c,popcnt,bmi2")))

namespace brick::kernels {
namespace {

constexpr int64_t kLanes = 8;
constexpr int64_t kAhead = 1024;  // values that are fetched early: the hardware alone falls behind

// For each byte of mask: the packed value that each lane takes; a lane without a bit has its sign bit set, which the
// permutation ignores and the blend reads.
constexpr auto kSpread = [] {
  std::array<std::array<uint32_t, kLanes>, 256> table{};
  for (uint32_t bits = 0; bits < 256; ++bits)
    for (uint32_t lane = 0, next = 0; lane < kLanes; ++lane)
      table[bits][lane] = (bits >> lane & 1) != 0 ? next++ : 0x80000000u;
  return table;
}();

// The same as a shuffle of bytes: values of kValueBytes into the last bytes of lanes of kLaneBytes; a byte with its
// sign bit set leaves zero.
template <size_t kValueBytes, size_t kLaneBytes>
constexpr auto spread_bytes() {
  std::array<std::array<uint8_t, kLaneBytes * kLanes>, 256> table{};
  for (uint32_t bits = 0; bits < 256; ++bits) {
    table[bits].fill(0x80);
    uint8_t next = 0;
    for (size_t lane = 0; lane < kLanes; ++lane)
      if ((bits >> lane & 1) != 0)
        for (size_t byte = kLaneBytes - kValueBytes; byte < kLaneBytes; ++byte)
          table[bits][lane * kLaneBytes + byte] = next++;
  }
  return table;
}
alignas(32) constexpr auto kSpreadHigh = spread_bytes<2, 4>();    // bfloat16 to float32
alignas(16) constexpr auto kSpreadHalves = spread_bytes<2, 2>();  // bfloat16 as they are
constexpr auto kSpreadBytes = spread_bytes<1, 1>();

// The other way: where the kept ones of eight int16 values are, to lie side by side.
constexpr auto kGatherHalves = [] {
  std::array<std::array<uint8_t, 2 * kLanes>, 256> table{};
  for (uint32_t bits = 0; bits < 256; ++bits) {
    table[bits].fill(0x80);
    for (uint32_t lane = 0, next = 0; lane < kLanes; ++lane)
      if ((bits >> lane & 1) != 0) {
        table[bits][next++] = static_cast<uint8_t>(2 * lane);
        table[bits][next++] = static_cast<uint8_t>(2 * lane + 1);
      }
  }
  return table;
}();

BRICK_AVX2 inline __m128i load128(const void* source) { return _mm_loadu_si128(static_cast<const __m128i*>(source)); }

BRICK_AVX2 inline uint8_t bits_of(const uint64_t* mask, int64_t c) {
  return static_cast<uint8_t>(mask[c / 64] >> (c % 64));
}

BRICK_AVX2 inline __m256 spread(uint8_t bits, const float* packed) {
  const __m256i lanes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kSpread[bits].data()));
  const __m256 values = _mm256_permutevar8x32_ps(_mm256_loadu_ps(packed), lanes);
  return _mm256_blendv_ps(values, _mm256_setzero_ps(), _mm256_castsi256_ps(lanes));
}

BRICK_AVX2 inline float sum_of_lanes(__m128 v) {
  const __m128 pair = _mm_add_ps(v, _mm_movehl_ps(v, v));
  return _mm_cvtss_f32(_mm_add_ss(pair, _mm_shuffle_ps(pair, pair, 1)));
}

BRICK_AVX2 inline float sum_of_lanes(__m256 v) {
  return sum_of_lanes(_mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1)));
}

BRICK_AVX2 float dot(const uint64_t* mask, const float* packed, const float* x, int64_t cols) noexcept {
  __m256 even = _mm256_setzero_ps(), odd = _mm256_setzero_ps();
  int64_t c = 0;
  for (; c + 2 * kLanes <= cols; c += 2 * kLanes) {
    const uint8_t first = bits_of(mask, c), second = bits_of(mask, c + kLanes);
    const float* after = packed + std::popcount(first);
    even = _mm256_fmadd_ps(spread(first, packed), _mm256_loadu_ps(x + c), even);
    odd = _mm256_fmadd_ps(spread(second, after), _mm256_loadu_ps(x + c + kLanes), odd);
    packed = after + std::popcount(second);
  }
  float total = sum_of_lanes(_mm256_add_ps(even, odd));
  for (; c < cols; ++c)
    if ((mask[c / 64] >> (c % 64) & 1) != 0) total += *packed++ * x[c];
  return total;
}

// Sums of eight columns into `sum`; returns where the kept values go on.
BRICK_AVX2 inline const uint16_t* add_eight(size_t bits, const uint16_t* packed, const float* x, __m256& sum) {
  const __m256i twice = _mm256_broadcastsi128_si256(load128(packed));
  const __m256i places = _mm256_load_si256(reinterpret_cast<const __m256i*>(kSpreadHigh[bits].data()));
  sum = _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_shuffle_epi8(twice, places)), _mm256_loadu_ps(x), sum);
  return packed + std::popcount(bits);
}

BRICK_AVX2 float dot_bf16(const uint64_t* mask, const uint16_t* packed, const float* x, int64_t cols) noexcept {
  __m256 s0 = _mm256_setzero_ps(), s1 = s0, s2 = s0, s3 = s0;
  const auto* bytes = reinterpret_cast<const uint8_t*>(mask);
  int64_t c = 0;
  for (; c + 64 <= cols; c += 64, bytes += 8) {
    _mm_prefetch(reinterpret_cast<const char*>(packed + kAhead), _MM_HINT_T0);
    packed = add_eight(bytes[0], packed, x + c, s0);
    packed = add_eight(bytes[1], packed, x + c + 8, s1);
    packed = add_eight(bytes[2], packed, x + c + 16, s2);
    packed = add_eight(bytes[3], packed, x + c + 24, s3);
    packed = add_eight(bytes[4], packed, x + c + 32, s0);
    packed = add_eight(bytes[5], packed, x + c + 40, s1);
    packed = add_eight(bytes[6], packed, x + c + 48, s2);
    packed = add_eight(bytes[7], packed, x + c + 56, s3);
  }
  for (; c + kLanes <= cols; c += kLanes) packed = add_eight(*bytes++, packed, x + c, s0);
  float total = sum_of_lanes(_mm256_add_ps(_mm256_add_ps(s0, s1), _mm256_add_ps(s2, s3)));
  for (; c < cols; ++c)
    if ((mask[c / 64] >> (c % 64) & 1) != 0) total += tensor::bf16_to_f32(*packed++) * x[c];
  return total;
}

// Rows in vectors of 128 bits, side by side so that they share what is read of x: for CPUs that compute 256 bits in
// halves. A row's sum does not depend on the other one.
template <int kRows>
BRICK_AVX2 inline void dot_rows_128(const SparseBf16Row (&rows)[kRows], const float* x, int64_t cols, float* out) {
  const __m128i zero = _mm_setzero_si128();
  const auto* table = reinterpret_cast<const char*>(kSpreadHalves.data());
  const uint16_t* packed[kRows];
  __m128 low[kRows], high[kRows];
  for (int r = 0; r < kRows; ++r) {
    packed[r] = rows[r].packed;
    low[r] = high[r] = _mm_setzero_ps();
  }
  const auto add = [&](int r, size_t entry, __m128 x_low, __m128 x_high) BRICK_AVX2 {  // entry: mask byte times 16
    const __m128i places = _mm_load_si128(reinterpret_cast<const __m128i*>(table + entry));
    const __m128i values = _mm_shuffle_epi8(load128(packed[r]), places);
    low[r] = _mm_fmadd_ps(_mm_castsi128_ps(_mm_unpacklo_epi16(zero, values)), x_low, low[r]);
    high[r] = _mm_fmadd_ps(_mm_castsi128_ps(_mm_unpackhi_epi16(zero, values)), x_high, high[r]);
    packed[r] += std::popcount(entry);
  };
  int64_t c = 0;
  for (; c + 64 <= cols; c += 64) {
    uint64_t words[kRows];
    for (int r = 0; r < kRows; ++r) {
      words[r] = rows[r].mask[c / 64];
      _mm_prefetch(reinterpret_cast<const char*>(packed[r] + kAhead), _MM_HINT_T0);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      const __m128 x_low = _mm_loadu_ps(x + c + 8 * i), x_high = _mm_loadu_ps(x + c + 8 * i + 4);
      for (int r = 0; r < kRows; ++r) add(r, std::rotr(words[r], 8 * i - 4) & 0xff0, x_low, x_high);
    }
  }
  for (; c + kLanes <= cols; c += kLanes)
    for (int r = 0; r < kRows; ++r)
      add(r, size_t{bits_of(rows[r].mask, c)} * 16, _mm_loadu_ps(x + c), _mm_loadu_ps(x + c + 4));
  for (int r = 0; r < kRows; ++r) {
    out[r] = sum_of_lanes(_mm_add_ps(low[r], high[r]));
    for (int64_t rest = c; rest < cols; ++rest)
      if ((rows[r].mask[rest / 64] >> (rest % 64) & 1) != 0) out[r] += tensor::bf16_to_f32(*packed[r]++) * x[rest];
  }
}

BRICK_AVX2 float dot_bf16_128(const uint64_t* mask, const uint16_t* packed, const float* x, int64_t cols) noexcept {
  float out;
  dot_rows_128<1>({{mask, packed}}, x, cols, &out);
  return out;
}

BRICK_AVX2 void dot_bf16_pair_128(const SparseBf16Row (&rows)[2], const float* x, int64_t cols, float* out) noexcept {
  dot_rows_128<2>(rows, x, cols, out);
}

BRICK_AVX2 inline int16_t* gather_eight(size_t bits, const int16_t* from, int16_t* to) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                   _mm_shuffle_epi8(load128(from), load128(kGatherHalves[bits].data())));
  return to + std::popcount(bits);
}

// The x that a row's kept weights meet, side by side, with zeros behind them to the end of a block.
BRICK_AVX2 inline int64_t gather_input(const uint64_t* mask, const int16_t* x, int64_t cols, int16_t* out) {
  int16_t* next = out;
  const auto* bytes = reinterpret_cast<const uint8_t*>(mask);
  int64_t c = 0;
#pragma GCC unroll 8
  for (; c + kLanes <= cols; c += kLanes) next = gather_eight(*bytes++, x + c, next);
  for (; c < cols; ++c)
    if ((mask[c / 64] >> (c % 64) & 1) != 0) *next++ = x[c];
  for (int i = 0; i < 4; ++i) _mm_storeu_si128(reinterpret_cast<__m128i*>(next) + i, _mm_setzero_si128());
  return next - out;
}

BRICK_AVX2 inline float dot_blocks(const std::byte* blocks, int64_t count, const int16_t* x) {
  const __m128i low = _mm_set1_epi8(15);
  const __m256i ones = _mm256_set1_epi16(1);
  __m256 products = _mm256_setzero_ps(), shifts = products;
  for (int64_t i = 0; i < count; ++i, blocks += tensor::kBlockBytes<tensor::DType::kQ4_1>, x += 32) {
    uint32_t scales;
    std::memcpy(&scales, blocks, 4);
    const __m128 dm = _mm_cvtph_ps(_mm_cvtsi32_si128(static_cast<int>(scales)));
    const __m128i q = load128(blocks + 4);
    const __m256i x0 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
    const __m256i x1 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + 16));
    const __m256i q0 = _mm256_cvtepu8_epi16(_mm_and_si128(q, low));
    const __m256i q1 = _mm256_cvtepu8_epi16(_mm_and_si128(_mm_srli_epi16(q, 4), low));
    const __m256i dot = _mm256_add_epi32(_mm256_madd_epi16(q0, x0), _mm256_madd_epi16(q1, x1));
    const __m256i sum = _mm256_add_epi32(_mm256_madd_epi16(ones, x0), _mm256_madd_epi16(ones, x1));
    products = _mm256_fmadd_ps(_mm256_broadcastss_ps(dm), _mm256_cvtepi32_ps(dot), products);
    shifts = _mm256_fmadd_ps(_mm256_broadcastss_ps(_mm_movehdup_ps(dm)), _mm256_cvtepi32_ps(sum), shifts);
  }
  return sum_of_lanes(_mm256_add_ps(products, shifts));
}

BRICK_AVX2 float dot_q4_1(const uint64_t* mask, const std::byte* packed, Int16Row x, int64_t cols,
                          int16_t* memory) noexcept {
  const int64_t kept = gather_input(mask, x.q, cols, memory);
  return x.scale * dot_blocks(packed, (kept + 31) / 32, memory);
}

// The kept integers of row r of a kParent matrix as bytes in `out`, signed where the format has no minimum; at least
// kLanes bytes behind them may be read.
BRICK_AVX2 inline void integers_of(const tensor::SparseView& view, int64_t r, int8_t* out) {
  const std::byte *row = view.values + view.row_offset[r], *end = view.values + view.row_offset[r + 1];
  const std::byte* q = row + view.cols() / tensor::kQuantBlock * tensor::parent_scale_bytes(view.dtype);
  if (!tensor::parent_has_nibbles(view.dtype)) {
    std::memcpy(out, q, static_cast<size_t>(end - q));
    return;
  }
  const __m128i low = _mm_set1_epi8(15);
  const __m128i zero = _mm_set1_epi8(view.dtype == tensor::DType::kQ4_0 ? 8 : 0);
  for (; q < end; q += 16, out += 32) {
    __m128i pairs = _mm_setzero_si128();
    if (end - q >= 16)
      pairs = load128(q);
    else
      std::memcpy(&pairs, q, static_cast<size_t>(end - q));
    const __m128i even = _mm_sub_epi8(_mm_and_si128(pairs, low), zero);
    const __m128i odd = _mm_sub_epi8(_mm_and_si128(_mm_srli_epi16(pairs, 4), low), zero);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm_unpacklo_epi8(even, odd));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 16), _mm_unpackhi_epi8(even, odd));
  }
}

BRICK_AVX2 inline __m128i load64(const void* source) { return _mm_loadl_epi64(static_cast<const __m128i*>(source)); }

template <bool kHasMinimum>
BRICK_AVX2 inline float dot_parent_of(const tensor::SparseView& view, int64_t r, const int16_t* x, const int8_t* next) {
  const std::byte* scales = view.values + view.row_offset[r];
  const uint64_t* mask = view.mask.row(r);
  const __m128i none = _mm_set1_epi8(-1);
  __m256 products = _mm256_setzero_ps(), shifts = products;
  for (int64_t b = 0; b < view.cols() / tensor::kQuantBlock; ++b) {
    auto bits = static_cast<uint32_t>(mask[b / 2] >> (b % 2 * 32));
    __m256i dot = _mm256_setzero_si256(), sum = dot;
    for (int half = 0; half < 2; ++half, bits >>= 16, x += 16) {
      const size_t first = bits & 255, second = bits >> 8 & 255;
      const __m128i to_first = load64(kSpreadBytes[first].data()), to_second = load64(kSpreadBytes[second].data());
      const int8_t* after = next + std::popcount(first);
      const __m128i q =
          _mm_unpacklo_epi64(_mm_shuffle_epi8(load64(next), to_first), _mm_shuffle_epi8(load64(after), to_second));
      next = after + std::popcount(second);
      const __m256i these = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
      dot = _mm256_add_epi32(dot, _mm256_madd_epi16(_mm256_cvtepi8_epi16(q), these));
      if constexpr (kHasMinimum) {  // -1 where a weight is kept
        const __m128i kept = _mm_cmpgt_epi8(_mm_unpacklo_epi64(to_first, to_second), none);
        sum = _mm256_sub_epi32(sum, _mm256_madd_epi16(_mm256_cvtepi8_epi16(kept), these));
      }
    }
    constexpr int kEach = kHasMinimum ? 4 : 2;
    uint32_t halves = 0;
    std::memcpy(&halves, scales + b * kEach, kEach);
    const __m128 d_m = _mm_cvtph_ps(_mm_cvtsi32_si128(static_cast<int>(halves)));
    products = _mm256_fmadd_ps(_mm256_broadcastss_ps(d_m), _mm256_cvtepi32_ps(dot), products);
    if constexpr (kHasMinimum)
      shifts = _mm256_fmadd_ps(_mm256_broadcastss_ps(_mm_movehdup_ps(d_m)), _mm256_cvtepi32_ps(sum), shifts);
  }
  return sum_of_lanes(_mm256_add_ps(products, shifts));
}

BRICK_AVX2 float dot_parent(const tensor::SparseView& view, int64_t r, Int16Row x, int16_t* memory) noexcept {
  auto* integers = reinterpret_cast<int8_t*>(memory);
  integers_of(view, r, integers);
  return x.scale * (view.dtype == tensor::DType::kQ4_1 ? dot_parent_of<true>(view, r, x.q, integers)
                                                       : dot_parent_of<false>(view, r, x.q, integers));
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

// Eight integers of a row of a kParent matrix, from the `first` one on; `end` is that of the row's bytes.
BRICK_AVX2 inline __m256i eight_integers(const std::byte* q, int64_t first, bool nibbles, const std::byte* end) {
  const std::byte* at = q + (nibbles ? first / 2 : first);
  uint64_t bytes = 0;
  if (end - at >= 8) {
    std::memcpy(&bytes, at, 8);
  } else {
    std::memcpy(&bytes, at, static_cast<size_t>(end - at));
  }
  if (!nibbles) return _mm256_cvtepi8_epi32(_mm_cvtsi64_si128(static_cast<int64_t>(bytes)));
  const __m256i all = _mm256_set1_epi32(static_cast<int>(bytes >> (first % 2 * 4)));
  return _mm256_and_si256(_mm256_srlv_epi32(all, _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28)),
                          _mm256_set1_epi32(15));
}

BRICK_AVX2 void unpack_parent(const tensor::SparseView& view, int64_t r, float* out) noexcept {
  const std::byte *scales = view.values + view.row_offset[r], *end = view.values + view.row_offset[r + 1];
  const int64_t blocks = view.cols() / tensor::kQuantBlock, each = tensor::parent_scale_bytes(view.dtype);
  const bool nibbles = tensor::parent_has_nibbles(view.dtype), has_minimum = view.dtype == tensor::DType::kQ4_1;
  const std::byte* q = scales + blocks * each;
  const uint64_t* mask = view.mask.row(r);
  int64_t n = 0;
  for (int64_t b = 0; b < blocks; ++b, scales += each) {
    uint32_t halves = 0;
    std::memcpy(&halves, scales, static_cast<size_t>(each));
    const __m128 d_m = _mm_cvtph_ps(_mm_cvtsi32_si128(static_cast<int>(halves)));
    const __m256 d = _mm256_broadcastss_ps(d_m);
    const __m256 m = has_minimum ? _mm256_broadcastss_ps(_mm_movehdup_ps(d_m))
                     : nibbles   ? _mm256_mul_ps(d, _mm256_set1_ps(-8.0f))
                                 : _mm256_setzero_ps();
    const int64_t next = n + std::popcount(static_cast<uint32_t>(mask[b / 2] >> (b % 2 * 32)));
    for (int64_t i = n; i < next; i += kLanes) {
      const __m256 value = _mm256_cvtepi32_ps(eight_integers(q, i, nibbles, end));
      _mm256_storeu_ps(out + i, _mm256_add_ps(_mm256_mul_ps(d, value), m));  // the product is exact
    }
    n = next;
  }
}

}  // namespace

const SparseRowKernels kSparseRowAvx2{dot, dot_bf16, one_by_one<dot_bf16>, expand, unpack_parent, dot_q4_1, dot_parent};
const SparseRowKernels kSparseRowAvx2Halves{dot,           dot_bf16_128, dot_bf16_pair_128, expand,
                                            unpack_parent, dot_q4_1,     dot_parent};

}  // namespace brick::kernels
