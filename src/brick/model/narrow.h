// A model with some channels of its residual stream alone, in all matrices at once. Unlike what cut.h takes out, what
// is left says nothing of where it was in its parent.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "brick/model/model.h"

namespace brick::model {

// Keeps `channels`, ascending, of the D: columns of embedding, head, q, k, v, gate and up, rows of o and down, entries
// of norms and biases. Weights are held as slice() has them, embedding and head too (q4: these as q8_0); a tied head
// stays tied. The result's BlockSpec has the model's own cut and nothing else; its fingerprint is a new one. Errors: as
// slice().
Model narrow(const Model& model, const std::vector<int32_t>& channels, const std::string& values);

}  // namespace brick::model
