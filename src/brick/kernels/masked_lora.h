// Rows of a LoRA delta that keeps a mask M, and of its gradient: masks as words of 64 bits, bit c % 64 of word c / 64
// for column c. One row at a time, so that a dense B A never exists.
#pragma once

#include <cstdint>

#include "brick/kernels/sparse_product.h"
#include "brick/tensor/view.h"

namespace brick::kernels {

// out[c] += sum over r of scale b[r] a(r, c), at the columns in the mask (all, where mask is null). b [R], a [R, n],
// out [n].
void add_delta_row(const uint64_t* mask, float scale, const float* b, tensor::ConstMatView a, float* out) noexcept;

// With g the row of dL/dW [n], masked here in place: db[r] += scale g . a(r, :), da(r, :) += scale b[r] g.
void masked_row_backward(const uint64_t* mask, float scale, const float* b, tensor::ConstMatView a, float* g, float* db,
                         tensor::MatView da) noexcept;

// The same from sampled_product(): g [lists.count()] of lists by column. Input i of the lists is row i of b and db
// [inputs, R], output o is column o of a and da [R, outputs]; db and da accumulate. `memory` of
// masked_gradient_floats().
int64_t masked_gradient_floats(int64_t rank, int64_t inputs);
void masked_gradient(const KeptLists& lists, const float* g, float scale, tensor::ConstMatView b,
                     tensor::ConstMatView a, tensor::MatView db, tensor::MatView da, float* memory);

}  // namespace brick::kernels
