// Calibration text on its way through a dense model. Internal to prune/.
#pragma once

#include <functional>

#include "brick/model/transformer.h"
#include "brick/prune/calibration.h"
#include "brick/prune/dense_layer.h"

namespace brick::prune {

class DenseWalk {
 public:
  // All three must outlive it. Memory: [N, D] for the text's N tokens, and one layer's weights as float32.
  DenseWalk(const model::Model& model, const Calibration& calibration, kernels::Context& context);

  // Sees the residual stream [T, D] of one piece of text before and after a layer; valid during the call.
  using StreamHook = std::function<void(tensor::ConstMatView before, tensor::ConstMatView after)>;

  // Runs all text through the next layer and returns its weights, which stay until the next step. Error(kNumeric) as
  // decode_layer().
  const DenseLayer& step(const model::InputHook& inputs = {}, const StreamHook& stream = {});

  // The residual stream [N, D] before the next layer.
  tensor::ConstMatView stream() const { return x_.mat(); }

 private:
  const model::Model& model_;
  const Calibration& calibration_;
  model::Model dense_;  // the layer at hand decoded, the others as they are
  model::Transformer transformer_;
  int64_t next_ = 0;
  tensor::Tensor x_, before_;  // [N, D]; [largest piece, D] once a StreamHook asks for it
};

}  // namespace brick::prune
