// Zero padding (HetLoRA's, arXiv 2401.06432, without its norms): fedit of factors padded with zeros to the
// largest rank. The baseline for unequal ranks, with its known fault: it dilutes the directions that small
// clients lack, so that clients that learned nothing still change the result. With unequal ranks the result
// is in singular form (redistribute.h), so that the truncations sent next are its first rows.
#include "brick/federate/contribution.h"
#include "brick/federate/factor_average.h"
#include "brick/federate/redistribute.h"

namespace brick::federate {

model::Adapter zero_pad(const model::Adapter* global, std::span<const ClientUpdate> updates,
                        const AggregateConfig& config, uint64_t seed) {
  model::Adapter average = average_factors(global, updates);
  if (!equal_ranks(global, updates)) average = canonical(average, seed);
  const int64_t rank = result_rank(global, updates, config);
  return rank == average.config.rank ? std::move(average) : truncate(average, rank, seed);
}

}  // namespace brick::federate
