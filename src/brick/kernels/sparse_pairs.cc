#include "brick/kernels/sparse_pairs.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "brick/base/cpu.h"
#include "brick/base/parallel.h"
#include "brick/kernels/sparse_pairs_impl.h"
#include "brick/tensor/pack.h"

namespace brick::kernels {
namespace {

using tensor::DType;
using tensor::SparseView;

constexpr int64_t kColumnsAtATime = 16;  // two vectors
constexpr int64_t kPairGrain = 16;

// Where a block has the weight of a lane of its v-th vector, counted in weights.
template <class Value>
int64_t index_of(int64_t v, int64_t lane) {
  return sizeof(Value) == sizeof(float) ? kPairLanes * v + lane : 2 * kPairLanes * (v / 2) + 2 * lane + v % 2;
}

template <class Value>
void write_pair(const SparseView& view, int64_t pair, std::byte* out) {
  const std::byte* next[2];
  for (int64_t row = 0; row < 2; ++row) next[row] = view.values + view.row_offset[2 * pair + row];
  for (int64_t first = 0; first < view.cols(); first += kPairBlock) {
    const int64_t vectors = std::min(kPairBlock, view.cols() - first) / kPairLanes;
    uint32_t places[kPairLanes] = {};
    std::byte* weights = out + kPlacesBytes;
    for (int64_t v = 0; v < vectors; ++v)
      for (int64_t half = 0; half < 2; ++half)
        for (int64_t row = 0; row < 2; ++row) {
          const int64_t c = first + kPairLanes * v + 4 * half, lane = 4 * half + 2 * row;
          const auto kept = static_cast<uint32_t>(view.mask.row(2 * pair + row)[c / 64] >> (c % 64) & 15);
          places[lane] |= static_cast<uint32_t>(std::countr_zero(kept)) << (2 * v);
          places[lane + 1] |= static_cast<uint32_t>(std::countr_zero(kept & (kept - 1))) << (2 * v);
          for (int64_t i = 0; i < 2; ++i, next[row] += sizeof(Value))
            std::memcpy(weights + index_of<Value>(v, lane + i) * sizeof(Value), next[row], sizeof(Value));
        }
    std::memcpy(out, places, kPlacesBytes);
    out = weights + vectors * kPairLanes * sizeof(Value);
  }
}

float to_f32(float value) { return value; }
float to_f32(uint16_t value) { return tensor::bf16_to_f32(value); }

template <class Value>
void dot_scalar(const std::byte* pair, const float* x, int64_t cols, float* out) noexcept {
  float sums[2] = {};
  for (; cols > 0; cols -= kPairBlock, x += kPairBlock) {
    const int64_t vectors = std::min(kPairBlock, cols) / kPairLanes;
    uint32_t places[kPairLanes];
    std::memcpy(places, pair, kPlacesBytes);
    const std::byte* weights = pair + kPlacesBytes;
    for (int64_t v = 0; v < vectors; ++v)
      for (int64_t lane = 0; lane < kPairLanes; ++lane) {
        Value weight;
        std::memcpy(&weight, weights + index_of<Value>(v, lane) * sizeof(Value), sizeof(Value));
        sums[lane / 2 % 2] += to_f32(weight) * x[kPairLanes * v + lane / 4 * 4 + (places[lane] >> (2 * v) & 3)];
      }
    pair = weights + vectors * kPairLanes * sizeof(Value);
  }
  std::copy_n(sums, 2, out);
}

// Whether every four columns keep two.
bool keeps_two_of_four(tensor::MaskView mask) {
  constexpr uint64_t kOnes = 0x5555555555555555, kPairs = 0x3333333333333333, kTwos = 0x2222222222222222;
  for (int64_t r = 0; r < mask.rows; ++r)
    for (int64_t c = 0; c < mask.cols; c += 64) {
      const uint64_t bits = mask.row(r)[c / 64];
      const uint64_t of_two = (bits & kOnes) + (bits >> 1 & kOnes);
      const uint64_t of_four = (of_two & kPairs) + (of_two >> 2 & kPairs);
      if (of_four != kTwos >> std::max<int64_t>(0, c + 64 - mask.cols)) return false;
    }
  return true;
}

}  // namespace

const PairKernels kPairsScalar{dot_scalar<float>, dot_scalar<uint16_t>};

bool SparsePairs::fits(const SparseView& view) noexcept {
  static const bool fast = active_isa() >= Isa::kAvx2;
  return fast && view.coding == tensor::SparseCoding::kValues &&
         (view.dtype == DType::kF32 || view.dtype == DType::kBF16) && view.rows() % 2 == 0 &&
         view.cols() % kColumnsAtATime == 0 && keeps_two_of_four(view.mask);
}

SparsePairs::SparsePairs(const SparseView& view) : dtype_(view.dtype), pairs_(view.rows() / 2) {
  const int64_t blocks = (view.cols() + kPairBlock - 1) / kPairBlock;
  vectors_ = blocks + view.cols() * tensor::info(dtype_).block_bytes / static_cast<int64_t>(sizeof(Vector));
  memory_.resize(static_cast<size_t>(pairs_ * vectors_));
  parallel_ranges(pairs_, kPairGrain, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p)
      (dtype_ == DType::kF32 ? write_pair<float>
                             : write_pair<uint16_t>)(view, p, memory_[static_cast<size_t>(p * vectors_)].bytes);
  });
}

void SparsePairs::product(int64_t begin, int64_t end, tensor::ConstMatView x, float beta,
                          tensor::MatView y) const noexcept {
  const PairKernels& kernels = active_isa() >= Isa::kAvx2 ? kPairsAvx2 : kPairsScalar;
  const PairDot dot = dtype_ == DType::kF32 ? kernels.f32 : kernels.bf16;
  for (int64_t p = begin; p < end; ++p)
    for (int64_t t = 0; t < x.rows; ++t) {
      float out[2];
      dot(pair(p), x.row(t), x.cols, out);
      for (int64_t i = 0; i < 2; ++i) {
        float& to = y(t, 2 * p + i);
        to = out[i] + (beta != 0.0f ? to : 0.0f);
      }
    }
}

}  // namespace brick::kernels
