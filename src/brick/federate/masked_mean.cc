#include "brick/federate/masked_mean.h"

#include <algorithm>

#include "brick/base/parallel.h"
#include "brick/kernels/gemm.h"

namespace brick::federate {
namespace {

using kernels::Trans;
using tensor::ConstMatView;
using tensor::MatView;

constexpr int64_t kRows = 64;  // the fewest that are worth a thread

// The clients by their masks, in the order of each group's first.
std::vector<std::vector<const Contribution*>> by_mask(const MatrixRound& round) {
  std::vector<std::vector<const Contribution*>> groups;
  for (const Contribution& client : round.clients) {
    const auto found =
        std::find_if(groups.begin(), groups.end(), [&](const auto& group) { return group[0]->mask == client.mask; });
    (found != groups.end() ? *found : groups.emplace_back()).push_back(&client);
  }
  return groups;
}

// covered += w M, sum += M~ d; one row. `d` null: zero.
void add_row(const std::optional<PlacedMask>& mask, int64_t row, float w, float tau, const float* d, int64_t cols,
             float* covered, float* sum) {
  if (!mask) {
    for (int64_t c = 0; c < cols; ++c) covered[c] += w;
    if (d != nullptr)
      for (int64_t c = 0; c < cols; ++c) sum[c] += d[c];
    return;
  }
  const uint64_t* words = mask->row(row);
  const float weights[2] = {tau, 1.0f};
  for (int64_t c0 = 0; c0 < cols; c0 += 64) {
    uint64_t bits = words[c0 / 64];
    const int64_t end = std::min(cols, c0 + 64);
    for (int64_t c = c0; c < end; ++c, bits >>= 1) {
      const uint64_t kept = bits & 1u;
      covered[c] += kept != 0 ? w : 0.0f;
      if (d != nullptr) sum[c] += weights[kept] * d[c];
    }
  }
}

// t = sum / C, of what was the sum; covered becomes C.
void divide(float rest, int64_t count, float* covered, float* t) {
  for (int64_t i = 0; i < count; ++i) {
    const float c = covered[i] + rest * std::max(0.0f, 1.0f - covered[i]);
    covered[i] = c;
    t[i] = c > 0.0f ? t[i] / c : 0.0f;
  }
}

}  // namespace

bool masked_mean(const MatrixRound& round, const Trust& trust, MatView t, MatView weight) {
  const int64_t cols = round.cols;
  const float tau = static_cast<float>(trust.tau), rest = static_cast<float>(trust.tau + trust.anchor);
  ProductSum group_sum(round.rows, cols, round.stacked_rank());
  bool moved = false;
  for (int64_t r = 0; r < round.rows; ++r) {
    std::fill_n(t.row(r), cols, 0.0f);
    std::fill_n(weight.row(r), cols, 0.0f);
  }
  for (const std::vector<const Contribution*>& group : by_mask(round)) {
    double w = 0;
    for (const Contribution* client : group) w += client->weight;
    group_sum.clear();
    add_moves(round, group, 0.0, group_sum);
    const bool zero = group_sum.empty();
    const ConstMatView d = zero ? ConstMatView() : group_sum.dense();
    moved = moved || !zero;
    parallel_ranges(round.rows, kRows, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r)
        add_row(group[0]->mask, r, static_cast<float>(w), tau, zero ? nullptr : d.row(r), cols, weight.row(r),
                t.row(r));
    });
  }
  parallel_ranges(round.rows, kRows, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) divide(rest, cols, weight.row(r), t.row(r));
  });
  if (round.global)
    kernels::gemm(Trans::kNo, Trans::kNo, static_cast<float>(round.global->scale), round.global->b, round.global->a,
                  1.0f, t);
  return moved;
}

}  // namespace brick::federate
