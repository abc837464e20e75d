// An adapter added into the weights.
#pragma once

#include <string>

#include "brick/model/adapter.h"

namespace brick::model {

// W + c BA, or W + c M * BA for a masked adapter, whose mask the result keeps. An unmasked adapter on a
// sparse weight makes it dense. Weights without an adapter stay as they are. `values` says how the merged
// ones are held:
//   "f32", "bf16"   so, dense or as kept values;
//   "keep"          in the weight's own encoding: float types as they are, block formats and sparse "q4"
//                   quantised again. bf16 where there is none: "parent" holds the parent's integers
//                   alone, and neither it nor "q4" says what a weight that becomes dense should be.
// Memory beside the result: one weight as float32 and a piece of its delta. Errors: kMismatch as
// check_fits(), kInvalidInput for another `values`.
Model merge(const Model& model, const Adapter& adapter, const std::string& values);

}  // namespace brick::model
