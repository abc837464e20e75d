// HeteAgg, literal (method 1.4, H0): in adapter space. The mask of density 1 - s_k over client k's update is
// its own largest magnitudes, over the flattened adapter as a whole (FLASC's top-k; lucmonl/mlopt,
// get_topk_mask):
//   A_g <- A_g + sum_k w_k m_k dA_k / Z,   dA_k = A_k - A_g^(k);
//   B likewise, with dB_k = (c_k B_k - c_g^(k) B_g^(k)) / c;
//   Z = 1, or with `coverage` sum_k w_k m_k entry-wise, A_g kept where that is zero.
// With s_k = 0 for all this is fedit.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <set>

#include "brick/base/error.h"
#include "brick/base/parallel.h"
#include "brick/federate/contribution.h"
#include "brick/federate/factor_average.h"
#include "brick/federate/factors.h"
#include "brick/federate/redistribute.h"

namespace brick::federate {
namespace {

using model::Adapter;
using model::LoraPair;
using model::Proj;

constexpr double kSame = 1e-5;  // relative; truncations made elsewhere may differ by rounding

const Adapter* sent_of(const ClientUpdate& update, const Adapter* global) {
  return update.sent != nullptr ? update.sent : global;
}

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
      return seen.insert(sent_of(update, global)).second && !first_rows(*update.sent, start);
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
  const LoraPair& from = sent->at(layer, proj);
  const float theirs = sent->config.scale() / scale;
  const float *from_a = from.a.f32(), *from_b = from.b.f32();
  for (int64_t i = 0; i < size_a; ++i) a[i] -= from_a[i];
  for (int64_t i = 0; i < size_b; ++i) b[i] -= theirs * from_b[i];
  return delta;
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

TopK top_k(const ClientUpdate& update, const Adapter* sent, float scale) {
  const double kept = 1.0 - sparsity(update);
  if (kept == 1.0) return {};
  std::vector<float> magnitudes;
  for_each_delta(update, sent, scale, [&](std::span<const float> delta, int64_t) {
    const size_t before = magnitudes.size();
    magnitudes.resize(before + delta.size());
    for (size_t i = 0; i < delta.size(); ++i) magnitudes[before + i] = std::abs(delta[i]);
  });
  const int64_t k = static_cast<int64_t>(kept * static_cast<double>(magnitudes.size()));
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

  // `at`: where delta begins in the flattened adapter. Without a branch, as it would be a coin's toss.
  void add(double weight, tensor::ConstMatView delta, const TopK& mask, int64_t at) {
    const TopK top = mask;  // which the sums can't alias
    for (int64_t r = 0; r < delta.rows; ++r) {
      const float* values = delta.row(r);
      double *to = moved.data() + r * stride, *weights = covered.data() + r * stride;
      const int64_t first = at + r * delta.cols;
      for (int64_t c = 0; c < delta.cols; ++c) {
        const double w = top.take(values[c], first + c) ? weight : 0.0;
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

}  // namespace

Adapter hete_h0(const Adapter* global, std::span<const ClientUpdate> updates, const AggregateConfig& config,
                uint64_t seed) {
  Adapter result = common_start(global, updates, seed);
  const int64_t rank = result.config.rank;
  const float scale = result.config.scale();
  const std::vector<double> weights = client_weights(updates);
  std::vector<TopK> masks(updates.size());
  parallel_try(static_cast<int64_t>(updates.size()), [&](int64_t i) {
    const ClientUpdate& update = updates[static_cast<size_t>(i)];
    masks[static_cast<size_t>(i)] = top_k(update, sent_of(update, global), scale);
  });

  const auto at = begins(updates[0]);
  for_each_matrix(updates[0], [&](int64_t layer, Proj proj, int64_t rows, int64_t cols) {
    LoraPair& pair = result.at(layer, proj);
    Sums a(rank, cols), b(rows, rank);
    for (size_t k = 0; k < updates.size(); ++k) {
      const LoraPair delta = update_of(updates[k], sent_of(updates[k], global), layer, proj, scale);
      const int64_t begin = updates[k].config().rank * at[static_cast<size_t>(layer)][static_cast<size_t>(proj)];
      a.add(weights[k], delta.a.mat(), masks[k], begin);
      b.add(weights[k], delta.b.mat(), masks[k], begin + delta.a.size());
    }
    a.apply(config.coverage, pair.a);
    b.apply(config.coverage, pair.b);
  });
  if (!equal_ranks(global, updates)) result = canonical(result, seed);
  const int64_t wanted = result_rank(global, updates, config);
  return wanted == rank ? std::move(result) : truncate(result, wanted, seed);
}

}  // namespace brick::federate
