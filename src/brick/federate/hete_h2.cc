// HeteAgg as a masked low-rank fit (H2 of docs/method.md):
//   min over X of rank r of sum_k w_k ||M_k (X - P_k)||^2, anchored at P_g by w_0 where clients lack an entry
//   (masked_mean.h).
#include "brick/federate/masked_fit.h"

namespace brick::federate {

model::Adapter hete_h2(const model::Adapter* global, std::span<const ClientUpdate> updates,
                       const AggregateConfig& config, uint64_t seed) {
  return solve_each(global, updates, config, seed, [&](const MatrixRound& round, int64_t rank, uint64_t svd_seed) {
    return masked_fit(round, {.tau = 0, .anchor = config.anchor}, rank, config.em_iterations, svd_seed);
  });
}

}  // namespace brick::federate
