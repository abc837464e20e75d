#include "brick/federate/contribution.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "brick/base/parallel.h"
#include "brick/federate/factors.h"
#include "brick/federate/masked_mean.h"

namespace brick::federate {
namespace {

constexpr uint64_t kSvdUse = 0;  // Place::seed_of; 1 and up are the free directions

// A pass over fewer entries takes a few milliseconds: less than waiting for a second thread does on a busy
// machine (measured with SmolLM2's shapes on two shared cores: 60 s with two threads, 11 to 25 s with one).
constexpr int64_t kOneThreadEntries = 1 << 20;

class ThreadLimit {
 public:
  explicit ThreadLimit(bool one) : before_(threads()) {
    if (one) set_threads(1);
  }
  ~ThreadLimit() { set_threads(before_); }
  ThreadLimit(const ThreadLimit&) = delete;
  ThreadLimit& operator=(const ThreadLimit&) = delete;

 private:
  int before_;
};

// Sums of equal factors become one, so that what a client was sent cancels against P_g exactly.
class FactorSum {
 public:
  void add(double coefficient, const Factor& factor) {
    for (Term& term : terms_)
      if (same_bits(term.factor, factor)) {
        term.coefficient += coefficient;
        return;
      }
    terms_.push_back({coefficient, factor});
  }

  std::vector<Factor> factors() const {
    std::vector<Factor> out;
    for (const Term& term : terms_)
      if (std::abs(term.coefficient) > kCancelled)
        out.push_back({term.coefficient * term.factor.scale, term.factor.b, term.factor.a});
    return out;
  }

 private:
  static constexpr double kCancelled = 1e-12;  // rounding of weights that sum to one
  struct Term {
    double coefficient;
    Factor factor;
  };
  std::vector<Term> terms_;
};

bool same_view(tensor::ConstMatView a, tensor::ConstMatView b) {
  if (a.rows != b.rows || a.cols != b.cols) return false;
  if (a.data == b.data && a.stride == b.stride) return true;
  for (int64_t r = 0; r < a.rows; ++r)
    if (std::memcmp(a.row(r), b.row(r), static_cast<size_t>(a.cols) * sizeof(float)) != 0) return false;
  return true;
}

LowRank zero_low_rank(int64_t rows, int64_t cols) {
  return {tensor::matrix(rows, 1), tensor::matrix(1, cols), {0.0}, 0};
}

}  // namespace

bool same_bits(const Factor& a, const Factor& b) {
  return a.scale == b.scale && same_view(a.a, b.a) && same_view(a.b, b.b);
}

bool MatrixRound::all_dense() const {
  return std::none_of(clients.begin(), clients.end(), [](const Contribution& c) { return c.mask.has_value(); });
}

bool MatrixRound::unchanged() const {
  return std::all_of(clients.begin(), clients.end(), [](const Contribution& c) { return c.unchanged; });
}

MatrixRound matrix_round(const model::Adapter* global, std::span<const ClientUpdate> updates,
                         std::span<const double> weights, int64_t layer, model::Proj proj) {
  MatrixRound round;
  if (global != nullptr && global->at(layer, proj).present())
    round.global = factor_of(global->at(layer, proj), global->config.scale());
  for (size_t k = 0; k < updates.size(); ++k) {
    const ClientUpdate& update = updates[k];
    const model::LoraPair& pair = update.adapter->at(layer, proj);
    Contribution client;
    client.weight = weights[k];
    client.trained = factor_of(pair, update.adapter->config.scale());
    if (update.sent != nullptr && update.sent->at(layer, proj).present())
      client.sent = factor_of(update.sent->at(layer, proj), update.sent->config.scale());
    else if (update.sent == nullptr)
      client.sent = round.global;
    client.unchanged = client.sent && same_bits(client.trained, *client.sent);
    if (!update.masks.empty()) {
      client.mask = update.masks[static_cast<size_t>(layer)][static_cast<size_t>(proj)];
      if (client.mask && client.mask->count() == client.mask->rows * client.mask->cols) client.mask.reset();
    }
    round.rows = client.trained.b.rows;
    round.cols = client.trained.a.cols;
    round.clients.push_back(client);
  }
  return round;
}

int64_t result_rank(const model::Adapter* global, std::span<const ClientUpdate> updates,
                    const AggregateConfig& config) {
  if (config.rank > 0) return config.rank;
  int64_t rank = global != nullptr ? global->config.rank : 0;
  for (const ClientUpdate& update : updates) rank = std::max(rank, update.adapter->config.rank);
  return rank;
}

model::LoraConfig result_config(const model::Adapter* global, std::span<const ClientUpdate> updates, int64_t rank) {
  const model::LoraConfig* like = global != nullptr ? &global->config : nullptr;
  if (like == nullptr) {
    const auto largest = std::max_element(updates.begin(), updates.end(), [](const auto& a, const auto& b) {
      return a.adapter->config.rank < b.adapter->config.rank;
    });
    like = &largest->adapter->config;
  }
  model::LoraConfig config = config_at(*like, rank);
  for (const ClientUpdate& update : updates)
    if (config.base_fingerprint.empty()) config.base_fingerprint = update.adapter->config.base_fingerprint;
  return config;
}

LowRank average_svd(const MatrixRound& round, int64_t rank, uint64_t seed) {
  FactorSum sum;
  if (round.global) sum.add(1.0, *round.global);
  for (const Contribution& client : round.clients) {
    sum.add(client.weight, client.trained);
    if (client.sent) sum.add(-client.weight, *client.sent);
  }
  const std::vector<Factor> terms = sum.factors();
  int64_t stacked = 0;
  for (const Factor& term : terms) stacked += term.a.rows;
  if (terms.empty()) return zero_low_rank(round.rows, round.cols);
  if (terms.size() == 1 || thin_enough(round.rows, round.cols, stacked)) return thin_svd(terms, rank);
  tensor::Tensor t = tensor::matrix(round.rows, round.cols);
  masked_mean(round, {.tau = 1.0}, t.mat(), {});
  return truncated_svd(t.mat(), rank, seed);
}

model::Adapter solve_each(const model::Adapter* global, std::span<const ClientUpdate> updates,
                          const AggregateConfig& config, uint64_t seed, const Solve& solve) {
  const std::vector<double> weights = client_weights(updates);
  const int64_t rank = result_rank(global, updates, config);
  model::Adapter out;
  out.config = result_config(global, updates, rank);
  out.layers.resize(updates[0].adapter->layers.size());
  model::for_each_pair(*updates[0].adapter, [&](int64_t layer, model::Proj proj, const model::LoraPair&) {
    const Place place{layer, proj, seed};
    const MatrixRound round = matrix_round(global, updates, weights, layer, proj);
    const ThreadLimit limit(round.rows * round.cols < kOneThreadEntries);
    out.at(layer, proj) = balanced_pair(solve(round, rank, place.seed_of(kSvdUse)), rank, out.config.scale(), place);
  });
  return out;
}

}  // namespace brick::federate
