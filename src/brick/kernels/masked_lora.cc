#include "brick/kernels/masked_lora.h"

#include "brick/kernels/simd_targets.h"

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

void AddDeltaRow(const uint64_t* mask, float scale, const float* b, ConstMatView a, float* out) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d)), n = a.cols, rank = a.rows;
  int64_t c = 0;
  for (; c + lanes <= n; c += lanes) {
    auto sum = hn::Zero(d);
    for (int64_t r = 0; r < rank; ++r) sum = hn::MulAdd(hn::Set(d, scale * b[r]), hn::LoadU(d, a.row(r) + c), sum);
    hn::StoreU(hn::Add(hn::LoadU(d, out + c), Keep(d, mask, c, sum)), d, out + c);
  }
  for (; c < n; ++c) {
    if (!IsKept(mask, c)) continue;
    float sum = 0;
    for (int64_t r = 0; r < rank; ++r) sum += scale * b[r] * a(r, c);
    out[c] += sum;
  }
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

}  // namespace HWY_NAMESPACE
}  // namespace brick::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace brick::kernels {

HWY_EXPORT(AddDeltaRow);
HWY_EXPORT(MaskedRowBackward);

void add_delta_row(const uint64_t* mask, float scale, const float* b, tensor::ConstMatView a, float* out) noexcept {
  HWY_DYNAMIC_DISPATCH(AddDeltaRow)(mask, scale, b, a, out);
}

void masked_row_backward(const uint64_t* mask, float scale, const float* b, tensor::ConstMatView a, float* g, float* db,
                         tensor::MatView da) noexcept {
  HWY_DYNAMIC_DISPATCH(MaskedRowBackward)(mask, scale, b, a, g, db, da);
}

}  // namespace brick::kernels
#endif
