// Linear layers of one input with their LoRA pairs, on activations held in bfloat16, forward beside backward. The
// weights are unpacked straight into the order in which bfloat16 instructions read them, the pairs' thin matrices
// beside them as more columns and rows of the same product:
//   y = [x | h] [W | c B]^T, h = x A^T;   dx = [dy | dh] [W; A], dh = c dy B;   dB += c dy^T h, dA += dh^T x
// so that small deltas are not lost in the rounding of W. Sums are float32; h, dh, c B and A are rounded to bfloat16.
// A delta that keeps the mask M of a sparse W can't be split so: its layer is a product with W + c M * (B A), rounded
// by dither_to_bf16(), and
//   dB += c (M * G) A^T, dA += c B^T (M * G), G = dy^T x.
#pragma once

#include <span>

#include "brick/kernels/bf16_view.h"
#include "brick/kernels/context.h"
#include "brick/tensor/matrix.h"

namespace brick::kernels {

// W [out, in]; a [R, in] and b [out, R] where there is a pair, whose gradients accumulate (where not null). `masked`:
// the delta keeps the mask of W where that is sparse.
struct LoraWeight {
  const tensor::Matrix* weight = nullptr;
  float scale = 0;
  tensor::ConstMatView a = {}, b = {};
  tensor::MatView da = {}, db = {};
  bool masked = false;
};

// Columns of an activation of `cols` that such layers with pairs of `rank` columns in sum read: more than it has, which
// are theirs to overwrite.
int64_t branch_columns(int64_t cols, int64_t rank);

// The layers' outputs side by side: y [T, sum of out] = the above + beta y, beta 0 or 1. x [T, in] has room for
// branch_columns().
void linear(Context& context, std::span<const LoraWeight> layers, Bf16View x, float beta, Bf16View y);
void linear(Context& context, std::span<const LoraWeight> layers, Bf16View x, float beta, tensor::MatView y);

// From dy [T, sum of out], with room: dx = dL/dx (not computed where dx.data is null), and the pairs' gradients. x as
// in linear().
void linear_backward(Context& context, std::span<const LoraWeight> layers, Bf16View x, Bf16View dy, Bf16View dx);
void linear_backward(Context& context, std::span<const LoraWeight> layers, Bf16View x, Bf16View dy, tensor::MatView dx);

}  // namespace brick::kernels
