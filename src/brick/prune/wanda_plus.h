// Wanda++ in parts (wanda_plus.cc). Internal to prune/.
#pragma once

#include "brick/prune/layer_problem.h"

namespace brick::prune {

// The layer of a problem with the weights that `pruned` has at the time, a sequence after another. Both must outlive
// it.
class Region {
 public:
  Region(const LayerProblem& problem, const PrunedLayer& pruned);

  // f(x_n) [T, D], valid until the next call.
  tensor::MatView forward(const Calibration::Piece& sequence);
  // Of the last forward's: `d_output` [T, D] is used up; the gradients of the weights are valid until the next call.
  const LayerTensors& backward(tensor::MatView d_output);

  // G: the root mean square over sequences of d||f(x_n)||_2 / dW. Error(kNumeric) for an output that is not finite.
  LayerTensors mean_gradients();

  const std::vector<Calibration::Piece>& sequences() const { return sequences_; }

 private:
  const LayerProblem& problem_;
  std::vector<Calibration::Piece> sequences_;
  model::Transformer transformer_;
  tensor::Tensor x_;
  LayerTensors gradients_;
};

// Drops each row's, or group's, lowest |W_ij| (||X_j||_2 + scale G_ij).
MatrixOutcome prune_by_region(const MatrixProblem& problem, tensor::ConstMatView gradients, double scale);

}  // namespace brick::prune
