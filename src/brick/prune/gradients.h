// Gradients of the language loss in a model's linear weights, a layer at a time. Internal to prune/.
#pragma once

#include <functional>

#include "brick/prune/calibration.h"
#include "brick/prune/dense_layer.h"

namespace brick::prune {

// Of one layer, [out, in] each. L: mean next-token loss over all tokens of the text; L_j: over those of sequence j of
// N.
struct LayerGradients {
  LayerTensors loss;     // dL/dW
  LayerTensors squares;  // sum_j (dL_j/dW)^2 / N; empty if not asked for
};

// Calls visit for each layer, the last one first. Memory: (layers + 1) [N, D] for the text's N tokens, and one layer's
// weights and gradients. Errors: kInvalidInput if no window has two tokens, kNumeric as decode_layer() and
// for a loss that is not finite.
void for_each_gradient(
    const model::Model& model, const Calibration& calibration, bool squares, kernels::Context& context,
    const std::function<void(int64_t layer, const DenseLayer& weights, const LayerGradients& gradients)>& visit);

}  // namespace brick::prune
