// Between singular triples and LoRA factors.
#pragma once

#include "brick/federate/svd.h"
#include "brick/model/adapter.h"

namespace brick::federate {

// Singular values below this share of the largest are rounding of float32 sums, not update: they are dropped.
constexpr double kNegligible = 1e-6;

// Where a matrix is, for the seeds of its random numbers.
struct Place {
  int64_t layer = 0;
  model::Proj proj{};
  uint64_t seed = 0;

  uint64_t seed_of(uint64_t use) const;
};

// scale B A = u s vt, split evenly: B = U (S / scale)^(1/2), A = (S / scale)^(1/2) V^T. `rank`
// rows and columns: those without a singular value are free ones (free_direction).
model::LoraPair balanced_pair(const LowRank& low_rank, int64_t rank, float scale, const Place& place);

// Columns of B from `first` on become zero, the rows of A uniform in +-1/sqrt(in) as in a fresh adapter, a
// function of place and row alone. They add nothing to BA, yet learn: with A zero as well both gradients
// would stay zero.
void free_directions(model::LoraPair& pair, int64_t first, const Place& place);

// The first rows of A and columns of B; from pair's rank on free directions.
model::LoraPair resized(const model::LoraPair& pair, int64_t rank, const Place& place);

Factor factor_of(const model::LoraPair& pair, float scale);  // looks at the pair

// config at another rank with the same c: alpha = c r (c sqrt(r) with rsLoRA). Neither masked nor bound to a
// block.
model::LoraConfig config_at(const model::LoraConfig& config, int64_t rank);

}  // namespace brick::federate
