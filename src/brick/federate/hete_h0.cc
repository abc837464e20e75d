// HeteAgg, literal (H0 of docs/method.md): in adapter space. The mask of density 1 - s_k over client k's update is
// its own largest magnitudes, over the flattened adapter as a whole (FLASC's top-k; lucmonl/mlopt,
// get_topk_mask):
//   A_g <- A_g + sum_k w_k m_k dA_k / Z,   dA_k = A_k - A_g^(k);
//   B likewise, with dB_k = (c_k B_k - c_g^(k) B_g^(k)) / c;
//   Z = 1, or with `coverage` sum_k w_k m_k entry-wise, A_g kept where that is zero.
// With s_k = 0 for all this is fedit. A structured block's s_k is that of the weights it has, and m_k is zero where it
// lacks a row of B or a column of A.
//
// hete-h0-axis (H0-axis; HeteroFL, arXiv 2010.01264, for factors): m_k instead says how much of a row of W
// (for B) or a column of W (for A) the block has, and Z is the coverage:
//   m_k(row r of B) = sum_c M_k(r, c) / (columns that the block has),   m_k(column c of A) likewise by rows:
// 1 or 0 in a structured block; in a sparse one its row's or column's density (our choice; Wanda's
// rows all have one density, which then says nothing).
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <set>

#include "brick/base/error.h"
#include "brick/base/parallel.h"
#include "brick/federate/contribution.h"
#include "brick/federate/factor_average.h"
#include "brick/federate/factors.h"
#include "brick/federate/placement.h"
#include "brick/federate/redistribute.h"

namespace brick::federate {
namespace {

using model::Adapter;
using model::LoraPair;
using model::Proj;

constexpr double kSame = 1e-5;  // relative; truncations made elsewhere may differ by rounding

// Whether the smaller of the two is the first rows of the other, as far as both have non-zero B.
bool first_rows(const Adapter& sent, const Adapter& start) {
  const double ratio = static_cast<double>(sent.config.scale()) / start.config.scale();
  bool same = true;
  model::for_each_pair(start, [&](int64_t layer, Proj proj, const LoraPair& whole) {
    const LoraPair& part = sent.at(layer, proj);
    const int64_t shared = std::min(part.a.shape()[0], whole.a.shape()[0]);
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < shared; ++i)
      for (int64_t c = 0; c < whole.a.mat().cols; ++c) {
        const double x = part.a.mat()(i, c), y = whole.a.mat()(i, c);
        difference += (x - y) * (x - y);
        norm += y * y;
      }
    same = same && difference <= kSame * kSame * norm;
    difference = norm = 0;
    for (int64_t r = 0; r < whole.b.mat().rows; ++r)
      for (int64_t i = 0; i < shared; ++i) {
        const double x = ratio * part.b.mat()(r, i), y = whole.b.mat()(r, i);
        difference += (x - y) * (x - y);
        norm += y * y;
      }
    same = same && difference <= kSame * kSame * norm;
  });
  return same;
}

// Directions without a B have an A of whoever made the truncations: it may have had another seed.
void adopt_free_rows(const Adapter& sent, Adapter& start) {
  model::for_each_pair(start, [&](int64_t layer, Proj proj, LoraPair& pair) {
    const tensor::ConstMatView from = sent.at(layer, proj).a.mat();
    const tensor::MatView a = pair.a.mat(), b = pair.b.mat();
    for (int64_t i = 0; i < std::min(from.rows, a.rows); ++i) {
      bool free = true;
      for (int64_t r = 0; r < b.rows; ++r) free = free && b(r, i) == 0.0f;
      if (free) std::copy_n(from.row(i), a.cols, a.row(i));
    }
  });
}

// The adapter that the updates are added to: at the largest rank of all, every sent adapter its first rows.
Adapter common_start(const Adapter* global, std::span<const ClientUpdate> updates, uint64_t seed) {
  const int64_t rank = std::max(result_rank(global, updates, {}), int64_t{1});
  if (global == nullptr) {
    Adapter zero;
    zero.config = result_config(global, updates, rank);
    zero.layers.resize(static_cast<size_t>(updates[0].layers()));
    for_each_target(updates[0], [&](int64_t layer, Proj proj, int64_t rows, int64_t cols) {
      zero.at(layer, proj) = {tensor::matrix(rank, cols), tensor::matrix(rows, rank)};
    });
    return zero;
  }
  const ClientUpdate* largest = nullptr;
  for (const ClientUpdate& update : updates)
    if (update.sent != nullptr && (largest == nullptr || update.sent->config.rank > largest->sent->config.rank))
      largest = &update;
  const ClientUpdate* stranger = nullptr;
  for (const bool as_it_is : {true, false}) {
    Adapter start = as_it_is ? truncate(*global, rank, seed) : truncate(canonical(*global, seed), rank, seed);
    if (largest != nullptr) adopt_free_rows(*largest->sent, start);
    std::set<const Adapter*> seen{global};
    const auto found = std::find_if(updates.begin(), updates.end(), [&](const ClientUpdate& update) {
      return seen.insert(update.start(global)).second && !first_rows(*update.sent, start);
    });
    if (found == updates.end()) return start;
    stranger = &*found;
  }
  fail(ErrorCode::kMismatch,
       "hete-h0 adds factors entry by entry, but what client '{}' was sent is not the first rows of the "
       "global "
       "adapter, in the order of the others'; send what redistribute() makes",
       stranger->name);
}

// dA_k and dB_k of one matrix, at the client's own rank.
LoraPair update_of(const ClientUpdate& update, const Adapter* sent, int64_t layer, Proj proj, float scale) {
  LoraPair delta = update.pair(layer, proj);
  const float own = update.config().scale() / scale;
  const int64_t size_a = delta.a.size(), size_b = delta.b.size();
  float *a = delta.a.f32(), *b = delta.b.f32();
  for (int64_t i = 0; i < size_b; ++i) b[i] *= own;
  if (sent == nullptr) return delta;
  LoraPair part;
  const LoraPair& from = update.sent_of(sent->at(layer, proj), layer, proj, part);
  const float theirs = sent->config.scale() / scale;
  const float *from_a = from.a.f32(), *from_b = from.b.f32();
  for (int64_t i = 0; i < size_a; ++i) a[i] -= from_a[i];
  for (int64_t i = 0; i < size_b; ++i) b[i] -= theirs * from_b[i];
  return delta;
}

// What a client counts for in each row of B and each column of A, [0, 1].
struct AxisWeights {
  std::vector<double> rows, cols;
};

// Whether the block has them.
AxisWeights presence(const ClientUpdate& update, int64_t layer, Proj proj, int64_t rows, int64_t cols) {
  AxisWeights out{std::vector<double>(static_cast<size_t>(rows), 1.0),
                  std::vector<double>(static_cast<size_t>(cols), 1.0)};
  if (const Placement* placement = update.placement; placement != nullptr) {
    for (int64_t r = 0; r < rows; ++r) out.rows[static_cast<size_t>(r)] = placement->has_row(layer, proj, r) ? 1 : 0;
    for (int64_t c = 0; c < cols; ++c) out.cols[static_cast<size_t>(c)] = placement->has_col(layer, proj, c) ? 1 : 0;
  }
  return out;
}

MatrixShape own_shape(const ClientUpdate& update, int64_t layer, Proj proj, MatrixShape whole) {
  return update.placement != nullptr ? update.placement->own_shape(layer, proj) : whole;
}

// How much of each the block has.
AxisWeights densities(const ClientUpdate& update, int64_t layer, Proj proj, int64_t rows, int64_t cols) {
  const std::optional<PlacedMask> mask = update.mask(layer, proj);
  if (!mask) return presence(update, layer, proj, rows, cols);
  AxisWeights out{std::vector<double>(static_cast<size_t>(rows)), std::vector<double>(static_cast<size_t>(cols))};
  for (int64_t r = 0; r < rows; ++r)
    tensor::for_each_kept(mask->row(r), cols, [&](int64_t c) {
      ++out.rows[static_cast<size_t>(r)];
      ++out.cols[static_cast<size_t>(c)];
    });
  const MatrixShape own = own_shape(update, layer, proj, {rows, cols});
  for (double& row : out.rows) row /= static_cast<double>(std::max<int64_t>(own.cols, 1));
  for (double& col : out.cols) col /= static_cast<double>(std::max<int64_t>(own.rows, 1));
  return out;
}

// The k largest magnitudes of a flattened adapter: all above `least`, and those equal to it before `end`.
struct TopK {
  float least = -1;  // takes everything
  int64_t end = 0;

  bool take(float value, int64_t at) const {
    const float magnitude = std::abs(value);
    return magnitude > least || (magnitude == least && at < end);
  }
};

// visit(delta, at) on each factor's update, flattened from `at`.
template <class Visit>
void for_each_delta(const ClientUpdate& update, const Adapter* sent, float scale, Visit&& visit) {
  int64_t at = 0;
  for_each_target(update, [&](int64_t layer, Proj proj, int64_t, int64_t) {
    const LoraPair delta = update_of(update, sent, layer, proj, scale);
    for (const tensor::Tensor* factor : {&delta.a, &delta.b}) {
      visit(std::span<const float>(factor->f32(), static_cast<size_t>(factor->size())), at);
      at += factor->size();
    }
  });
}

// Of the matrices that the adapter targets, in the block's own shapes.
struct OwnCounts {
  int64_t weights = 0, kept = 0, factors = 0;
};

OwnCounts own_counts(const ClientUpdate& update) {
  OwnCounts out;
  for_each_target(update, [&](int64_t layer, Proj proj, int64_t rows, int64_t cols) {
    const MatrixShape own = own_shape(update, layer, proj, {rows, cols});
    const std::optional<PlacedMask> mask = update.mask(layer, proj);
    out.weights += own.rows * own.cols;
    out.kept += mask ? mask->count() : own.rows * own.cols;
    out.factors += update.config().rank * (own.rows + own.cols);
  });
  return out;
}

TopK top_k(const ClientUpdate& update, const Adapter* sent, float scale) {
  const OwnCounts own = own_counts(update);
  if (own.kept == own.weights) return {};
  const double kept = static_cast<double>(own.kept) / static_cast<double>(own.weights);
  std::vector<float> magnitudes;
  for_each_delta(update, sent, scale, [&](std::span<const float> delta, int64_t) {
    const size_t before = magnitudes.size();
    magnitudes.resize(before + delta.size());
    for (size_t i = 0; i < delta.size(); ++i) magnitudes[before + i] = std::abs(delta[i]);
  });
  // What a structured block lacks did not move, so that it is not among the largest.
  const int64_t k = static_cast<int64_t>(kept * static_cast<double>(own.factors));
  if (k <= 0) return {std::numeric_limits<float>::infinity(), 0};
  const auto kth = magnitudes.begin() + (k - 1);
  std::nth_element(magnitudes.begin(), kth, magnitudes.end(), std::greater<>());
  TopK top{*kth, std::numeric_limits<int64_t>::max()};
  int64_t ties = 1 + std::count(magnitudes.begin(), kth, *kth);  // of which these are taken,
  if (std::count(kth, magnitudes.end(), *kth) == 1) return top;  // and here that is all
  for_each_delta(update, sent, scale, [&](std::span<const float> delta, int64_t at) {
    for (size_t i = 0; i < delta.size(); ++i)
      if (std::abs(delta[i]) == top.least && --ties == 0) top.end = at + static_cast<int64_t>(i) + 1;
  });
  return top;
}

struct Sums {
  std::vector<double> moved, covered;
  int64_t stride;

  Sums(int64_t rows, int64_t cols)
      : moved(static_cast<size_t>(rows * cols)), covered(static_cast<size_t>(rows * cols)), stride(cols) {}

  // weight * rows[r] * cols[c] where the mask takes delta(r, c). `at`: where delta begins in the flattened adapter.
  // Without a branch, as it would be a coin's toss.
  void add(double weight, std::span<const double> rows, std::span<const double> cols, tensor::ConstMatView delta,
           const TopK& mask, int64_t at) {
    const TopK top = mask;  // which the sums can't alias
    for (int64_t r = 0; r < delta.rows; ++r) {
      const float* values = delta.row(r);
      const double of_row = weight * rows[static_cast<size_t>(r)];
      double *to = moved.data() + r * stride, *weights = covered.data() + r * stride;
      const int64_t first = at + r * delta.cols;
      for (int64_t c = 0; c < delta.cols; ++c) {
        const double w = top.take(values[c], first + c) ? of_row * cols[static_cast<size_t>(c)] : 0.0;
        to[c] += w * static_cast<double>(values[c]);
        weights[c] += w;
      }
    }
  }

  void apply(bool coverage, tensor::Tensor& to) const {
    float* values = to.f32();
    for (size_t i = 0; i < moved.size(); ++i) {
      if (covered[i] == 0) continue;
      values[i] = static_cast<float>(values[i] + moved[i] / (coverage ? covered[i] : 1.0));
    }
  }
};

// Where matrices begin in an adapter of rank 1, flattened; times a client's rank, in its own.
std::vector<std::array<int64_t, model::kProjCount>> begins(const ClientUpdate& update) {
  std::vector<std::array<int64_t, model::kProjCount>> out(static_cast<size_t>(update.layers()));
  int64_t at = 0;
  for_each_target(update, [&](int64_t layer, Proj proj, int64_t rows, int64_t cols) {
    out[static_cast<size_t>(layer)][static_cast<size_t>(proj)] = at;
    at += rows + cols;
  });
  return out;
}

using AxisMask = AxisWeights (*)(const ClientUpdate& update, int64_t layer, Proj proj, int64_t rows, int64_t cols);

// Updates added to the common start, each entry masked by its row or column and, if wanted, by its magnitude.
Adapter add_updates(const Adapter* global, std::span<const ClientUpdate> updates, const AggregateConfig& config,
                    uint64_t seed, AxisMask axes, bool by_magnitude, bool coverage) {
  Adapter result = common_start(global, updates, seed);
  const int64_t rank = result.config.rank;
  const float scale = result.config.scale();
  const std::vector<double> weights = client_weights(updates);
  std::vector<TopK> tops(updates.size());
  if (by_magnitude)
    parallel_try(static_cast<int64_t>(updates.size()), [&](int64_t i) {
      const ClientUpdate& update = updates[static_cast<size_t>(i)];
      tops[static_cast<size_t>(i)] = top_k(update, update.start(global), scale);
    });

  const auto at = begins(updates[0]);
  const std::vector<double> ones(static_cast<size_t>(rank), 1.0);
  for_each_matrix(updates[0], [&](int64_t layer, Proj proj, int64_t rows, int64_t cols) {
    LoraPair& pair = result.at(layer, proj);
    Sums a(rank, cols), b(rows, rank);
    std::map<const LayerMasks*, AxisWeights> of_block;  // clients of one block share them
    for (size_t k = 0; k < updates.size(); ++k) {
      const LoraPair delta = update_of(updates[k], updates[k].start(global), layer, proj, scale);
      const auto [known, added] = of_block.try_emplace(updates[k].masks.data());
      if (added) known->second = axes(updates[k], layer, proj, rows, cols);
      const int64_t begin = updates[k].config().rank * at[static_cast<size_t>(layer)][static_cast<size_t>(proj)];
      a.add(weights[k], ones, known->second.cols, delta.a.mat(), tops[k], begin);
      b.add(weights[k], known->second.rows, ones, delta.b.mat(), tops[k], begin + delta.a.size());
    }
    a.apply(coverage, pair.a);
    b.apply(coverage, pair.b);
  });
  if (!equal_ranks(global, updates)) result = canonical(result, seed);
  const int64_t wanted = result_rank(global, updates, config);
  return wanted == rank ? std::move(result) : truncate(result, wanted, seed);
}

}  // namespace

Adapter hete_h0(const Adapter* global, std::span<const ClientUpdate> updates, const AggregateConfig& config,
                uint64_t seed) {
  return add_updates(global, updates, config, seed, presence, true, config.coverage);
}

Adapter hete_h0_axis(const Adapter* global, std::span<const ClientUpdate> updates, const AggregateConfig& config,
                     uint64_t seed) {
  return add_updates(global, updates, config, seed, densities, false, true);
}

}  // namespace brick::federate
