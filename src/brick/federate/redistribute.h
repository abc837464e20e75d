// What the clients of the next round are sent.
#pragma once

#include <span>
#include <vector>

#include "brick/model/adapter.h"

namespace brick::federate {

// The same product in singular form, matrix by matrix: B = U (S/c)^(1/2), A = (S/c)^(1/2) V^T, s descending,
// so that the first r rows are the best adapter of rank r. Directions without a singular value are free ones
// (factors.h). Pairs that are in that form already, and those whose B is zero, keep their bits.
model::Adapter canonical(const model::Adapter& global, uint64_t seed = 0);

// The best rank-`rank` approximation of what the adapter adds, with the same c (alpha = c r). At the
// adapter's own rank: a copy. Above it: the adapter with free directions behind, B zero and A seeded by
// matrix and row, so that the product is the same and the new directions can learn. Below it: the first rows
// of canonical(global). Never masked: a masked client sets config.masked and config.mask_hash to its block's,
// and the block masks the product itself.
model::Adapter truncate(const model::Adapter& global, int64_t rank, uint64_t seed = 0);

// truncate for every client of a round, the factors of each being the first rows of one adapter's: of
// `global` where no rank is below its own, else of canonical(global). The rules that average factors
// (hete-h0, zero-pad) need that.
std::vector<model::Adapter> redistribute(const model::Adapter& global, std::span<const int64_t> ranks,
                                         uint64_t seed = 0);

}  // namespace brick::federate
