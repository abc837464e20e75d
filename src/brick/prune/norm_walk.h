// Calibration text on its way through a model's norms. Internal to prune/.
#pragma once

#include <functional>
#include <vector>

#include "brick/prune/dense_walk.h"

namespace brick::prune {

class NormWalk {
 public:
  // All must outlive it. Memory: as DenseWalk, and [largest piece, D].
  NormWalk(const model::Model& model, const Calibration& calibration, kernels::Context& context);

  // Sees what a norm gives of one piece of text, z [T, D], its own weights left out (zeros where they are 0, as nothing
  // is read from there). Norms count in the order of their use: attention's and the feed-forward's of each layer, the
  // last one. Valid during the call.
  using Hook = std::function<void(int64_t norm, tensor::ConstMatView z)>;

  void next_layer(const Hook& hook);  // its two norms
  void last(const Hook& hook);        // once all layers are done

 private:
  const model::Model& model_;
  const Calibration& calibration_;
  DenseWalk walk_;
  int64_t next_ = 0;
  tensor::Tensor z_;
};

}  // namespace brick::prune
