// Products of activations with a weight held in any form: y = x W^T and its gradient in x. Encoded and sparse weights
// are expanded a piece at a time into scratch memory (in bfloat16 packed: packed_product.h); a few rows go through a
// fused path without it.
#pragma once

#include <functional>
#include <optional>
#include <span>

#include "brick/kernels/context.h"
#include "brick/tensor/matrix.h"

namespace brick::kernels {

// y = x W^T + beta y; x [T, in], W [out, in], y [T, out]; beta 0 or 1.
void linear(Context& context, const tensor::Matrix& weight, tensor::ConstMatView x, float beta, tensor::MatView y);

// The same for several weights of one input: where x has few rows, in one go.
struct Product {
  const tensor::Matrix* weight;
  float beta;
  tensor::MatView y;
};
void linear(Context& context, std::span<const Product> products, tensor::ConstMatView x);

// dx = dy W + beta dx; dy [T, out], dx [T, in]; beta 0 or 1.
void linear_backward(Context& context, const tensor::Matrix& weight, tensor::ConstMatView dy, float beta,
                     tensor::MatView dx);

// A weight [rows, cols] that exists only row by row: write(r, out) leaves row r as float32. Several threads call it.
struct RowSource {
  int64_t rows, cols;
  std::function<void(int64_t r, float* out)> write;
  std::optional<tensor::MaskView> mask = {};  // outside it the rows are 0
  bool keep_f32 = false;                      // products in float32 whatever the context says
};
void linear(Context& context, const RowSource& weight, tensor::ConstMatView x, float beta, tensor::MatView y);
void linear_backward(Context& context, const RowSource& weight, tensor::ConstMatView dy, float beta,
                     tensor::MatView dx);

// dW = dy^T x; dy [T, out], x [T, in], dW [out, in]. None of them may lie in scratch kWeights or kInput.
void weight_gradient(Context& context, tensor::ConstMatView dy, tensor::ConstMatView x, tensor::MatView dw);

// Row r of the weight as float32, [in].
void expand_row(const tensor::Matrix& weight, int64_t r, float* out);

// Rows [begin, end) of the weight as float32, [end - begin, in], in parallel.
void expand_rows(const tensor::Matrix& weight, int64_t begin, int64_t end, float* out);

// Rows of a weight [rows, cols] that are expanded at a time: a piece of about 8 MB.
int64_t rows_a_piece(int64_t rows, int64_t cols);
inline int64_t rows_a_piece(const tensor::Matrix& weight) { return rows_a_piece(weight.rows(), weight.cols()); }

}  // namespace brick::kernels
