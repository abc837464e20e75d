// An adapter added into the weights.
#pragma once

#include <string>

#include "brick/model/adapter.h"

namespace brick::model {

// W + c BA, or W + c M * BA for a masked adapter, whose mask the result keeps. An unmasked adapter on a sparse weight
// makes it dense. `values`: "f32", "bf16", or "keep" (the weight's own dtype where it is a float type or the weight has no
// adapter; block formats are quantised again). Masked weights keep a sparse coding.
Model merge(const Model& model, const Adapter& adapter, const std::string& values);

}  // namespace brick::model
