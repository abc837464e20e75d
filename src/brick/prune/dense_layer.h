// A layer's weights as float32 while it is pruned. Internal to prune/.
#pragma once

#include <array>

#include "brick/model/transformer.h"
#include "brick/prune/registry.h"

namespace brick::prune {

using DenseLayer = std::array<tensor::Matrix, model::kProjCount>;
using LayerTensors = std::array<tensor::Tensor, model::kProjCount>;  // [out, in] each

// What a method made of a layer: values [out, in], to be read where the masks keep them.
struct PrunedLayer {
  LayerTensors weights;
  std::array<MatrixOutcome, model::kProjCount> outcomes;
};

tensor::Matrix decode_matrix(const tensor::Matrix& weight);

// Error(kNumeric) naming the weight that has NaN or infinity. Gives the file's pages back.
DenseLayer decode_layer(const model::Model& model, int64_t layer);

// Zeros of the shapes of a layer's weights.
LayerTensors zeros_of(const model::Model& model, int64_t layer);

// As long as the tensors.
model::WeightGradients views_of(LayerTensors& tensors);

// Of a dense float32 matrix; as long as that.
tensor::ConstMatView dense_rows(const tensor::Matrix& weight);

// A dense matrix that looks at `weight`, which must outlive it and may change between uses.
tensor::Matrix looking_at(const tensor::Tensor& weight);

// A weight without outputs: its product falls away from the layer's forward, and so does the work for it.
tensor::Matrix without_rows(int64_t cols);

double squared_norm(tensor::ConstMatView x);

// row [cols] becomes 0 where the mask's row r drops it.
void clear_dropped(tensor::MaskView mask, int64_t r, float* row);
void clear_dropped(tensor::MaskView mask, tensor::MatView weight);

}  // namespace brick::prune
