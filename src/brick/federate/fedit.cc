// FedIT (Shepherd, arXiv 2305.05644): A = sum_k w_k A_k, B = sum_k w_k B_k. Equal ranks only (rules.cc); what
// the global adapter was does not enter.
#include "brick/federate/contribution.h"
#include "brick/federate/factor_average.h"
#include "brick/federate/redistribute.h"

namespace brick::federate {

model::Adapter fedit(const model::Adapter* global, std::span<const ClientUpdate> updates, const AggregateConfig& config,
                     uint64_t seed) {
  model::Adapter average = average_factors(global, updates);
  if (config.rank == 0 || config.rank == average.config.rank) return average;
  return truncate(average, config.rank, seed);
}

}  // namespace brick::federate
