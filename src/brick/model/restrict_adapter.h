#pragma once

#include "brick/model/adapter.h"

namespace brick::model {

// The part of its parent's adapter that a structured block has (docs/federation.md): its layers, of them the rows of B
// and the columns of A that were kept. A copy where nothing was cut out of the block, or the adapter is of this cut
// already. Error(kMismatch) naming what differs if `whole` is no adapter of the block's first parent.
Adapter restricted(const Adapter& whole, const Model& block);

}  // namespace brick::model
