#include "brick/tensor/k_quants.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "brick/base/error.h"

namespace brick::tensor {
namespace {

constexpr int kAffineSub = 32, kAffineSubs = kSuperBlock / kAffineSub;     // Q4_K, Q5_K
constexpr int kCentredSub = 16, kCentredSubs = kSuperBlock / kCentredSub;  // Q6_K
constexpr int kSixBits = 63;
constexpr int kRefits = 2;      // of the step after rounding to it
constexpr int kStepTrials = 8;  // on either side of the plain step size
constexpr float kTrialWidth = 0.125f;
constexpr int kScaleTrials = 4;  // integers for the largest step of a super-block

float load_half(const std::byte* p) {
  uint16_t bits;
  std::memcpy(&bits, p, 2);
  return f16_to_f32(bits);
}
void store_half(std::byte* p, float value) {
  const uint16_t bits = f32_to_f16(value);
  std::memcpy(p, &bits, 2);
}
float to_half(float value) { return f16_to_f32(f32_to_f16(value)); }

// To the nearest integer, ties to even, for |x| < 2^22; vectorises on every x86-64.
float nearest(float x) { return (x + 0x1.8p23f) - 0x1.8p23f; }
int nearest_int(float x, int low, int high) {
  return x > static_cast<float>(low) ? static_cast<int>(nearest(std::min(x, static_cast<float>(high)))) : low;
}

// Partial sums side by side, which the compiler may keep in one vector: it may not reorder a plain sum.
template <size_t kCount, class Term>
float sum_of(Term term) {
  constexpr size_t kLanes = 8;
  std::array<float, kLanes> sums{};
  for (size_t i = 0; i < kCount; i += kLanes)
    for (size_t lane = 0; lane < kLanes; ++lane) sums[lane] += term(i + lane);
  return ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]));
}

// --- value = step q - offset, q in 0..levels

struct Affine {
  float step = 0, offset = 0;  // both >= 0
};

struct AffineSub {
  std::array<float, kAffineSub> x, w;
  float levels, sum_w, sum_wx;

  AffineSub() = default;
  AffineSub(const float* values, float levels_) : levels(levels_) {
    std::copy_n(values, kAffineSub, x.begin());
    const float typical = std::sqrt(sum_of<kAffineSub>([&](size_t i) { return x[i] * x[i]; }) / kAffineSub);
    for (size_t i = 0; i < x.size(); ++i) w[i] = typical + std::fabs(x[i]);
    sum_w = sum_of<kAffineSub>([&](size_t i) { return w[i]; });
    sum_wx = sum_of<kAffineSub>([&](size_t i) { return w[i] * x[i]; });
  }

  void round_to(Affine grid, float* q) const {
    const float inverse = grid.step > 0 ? 1.0f / grid.step : 0.0f;
    for (size_t i = 0; i < x.size(); ++i)
      q[i] = nearest(std::max(0.0f, std::min((x[i] + grid.offset) * inverse, levels)));
  }
  float error(Affine grid, const float* q) const {
    return sum_of<kAffineSub>([&](size_t i) {
      const float difference = grid.step * q[i] - grid.offset - x[i];
      return w[i] * difference * difference;
    });
  }
  float rounded_error(Affine grid) const {
    std::array<float, kAffineSub> q;
    round_to(grid, q.data());
    return error(grid, q.data());
  }
  // The least squares of step and offset for given integers, neither below 0.
  Affine refit(const float* q) const {
    const float wq = sum_of<kAffineSub>([&](size_t i) { return w[i] * q[i]; });
    const float wqq = sum_of<kAffineSub>([&](size_t i) { return w[i] * q[i] * q[i]; });
    const float wqx = sum_of<kAffineSub>([&](size_t i) { return w[i] * q[i] * x[i]; });
    const float variance = wqq - wq * wq / sum_w;
    constexpr float kAllAlike = 5e-3f;  // between rounding and what one integer that differs by one makes
    if (variance > kAllAlike * sum_w) {
      const float step = (wqx - wq * sum_wx / sum_w) / variance, offset = (step * wq - sum_wx) / sum_w;
      if (step >= 0 && offset >= 0) return {step, offset};
    }
    return {wqq > 0 ? std::max(wqx / wqq, 0.0f) : 0.0f, 0.0f};
  }
  Affine fit() const {
    const float low = std::min(0.0f, *std::min_element(x.begin(), x.end()));
    const float high = *std::max_element(x.begin(), x.end());
    if (!(high > low)) return {0.0f, -low};
    Affine best;
    float least = INFINITY;
    std::array<float, kAffineSub> q;
    for (int trial = -kStepTrials; trial <= kStepTrials; ++trial) {
      Affine grid{(high - low) / (levels + kTrialWidth * static_cast<float>(trial)), -low};
      for (int i = 0; i < kRefits; ++i) {
        round_to(grid, q.data());
        grid = refit(q.data());
        if (const float found = error(grid, q.data()); found < least) {
          least = found;
          best = grid;
        }
      }
    }
    return best;
  }
};

struct AffineBlock {
  float d = 0, m = 0;  // as float16 holds them
  std::array<int, kAffineSubs> scales{}, minima{};

  Affine grid(size_t sub) const { return {d * static_cast<float>(scales[sub]), m * static_cast<float>(minima[sub])}; }
};

// Integers beside the rounded ones, as the step and the offset of a sub-block are rounded together; the error that they
// leave.
float choose_integers(const AffineSub& sub, Affine wanted, AffineBlock& block, size_t at) {
  const float inverse_d = block.d > 0 ? 1.0f / block.d : 0.0f, inverse_m = block.m > 0 ? 1.0f / block.m : 0.0f;
  const int scale = nearest_int(wanted.step * inverse_d, 0, kSixBits);
  const int minimum = nearest_int(wanted.offset * inverse_m, 0, kSixBits);
  float least = INFINITY;
  for (int s = std::max(scale - 1, 0); s <= std::min(scale + 1, kSixBits); ++s)
    for (int t = std::max(minimum - 1, 0); t <= std::min(minimum + 1, kSixBits); ++t) {
      const float found = sub.rounded_error({block.d * static_cast<float>(s), block.m * static_cast<float>(t)});
      if (!(found < least)) continue;
      least = found;
      block.scales[at] = s;
      block.minima[at] = t;
    }
  return least;
}

float total_error(const std::array<AffineSub, kAffineSubs>& subs, const AffineBlock& block) {
  float sum = 0;
  for (size_t i = 0; i < subs.size(); ++i) sum += subs[i].rounded_error(block.grid(i));
  return sum;
}

// The least squares of d and m for given integers, kept where it is better once both are float16.
void refit_halves(const std::array<AffineSub, kAffineSubs>& subs, AffineBlock& block) {
  double aa = 0, ab = 0, bb = 0, ax = 0, bx = 0;
  for (size_t i = 0; i < subs.size(); ++i) {
    std::array<float, kAffineSub> q;
    subs[i].round_to(block.grid(i), q.data());
    for (size_t j = 0; j < q.size(); ++j) {
      const double a = static_cast<double>(block.scales[i]) * q[j], b = -block.minima[i], w = subs[i].w[j],
                   x = subs[i].x[j];
      aa += w * a * a;
      ab += w * a * b;
      bb += w * b * b;
      ax += w * a * x;
      bx += w * b * x;
    }
  }
  const double determinant = aa * bb - ab * ab;
  AffineBlock other = block;
  if (determinant > 0) {
    other.d = to_half(static_cast<float>((bb * ax - ab * bx) / determinant));
    other.m = to_half(static_cast<float>((aa * bx - ab * ax) / determinant));
  } else if (aa > 0) {
    other.d = to_half(static_cast<float>(ax / aa));
  }
  if (other.d >= 0 && other.m >= 0 && total_error(subs, other) < total_error(subs, block)) block = other;
}

AffineBlock fit_affine(const std::array<AffineSub, kAffineSubs>& subs) {
  std::array<Affine, kAffineSubs> wanted;
  float step = 0, offset = 0;
  for (size_t i = 0; i < subs.size(); ++i) {
    wanted[i] = subs[i].fit();
    step = std::max(step, wanted[i].step);
    offset = std::max(offset, wanted[i].offset);
  }
  AffineBlock best;
  float least = INFINITY;
  for (int integer = kSixBits; integer > kSixBits - kScaleTrials; --integer) {
    AffineBlock block;
    block.d = to_half(step / static_cast<float>(integer));
    block.m = to_half(offset / kSixBits);
    float found = 0;
    for (size_t i = 0; i < subs.size(); ++i) found += choose_integers(subs[i], wanted[i], block, i);
    if (!(found < least)) continue;
    least = found;
    best = block;
  }
  refit_halves(subs, best);
  return best;
}

// As load_six_bits() reads them.
void store_six_bits(const AffineBlock& block, std::byte* out) {
  for (size_t i = 0; i < 4; ++i) {
    const int s = block.scales[i + 4], t = block.minima[i + 4];
    out[i] = static_cast<std::byte>(block.scales[i] | s >> 4 << 6);
    out[i + 4] = static_cast<std::byte>(block.minima[i] | t >> 4 << 6);
    out[i + 8] = static_cast<std::byte>((s & 15) | (t & 15) << 4);
  }
}

// Byte l of pair p of sub-blocks has value l of the first in its low half and of the second in its high half; their
// fifth bits are bits 2p and 2p + 1 of byte l of the fifth bits.
void pack_affine(bool five_bits, const float* x, std::byte* out) {
  std::array<AffineSub, kAffineSubs> subs;
  for (size_t i = 0; i < subs.size(); ++i) subs[i] = AffineSub(x + i * kAffineSub, five_bits ? 31.0f : 15.0f);
  const AffineBlock block = fit_affine(subs);
  store_half(out, block.d);
  store_half(out + 2, block.m);
  store_six_bits(block, out + 4);
  std::byte* fifth = out + 16;
  std::byte* nibbles = five_bits ? fifth + kAffineSub : fifth;
  if (five_bits) std::fill_n(fifth, kAffineSub, std::byte{0});
  for (size_t p = 0; p < kAffineSubs / 2; ++p, nibbles += kAffineSub) {
    std::array<float, kAffineSub> low, high;
    subs[2 * p].round_to(block.grid(2 * p), low.data());
    subs[2 * p + 1].round_to(block.grid(2 * p + 1), high.data());
    for (size_t l = 0; l < low.size(); ++l) {
      const int a = static_cast<int>(low[l]), b = static_cast<int>(high[l]);
      nibbles[l] = static_cast<std::byte>((a & 15) | (b & 15) << 4);
      if (five_bits) fifth[l] |= static_cast<std::byte>(a >> 4 << 2 * p | b >> 4 << (2 * p + 1));
    }
  }
}

void unpack_affine(bool five_bits, const std::byte* in, float* out) {
  const float d = load_half(in), m = load_half(in + 2);
  const SixBits six = load_six_bits(in + 4);
  const auto* fifth = reinterpret_cast<const uint8_t*>(in + 16);
  const uint8_t* nibbles = five_bits ? fifth + kAffineSub : fifth;
  for (size_t i = 0; i < kAffineSubs; ++i, out += kAffineSub) {
    const float step = d * static_cast<float>(six.s[i]), offset = m * static_cast<float>(six.t[i]);
    const uint8_t* pair = nibbles + i / 2 * kAffineSub;
    for (size_t l = 0; l < kAffineSub; ++l) {
      const int upper = five_bits ? (fifth[l] >> i & 1) << 4 : 0;
      out[l] = step * static_cast<float>((i % 2 == 0 ? pair[l] & 15 : pair[l] >> 4) + upper) - offset;
    }
  }
}

// --- value = step q, q in -32..31

struct CentredSub {
  std::array<float, kCentredSub> x, w;

  void round_to(float step, float* q) const {
    const float inverse = step != 0 ? 1.0f / step : 0.0f;
    for (size_t i = 0; i < x.size(); ++i) q[i] = nearest(std::max(-32.0f, std::min(x[i] * inverse, 31.0f)));
  }
  float error(float step, const float* q) const {
    return sum_of<kCentredSub>([&](size_t i) {
      const float difference = step * q[i] - x[i];
      return w[i] * difference * difference;
    });
  }
  float rounded_error(float step) const {
    std::array<float, kCentredSub> q;
    round_to(step, q.data());
    return error(step, q.data());
  }
  float refit(const float* q) const {
    const float wqq = sum_of<kCentredSub>([&](size_t i) { return w[i] * q[i] * q[i]; });
    return wqq > 0 ? sum_of<kCentredSub>([&](size_t i) { return w[i] * q[i] * x[i]; }) / wqq : 0.0f;
  }
  // The extreme goes to about -32, as there is one more step on that side.
  float fit() const {
    const float extreme =
        *std::max_element(x.begin(), x.end(), [](float a, float b) { return std::fabs(a) < std::fabs(b); });
    if (extreme == 0) return 0;
    float best = 0, least = INFINITY;
    std::array<float, kCentredSub> q;
    for (int trial = -kStepTrials; trial <= kStepTrials; ++trial) {
      float step = -extreme / (32.0f + kTrialWidth * static_cast<float>(trial));
      for (int i = 0; i < kRefits; ++i) {
        round_to(step, q.data());
        step = refit(q.data());
        if (const float found = error(step, q.data()); found < least) {
          least = found;
          best = step;
        }
      }
    }
    return best;
  }
};

struct CentredBlock {
  float d = 0;
  std::array<int, kCentredSubs> scales{};

  float step(size_t sub) const { return d * static_cast<float>(scales[sub]); }
};

// The integers for one d, and the sum that they leave.
float choose_scales(const std::array<CentredSub, kCentredSubs>& subs, const float* wanted, CentredBlock& block) {
  float total = 0;
  for (size_t i = 0; i < subs.size(); ++i) {
    const int scale = nearest_int(wanted[i] / block.d, -128, 127);
    float least = INFINITY;
    for (int s = std::max(scale - 1, -128); s <= std::min(scale + 1, 127); ++s)
      if (const float found = subs[i].rounded_error(block.d * static_cast<float>(s)); found < least) {
        least = found;
        block.scales[i] = s;
      }
    total += least;
  }
  return total;
}

CentredBlock fit_centred(const std::array<CentredSub, kCentredSubs>& subs) {
  std::array<float, kCentredSubs> wanted;
  for (size_t i = 0; i < subs.size(); ++i) wanted[i] = subs[i].fit();
  const float largest =
      *std::max_element(wanted.begin(), wanted.end(), [](float a, float b) { return std::fabs(a) < std::fabs(b); });
  CentredBlock best;
  float least = INFINITY;
  for (int integer = -128; integer < -128 + kScaleTrials; ++integer) {
    CentredBlock block;
    block.d = to_half(largest / static_cast<float>(integer));
    if (block.d == 0) return block;
    if (const float found = choose_scales(subs, wanted.data(), block); found < least) {
      least = found;
      best = block;
    }
  }
  return best;
}

// Each half of 128 values: bytes l and l + 32 of its 64 nibble bytes have values l, l + 32 (low halves) and l + 64,
// l + 96 (high halves), whose upper bit pairs are in that order in byte l of its 32.
void pack_centred(const float* x, std::byte* out) {
  std::array<CentredSub, kCentredSubs> subs;
  for (size_t i = 0; i < subs.size(); ++i) {
    std::copy_n(x + i * kCentredSub, kCentredSub, subs[i].x.begin());
    for (size_t j = 0; j < kCentredSub; ++j) subs[i].w[j] = subs[i].x[j] * subs[i].x[j];
  }
  const CentredBlock block = fit_centred(subs);
  std::array<float, kSuperBlock> rounded;
  for (size_t i = 0; i < subs.size(); ++i) subs[i].round_to(block.step(i), rounded.data() + i * kCentredSub);
  for (size_t half = 0; half < 2; ++half)
    for (size_t l = 0; l < 32; ++l) {
      const auto q = [&](size_t quarter) { return static_cast<int>(rounded[128 * half + 32 * quarter + l]) + 32; };
      out[64 * half + l] = static_cast<std::byte>((q(0) & 15) | (q(2) & 15) << 4);
      out[64 * half + 32 + l] = static_cast<std::byte>((q(1) & 15) | (q(3) & 15) << 4);
      out[128 + 32 * half + l] = static_cast<std::byte>(q(0) >> 4 | q(1) >> 4 << 2 | q(2) >> 4 << 4 | q(3) >> 4 << 6);
    }
  for (size_t i = 0; i < subs.size(); ++i) out[192 + i] = static_cast<std::byte>(static_cast<int8_t>(block.scales[i]));
  store_half(out + 208, block.d);
}

void unpack_centred(const std::byte* in, float* out) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(in);
  const float d = load_half(in + 208);
  for (size_t i = 0; i < kSuperBlock; ++i) {
    const size_t half = i / 128, quarter = i / 32 % 4, l = i % 32;
    const uint8_t nibbles = bytes[64 * half + 32 * (quarter % 2) + l];
    const int low = quarter < 2 ? nibbles & 15 : nibbles >> 4, high = bytes[128 + 32 * half + l] >> 2 * quarter & 3;
    out[i] = d * static_cast<float>(static_cast<int8_t>(bytes[192 + i / kCentredSub])) *
             static_cast<float>((low | high << 4) - 32);
  }
}

}  // namespace

void unpack_super_block(DType dtype, const std::byte* block, float* out) {
  BRICK_ASSERT(info(dtype).block_values == kSuperBlock);
  if (dtype == DType::kQ6_K) return unpack_centred(block, out);
  unpack_affine(dtype == DType::kQ5_K, block, out);
}

void pack_super_block(DType dtype, const float* x, std::byte* block) {
  BRICK_ASSERT(info(dtype).block_values == kSuperBlock);
  if (dtype == DType::kQ6_K) return pack_centred(x, block);
  pack_affine(dtype == DType::kQ5_K, x, block);
}

}  // namespace brick::tensor
