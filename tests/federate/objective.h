// What hete-h2 and hete-tau minimise, straight from its definition.
#pragma once

#include "brick/federate/factors.h"
#include "brick/federate/masked_mean.h"

namespace brick::federate {

inline double entry(const Factor& factor, int64_t r, int64_t c) {
  double sum = 0;
  for (int64_t i = 0; i < factor.a.rows; ++i) sum += static_cast<double>(factor.b(r, i)) * factor.a(i, c);
  return factor.scale * sum;
}

inline double entry_cost(const MatrixRound& round, std::span<const model::LoraPair> trained, const Trust& trust,
                         const Factor& x, int64_t r, int64_t c) {
  const double base = round.global ? entry(*round.global, r, c) : 0.0, move = entry(x, r, c) - base;
  double cost = 0, covered = 0;
  for (size_t k = 0; k < trained.size(); ++k) {
    const Contribution& client = round.clients[k];
    const double d = entry(factor_of(trained[k], client.update->config().scale()), r, c) -
                     (client.sent ? entry(*client.sent, r, c) : 0.0);
    const bool kept = !client.mask || client.mask->kept(r, c);
    covered += kept ? client.weight : 0.0;
    cost += client.weight * (kept ? 1.0 : trust.tau) * (move - d) * (move - d);
  }
  return cost + trust.anchor * (1.0 - covered) * move * move;
}

// sum_k w_k ||M~_k^(1/2) (X - P_k)||^2 + w_0 ||(1 - c)^(1/2) (X - P_g)||^2 over all matrices, X = c B A of
// `x`, in double. Forms every P_k, an entry at a time.
inline double masked_objective(const model::Adapter* global, std::span<const ClientUpdate> updates, const Trust& trust,
                               const model::Adapter& x) {
  const std::vector<double> weights = client_weights(updates);
  double total = 0;
  model::for_each_pair(x, [&](int64_t layer, model::Proj proj, const model::LoraPair& pair) {
    const MatrixRound round =
        matrix_round(global, updates, weights, layer, proj, {pair.b.shape()[0], pair.a.shape()[1]});
    const Factor factor = factor_of(pair, x.config.scale());
    std::vector<model::LoraPair> trained;
    for (const Contribution& client : round.clients) trained.push_back(client.update->pair(layer, proj));
    for (int64_t r = 0; r < round.rows; ++r)
      for (int64_t c = 0; c < round.cols; ++c) total += entry_cost(round, trained, trust, factor, r, c);
  });
  return total;
}

}  // namespace brick::federate
