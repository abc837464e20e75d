// FlexLoRA (arXiv 2402.11505): G = SVD_r(sum_k w_k P_k).
#include "brick/federate/contribution.h"

namespace brick::federate {

model::Adapter flexlora(const model::Adapter* global, std::span<const ClientUpdate> updates,
                        const AggregateConfig& config, uint64_t seed) {
  return solve_each(global, updates, config, seed, average_svd);
}

}  // namespace brick::federate
