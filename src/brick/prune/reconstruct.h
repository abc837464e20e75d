// Local reconstruction: after any mask, a layer's kept weights are set anew so that the layer gives, from the inputs
// that the pruned layers before it produce, what the dense model has there. It so makes up for the layer's own loss and
// for what came before (the sub-blocks' outputs as targets: "free lunch", arXiv 2510.14444; inputs of the pruned and
// targets of the dense model: GPTAQ, Li et al. 2025; gradient descent on a whole layer: EBFT, Guo et al. 2024).
//
// Two parts, each on the mask as it is:
// 1. Least squares in the order of computation: q, k and v towards the dense model's; o towards what the residual
//    stream then lacks, sum_t ||W a_t - (y_t - x_t)||^2 / ||y_t||^2; gate and up towards the dense model's; down as o.
//    Each sees its inputs through the weights before it as they are by then. A ridge draws to the dense weights: H + r
//    I, C + r W with r = damping mean(diag H).
// 2. Adam on all seven together (layer_descent.h), which no linear fit sees.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "brick/model/transformer.h"
#include "brick/prune/calibration.h"
#include "brick/prune/dense_layer.h"
#include "brick/prune/layer_descent.h"

namespace brick::prune {

struct ReconstructOptions {
  double damping = 0.01;
  int64_t iterations = 0;  // conjugate gradient steps a matrix
  DescentOptions descent;
};

class Reconstructor {
 public:
  // `transformer` runs the block's layers; `block`'s layer at hand is overwritten, the caller puts it right. Memory:
  // four times [N, D] and a layer's weights four times.
  Reconstructor(model::Model& block, model::Transformer& transformer, const Calibration& calibration,
                const ReconstructOptions& options);

  // For each layer in turn: see_dense() while the block's layer holds its dense weights, then run(). `inputs` [N, D]:
  // the layer's, through the pruned layers before it. Dropped entries of the weights are 0 afterwards.
  void see_dense(int64_t layer);
  void run(int64_t layer, const DenseLayer& dense, PrunedLayer& pruned, tensor::ConstMatView inputs);

  // ||x - y|| / ||y|| of layer outputs x [N, D] and the dense model's, as the descent sees it: the root of the mean
  // over tokens.
  double stream_error(tensor::ConstMatView x) const;

 private:
  struct Inputs {
    const std::vector<float>& norm;
    tensor::ConstMatView pruned, dense;  // [N, D] before the norm
  };
  void fit_to_dense_inputs(const Inputs& inputs, std::span<const model::Proj> projs, const DenseLayer& dense,
                           PrunedLayer& pruned) const;
  // The layer has the weights of its half (attention or feed-forward) that come before `proj` alone; `inputs` are that
  // half's, `target` is its dense output.
  void fit_to_stream(int64_t layer, model::Proj proj, const DenseLayer& dense, PrunedLayer& pruned,
                     tensor::ConstMatView inputs, tensor::ConstMatView target);
  void forward(int64_t layer, tensor::ConstMatView inputs, tensor::MatView outputs);

  model::Model& block_;
  model::Transformer& transformer_;
  const Calibration& calibration_;
  ReconstructOptions options_;
  std::optional<LayerDescent> descent_;
  tensor::Tensor dense_in_, dense_middle_, dense_out_, middle_;  // [N, D]
};

}  // namespace brick::prune
