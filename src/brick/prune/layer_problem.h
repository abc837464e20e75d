// A whole layer to prune, for methods that look at more than one of its weights at a time. Internal to prune/.
#pragma once

#include <array>

#include "brick/prune/calibration.h"
#include "brick/prune/dense_layer.h"
#include "brick/prune/prune.h"

namespace brick::prune {

// A layer's four distinct inputs: of q, k and v; o; gate and up; down.
using LayerStatistics = std::array<InputStatistics, 4>;
size_t input_index(model::Proj proj);

struct LayerProblem {
  model::Model& block;  // its weights of the layer are overwritten, the caller puts them right
  int64_t layer;
  double sparsity;
  Pattern pattern;
  const PruneConfig& config;
  const LayerStatistics& statistics;  // of the inputs that the weights have in the dense layer
  const Calibration& calibration;
  tensor::ConstMatView inputs;  // [N, D] of the layer, through the pruned ones before it
  kernels::Context& context;
};

}  // namespace brick::prune
