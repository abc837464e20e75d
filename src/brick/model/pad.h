// Layers of several widths filled up with zeros to one, for formats that have no other; the model computes what it did.
#pragma once

#include "brick/model/model.h"

namespace brick::model {

// The smallest shape that every layer fits into: the most key/value heads, query heads of one of them, and neurons.
LayerShape widest_shape(const Model& model);

// The layer's weight as one of shape `to` has it, which the layer must fit into: as it is where it has that size, else
// dense float32. Query heads stay with the key/value head that they had. All weights of what is added are zeros, its
// columns of o and down too, so that no output has any of it.
tensor::Matrix padded(const Layer& layer, Proj proj, const LayerShape& to);

}  // namespace brick::model
