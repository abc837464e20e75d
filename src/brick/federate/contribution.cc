#include "brick/federate/contribution.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "brick/base/parallel.h"
#include "brick/federate/factors.h"

namespace brick::federate {
namespace {

constexpr uint64_t kSvdUse = 0;  // Place::seed_of; 1 and up are the free directions

// A pass over fewer entries takes a few milliseconds: less than waiting for a second thread does on a busy
// machine. So such matrices run side by side.
constexpr int64_t kOneThreadEntries = 1 << 20;

class ThreadLimit {
 public:
  ThreadLimit() : before_(threads()) { set_threads(1); }
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

}  // namespace

bool same_bits(const Factor& a, const Factor& b) {
  return a.scale == b.scale && same_view(a.a, b.a) && same_view(a.b, b.b);
}

bool MatrixRound::all_dense() const {
  return std::none_of(clients.begin(), clients.end(), [](const Contribution& c) { return c.mask.has_value(); });
}

int64_t MatrixRound::stacked_rank() const {
  int64_t total = global ? global->a.rows : 0;
  for (const Contribution& client : clients)
    total += client.update->config().rank + (client.sent ? client.sent->a.rows : 0);
  return total;
}

MatrixRound matrix_round(const model::Adapter* global, std::span<const ClientUpdate> updates,
                         std::span<const double> weights, int64_t layer, model::Proj proj, MatrixShape shape) {
  MatrixRound round;
  if (global != nullptr && global->at(layer, proj).present())
    round.global = factor_of(global->at(layer, proj), global->config.scale());
  round.layer = layer;
  round.proj = proj;
  round.rows = shape.rows;
  round.cols = shape.cols;
  std::map<std::pair<const Placement*, const model::Adapter*>, const model::LoraPair*> parts;
  std::map<std::pair<const uint64_t*, const int32_t*>, bool> keeps_all;
  for (size_t k = 0; k < updates.size(); ++k) {
    const ClientUpdate& update = updates[k];
    Contribution client;
    client.weight = weights[k];
    client.update = &update;
    const model::Adapter* sent = update.start(global);
    if (sent != nullptr && sent->at(layer, proj).present()) {
      const model::LoraPair*& pair = parts[{update.placement, sent}];
      if (pair == nullptr) {
        model::LoraPair part;
        pair = &update.sent_of(sent->at(layer, proj), layer, proj, part);
        if (pair == &part) pair = &round.parts.emplace_back(std::move(part));
      }
      client.sent = factor_of(*pair, sent->config.scale());
    }
    client.mask = update.mask(layer, proj);
    if (client.mask) {
      const auto [known, added] = keeps_all.try_emplace({client.mask->words, client.mask->row_of});
      if (added) known->second = client.mask->count() == client.mask->rows * client.mask->cols;
      if (known->second) client.mask.reset();
    }
    round.clients.push_back(client);
  }
  return round;
}

int64_t largest_rank(std::span<const ClientUpdate> updates) {
  int64_t rank = 0;
  for (const ClientUpdate& update : updates) rank = std::max(rank, update.config().rank);
  return rank;
}

int64_t result_rank(const model::Adapter* global, std::span<const ClientUpdate> updates,
                    const AggregateConfig& config) {
  if (config.rank > 0) return config.rank;
  return std::max(global != nullptr ? global->config.rank : 0, largest_rank(updates));
}

model::LoraConfig result_config(const model::Adapter* global, std::span<const ClientUpdate> updates, int64_t rank) {
  const model::LoraConfig* like = global != nullptr ? &global->config : nullptr;
  if (like == nullptr) {
    const auto largest = std::max_element(
        updates.begin(), updates.end(), [](const auto& a, const auto& b) { return a.config().rank < b.config().rank; });
    like = &largest->config();
  }
  model::LoraConfig config = config_at(*like, rank);
  if (global == nullptr) config.cut_hash.clear();  // a client's own
  for (const ClientUpdate& update : updates)
    if (config.base_fingerprint.empty()) config.base_fingerprint = update.config().base_fingerprint;
  return config;
}

void add_moves(const MatrixRound& round, std::span<const Contribution* const> clients, double x, ProductSum& sum) {
  FactorSum sent;
  if (round.global && x != 0) sent.add(x, *round.global);
  for (const Contribution* client : clients) {
    const model::LoraPair pair = client->update->pair(round.layer, round.proj);
    const Factor trained = factor_of(pair, client->update->config().scale());
    if (client->sent && same_bits(trained, *client->sent)) continue;
    sum.add(client->weight, trained);
    if (client->sent) sent.add(-client->weight, *client->sent);
  }
  for (const Factor& factor : sent.factors()) sum.add(1.0, factor);
}

LowRank average_svd(const MatrixRound& round, int64_t rank, uint64_t seed) {
  std::vector<const Contribution*> clients;
  for (const Contribution& client : round.clients) clients.push_back(&client);
  ProductSum sum(round.rows, round.cols, round.stacked_rank());
  add_moves(round, clients, 1.0, sum);
  return sum.svd(rank, seed);
}

void for_each_matrix(const ClientUpdate& like, const MatrixBody& body) {
  struct Matrix {
    int64_t layer;
    model::Proj proj;
    int64_t rows, cols;
  };
  std::vector<Matrix> small, large;
  for_each_target(like, [&](int64_t layer, model::Proj proj, int64_t rows, int64_t cols) {
    (rows * cols < kOneThreadEntries ? small : large).push_back({layer, proj, rows, cols});
  });
  parallel_try(static_cast<int64_t>(small.size()), [&](int64_t i) {
    const ThreadLimit limit;
    const Matrix& m = small[static_cast<size_t>(i)];
    body(m.layer, m.proj, m.rows, m.cols);
  });
  for (const Matrix& m : large) body(m.layer, m.proj, m.rows, m.cols);
}

model::Adapter solve_each(const model::Adapter* global, std::span<const ClientUpdate> updates,
                          const AggregateConfig& config, uint64_t seed, const Solve& solve) {
  const std::vector<double> weights = client_weights(updates);
  const int64_t rank = result_rank(global, updates, config);
  model::Adapter out;
  out.config = result_config(global, updates, rank);
  out.layers.resize(static_cast<size_t>(updates[0].layers()));
  for_each_matrix(updates[0], [&](int64_t layer, model::Proj proj, int64_t rows, int64_t cols) {
    const Place place{layer, proj, seed};
    const MatrixRound round = matrix_round(global, updates, weights, layer, proj, {rows, cols});
    out.at(layer, proj) = balanced_pair(solve(round, rank, place.seed_of(kSvdUse)), rank, out.config.scale(), place);
  });
  return out;
}

}  // namespace brick::federate
