// Softmax cross-entropy over rows of logits.
#pragma once

#include "brick/tensor/view.h"

namespace brick::kernels {

// losses[t] = log sum_v exp(z_tv) - z_t,target. logits [T, V] are overwritten.
void cross_entropy(tensor::MatView logits, const int32_t* targets, float* losses) noexcept;

// The same losses; logits become weight dL/dz = weight (softmax(z_t) - onehot(target)).
void cross_entropy_backward(tensor::MatView logits, const int32_t* targets, float weight, float* losses) noexcept;

}  // namespace brick::kernels
