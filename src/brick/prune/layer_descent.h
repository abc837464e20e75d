// Gradient descent on a layer's kept weights towards the dense model's output of that layer. Internal to prune/.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "brick/prune/calibration.h"
#include "brick/prune/dense_layer.h"

namespace brick::prune {

struct DescentOptions {
  int64_t epochs = 0, batch_tokens = 512;
  double rate = 0;  // Adam's, falling linearly to 0
  uint64_t seed = 0;
};

// Minimises mean_t ||f(x_t) - y_t||^2 / ||y_t||^2 over whole sequences, f being the layer with its attention, its
// feed-forward and its shortcuts, by Adam (Kingma and Ba 2015) on the kept weights; norms stay. The error is each
// token's relative one, since a few tokens of a sequence are far larger than the rest (our choice).
class LayerDescent {
 public:
  // The model and the rest must outlive it.
  LayerDescent(const model::Model& block, const Calibration& calibration, kernels::Context& context,
               const DescentOptions& options);

  // The model's layer must look at `pruned`'s weights, whose dropped entries are 0. `inputs`, `targets` [N, D].
  void run(int64_t layer, PrunedLayer& pruned, tensor::ConstMatView inputs, tensor::ConstMatView targets);

 private:
  using Sequence = Calibration::Piece;
  void step(int64_t layer, std::span<const Sequence> batch, tensor::ConstMatView inputs, tensor::ConstMatView targets);
  void update(PrunedLayer& pruned, double rate);

  DescentOptions options_;
  std::vector<Sequence> sequences_;
  int64_t tokens_;
  model::Transformer transformer_;
  tensor::Tensor x_, y_;  // [batch, D]
  LayerTensors gradients_, first_, second_;
  int64_t steps_ = 0;
};

}  // namespace brick::prune
