// The family between hete-h2 and flexlora (H-tau of docs/method.md): M~_k = M_k + tau (1 - M_k) as weights of the
// squares,
//   min over X of rank r of sum_k w_k sum_ij M~_k,ij (X - P_k)_ij^2.   tau 0: hete-h2 without anchor; tau 1:
//   flexlora.
#include "brick/federate/masked_fit.h"

namespace brick::federate {

model::Adapter hete_tau(const model::Adapter* global, std::span<const ClientUpdate> updates,
                        const AggregateConfig& config, uint64_t seed) {
  return solve_each(global, updates, config, seed, [&](const MatrixRound& round, int64_t rank, uint64_t svd_seed) {
    return masked_fit(round, {.tau = config.tau, .anchor = 0}, rank, config.em_iterations, svd_seed);
  });
}

}  // namespace brick::federate
