// A model pruned elsewhere as a block: its exact zeros become masks.
#pragma once

#include "brick/model/model.h"

namespace brick::model {

// Below this share of zeros in the layers' linear weights a model is no pruned one.
inline constexpr double kLeastZeros = 0.05;

// Every linear weight of a layer with at least kLeastZeros of zeros becomes a mask and its other values, as `dtype`
// (f32, f16 or bf16); the rest stays as it is. A weight that has at most two others than zero in every four inputs of a
// row (four in eight) is taken for one pruned 2:4 (4:8): where there are fewer its mask keeps zeros, unless these come
// to more than kLeastZeros. The block's pattern is that of all masks, or unstructured. Error(kInvalidInput) where the
// model is a block already or has fewer zeros in all, kNumeric naming the weight that is not finite or too large for
// f16.
Model block_from_zeros(const Model& model, tensor::DType dtype);

}  // namespace brick::model
