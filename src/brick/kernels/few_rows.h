// Products of at most kFewRows rows of activations with weights held in any form: one pass over the weights, decoded in
// registers, each row of them meeting every row of x while it is in cache.
#pragma once

#include <span>

#include "brick/kernels/linear.h"

namespace brick::kernels {

constexpr int64_t kFewRows = 4;  // up to here one pass over the weights beats their expansion

// y = x W^T + beta y for each product, as linear().
void linear_few_rows(Context& context, std::span<const Product> products, tensor::ConstMatView x);
void linear_few_rows(Context& context, const RowSource& weight, tensor::ConstMatView x, float beta, tensor::MatView y);

}  // namespace brick::kernels
