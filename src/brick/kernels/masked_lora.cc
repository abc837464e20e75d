#include "brick/kernels/masked_lora.h"

#include <algorithm>

#include "brick/base/parallel.h"
#include "brick/kernels/simd_targets.h"
#include "brick/kernels/thin_product.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "brick/kernels/masked_lora.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace brick::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using tensor::ConstMatView;
using tensor::MatView;

inline bool IsKept(const uint64_t* mask, int64_t c) { return mask == nullptr || (mask[c / 64] >> (c % 64) & 1u) != 0; }

// The value where the mask has its bit, else 0. Lanes divide 64, so a vector never straddles two words.
template <class D, class V>
HWY_INLINE V Keep(D d, const uint64_t* mask, int64_t c, V value) {
  if (mask == nullptr) return value;
  const uint64_t bits = mask[c / 64] >> (c % 64);
  return hn::IfThenElseZero(hn::LoadMaskBits(d, reinterpret_cast<const uint8_t*>(&bits)), value);
}

// kRanks rows of a from `first` on.
template <int kRanks>
void AddRanks(const uint64_t* mask, float scale, const float* b, ConstMatView a, int64_t first, float* out) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d)), n = a.cols;
  hn::Vec<decltype(d)> factors[kRanks];
  for (int r = 0; r < kRanks; ++r) factors[r] = hn::Set(d, scale * b[first + r]);
  int64_t c = 0;
  for (; c + lanes <= n; c += lanes) {
    auto sum = hn::Mul(factors[0], hn::LoadU(d, a.row(first) + c));
    for (int r = 1; r < kRanks; ++r) sum = hn::MulAdd(factors[r], hn::LoadU(d, a.row(first + r) + c), sum);
    hn::StoreU(hn::Add(hn::LoadU(d, out + c), Keep(d, mask, c, sum)), d, out + c);
  }
  for (; c < n; ++c) {
    if (!IsKept(mask, c)) continue;
    for (int r = 0; r < kRanks; ++r) out[c] += scale * b[first + r] * a(first + r, c);
  }
}

void AddDeltaRow(const uint64_t* mask, float scale, const float* b, ConstMatView a, float* out) {
  constexpr int kRanks = 8;
  int64_t r = 0;
  for (; r + kRanks <= a.rows; r += kRanks) AddRanks<kRanks>(mask, scale, b, a, r, out);
  for (; r < a.rows; ++r) AddRanks<1>(mask, scale, b, a, r, out);
}

void MaskedRowBackward(const uint64_t* mask, float scale, const float* b, ConstMatView a, float* g, float* db,
                       MatView da) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d)), n = a.cols, whole = n - n % lanes;
  for (int64_t c = 0; c < whole; c += lanes) hn::StoreU(Keep(d, mask, c, hn::LoadU(d, g + c)), d, g + c);
  for (int64_t c = whole; c < n; ++c) g[c] = IsKept(mask, c) ? g[c] : 0.0f;
  for (int64_t r = 0; r < a.rows; ++r) {
    const float* a_row = a.row(r);
    float* da_row = da.row(r);
    const float weight = scale * b[r];
    const auto factor = hn::Set(d, weight);
    auto sums = hn::Zero(d);
    for (int64_t c = 0; c < whole; c += lanes) {
      const auto vg = hn::LoadU(d, g + c);
      sums = hn::MulAdd(vg, hn::LoadU(d, a_row + c), sums);
      hn::StoreU(hn::MulAdd(factor, vg, hn::LoadU(d, da_row + c)), d, da_row + c);
    }
    float sum = hn::GetLane(hn::SumOfLanes(d, sums));
    for (int64_t c = whole; c < n; ++c) {
      sum += g[c] * a_row[c];
      da_row[c] += weight * g[c];
    }
    db[r] += scale * sum;
  }
}

// One list: da += g b, db += g a, for a and da [rank] of its output, b and db [inputs, rank], rank a multiple of
// kThinColumns.
void ListGradient(const KeptWeight* weights, int64_t count, const float* g, int64_t rank, const float* a,
                  const float* b, float* da, float* db) {
  const hn::CappedTag<float, kThinColumns> d;
  for (int64_t r = 0; r < rank; r += static_cast<int64_t>(hn::Lanes(d))) {
    const auto factor = hn::LoadU(d, a + r);
    auto sum = hn::LoadU(d, da + r);
    for (int64_t k = 0; k < count; ++k) {
      const int64_t place = weights[k].offset / kTokensAtATime * rank + r;
      const auto gradient = hn::Set(d, g[k]);
      sum = hn::MulAdd(gradient, hn::LoadU(d, b + place), sum);
      hn::StoreU(hn::MulAdd(gradient, factor, hn::LoadU(d, db + place)), d, db + place);
    }
    hn::StoreU(sum, d, da + r);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace brick::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace brick::kernels {

HWY_EXPORT(AddDeltaRow);
HWY_EXPORT(MaskedRowBackward);
HWY_EXPORT(ListGradient);

void add_delta_row(const uint64_t* mask, float scale, const float* b, tensor::ConstMatView a, float* out) noexcept {
  HWY_DYNAMIC_DISPATCH(AddDeltaRow)(mask, scale, b, a, out);
}

void masked_row_backward(const uint64_t* mask, float scale, const float* b, tensor::ConstMatView a, float* g, float* db,
                         tensor::MatView da) noexcept {
  HWY_DYNAMIC_DISPATCH(MaskedRowBackward)(mask, scale, b, a, g, db, da);
}

namespace {

constexpr int64_t kColumnGrain = 16;

}  // namespace

// b, and of each thread db and a column of a and da.
int64_t masked_gradient_floats(int64_t rank, int64_t inputs) {
  return thin_width(rank) * (inputs + threads() * (inputs + 2));
}

void masked_gradient(const KeptLists& lists, const float* g, float scale, tensor::ConstMatView b,
                     tensor::ConstMatView a, tensor::MatView db, tensor::MatView da, float* memory) {
  const int64_t rank = thin_width(a.rows), own_floats = rank * (b.rows + 2);
  float *wide_b = memory, *own_memory = memory + rank * b.rows;
  std::fill_n(memory, masked_gradient_floats(a.rows, b.rows), 0.0f);
  for (int64_t i = 0; i < b.rows; ++i) std::copy_n(b.row(i), b.cols, wide_b + i * rank);
  parallel_ranges(lists.outputs, kColumnGrain, [&](int64_t begin, int64_t end) {
    float* own_db = own_memory + omp_get_thread_num() * own_floats;
    float *column = own_db + rank * b.rows, *gradient = column + rank;
    for (int64_t o = begin; o < end; ++o) {
      for (int64_t r = 0; r < a.rows; ++r) column[r] = a(r, o);
      std::fill_n(gradient, rank, 0.0f);
      for (int64_t s = 0; s < lists.stretches; ++s) {
        const int64_t first = lists.begin[s * lists.outputs + o];
        HWY_DYNAMIC_DISPATCH(ListGradient)
        (lists.weights + first, lists.kept(s, o), g + first, rank, column, wide_b, gradient, own_db);
      }
      for (int64_t r = 0; r < a.rows; ++r) da(r, o) += scale * gradient[r];
    }
  });
  // Each thread summed its own; they are added in a fixed order.
  for (int t = 0; t < threads(); ++t)
    for (int64_t i = 0; i < b.rows; ++i)
      for (int64_t r = 0; r < b.cols; ++r) db(i, r) += scale * own_memory[t * own_floats + i * rank + r];
}

}  // namespace brick::kernels
#endif
