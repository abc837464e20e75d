// A model in another basis of its residual stream, which may have fewer directions. Internal to prune/.
#pragma once

#include <string>
#include <vector>

#include "brick/model/model.h"
#include "brick/tensor/tensor.h"

namespace brick::prune {

// D: the model's width, D': the new one. A norm gives z = x / sqrt(mean_j x_j^2 + eps), its own weights g left out.
struct Rotation {
  // Q^T [D', D] with orthonormal rows: the new stream is x' = Q^T x.
  tensor::Tensor stream;
  // R [D', D], one a norm in the order of their use (attention's and the feed-forward's of each layer, the last one): a
  // weight W that reads g z reads z' as W diag(g) R^T.
  std::vector<tensor::Tensor> readers;
};

// The rotated model. Norms go into the weights that read them, so that their own are 1; the head becomes a matrix of
// its own. Since z' is a mean over D' directions and z one over D, Q^T z = sqrt(D / D') z' wherever x' has all of x,
// with D / D' times the eps: R = sqrt(D / D') Q^T changes nothing but for what lies in the directions that went.
// Weights are held as `values` says (stored_values.h; q4: embedding and head as q8_0). The result's BlockSpec has the
// model's own cut and nothing else; its fingerprint is a new one. Errors: kUnsupported, naming the weight, where "keep"
// meets quantised weights or rows are no whole number of blocks.
model::Model rotate(const model::Model& model, const Rotation& rotation, const std::string& values);

}  // namespace brick::prune
