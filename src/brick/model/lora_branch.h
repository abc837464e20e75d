// A linear layer with its LoRA branch, forward beside backward (Hu et al. 2021):
//   y = x W^T + c drop(x) A^T B^T            plain
//   y = x W^T + c drop(x) (M * (B A))^T      masked: the delta keeps the mask M of the sparse weight W
// where * is entry-wise, x [T, in], W [out, in], A [r, in], B [out, r].
#pragma once

#include <cstdint>

#include "brick/kernels/context.h"
#include "brick/model/adapter.h"

namespace brick::model {

// What the branch of one matrix needs beside the weight. Without `pair` the layer is plain.
struct Branch {
  const LoraPair* pair = nullptr;
  float scale = 0;      // c
  bool masked = false;  // and the weight is sparse
  double dropout = 0;   // of x, in training only
  uint64_t dropout_seed = 0, dropout_stream = 0;
};

// y = the above + beta y.
void project(kernels::Context& context, const tensor::Matrix& weight, const Branch& branch, tensor::ConstMatView x,
             float beta, tensor::MatView y);

// dx = dL/dx + beta dx (not computed where dx.data is null); gradient.a and gradient.b accumulate (where not null).
void project_backward(kernels::Context& context, const tensor::Matrix& weight, const Branch& branch,
                      tensor::ConstMatView x, tensor::ConstMatView dy, float beta, tensor::MatView dx,
                      LoraPair* gradient);

// Row r of W + c M * (B A), float32 [in]; for a dense weight M is all ones.
void effective_row(const tensor::Matrix& weight, const Branch& branch, int64_t r, float* out);

}  // namespace brick::model
