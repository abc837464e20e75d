#include "brick/kernels/linear.h"

#include <algorithm>
#include <vector>

#include "brick/base/parallel.h"
#include "brick/kernels/few_rows.h"
#include "brick/kernels/gemm.h"
#include "brick/kernels/kernel_table.h"
#include "brick/kernels/packed_product.h"
#include "brick/kernels/sparse_product.h"
#include "brick/kernels/sparse_row.h"
#include "brick/kernels/vector_ops.h"

namespace brick::kernels {
namespace {

using tensor::ConstMatView;
using tensor::DType;
using tensor::Matrix;
using tensor::MatView;

constexpr int64_t kPieceFloats = 2 << 20;
constexpr int64_t kExpansionGrain = 8;

bool is_plain(const Matrix& weight, DType dtype) { return !weight.is_sparse() && weight.dtype() == dtype; }

// A weight in any form, to be read as rows of either arithmetic.
class MatrixRows {
 public:
  explicit MatrixRows(const Matrix& weight) : weight_(weight) {}
  int64_t rows() const { return weight_.rows(); }
  int64_t cols() const { return weight_.cols(); }
  void write(int64_t r, float* out) const { expand_row(weight_, r, out); }
  std::optional<tensor::MaskView> mask() const {
    return weight_.is_sparse() ? std::optional(weight_.sparse_view().mask) : std::nullopt;
  }
  bool keep_f32() const { return false; }
  // Where the rows lie in memory already; else null.
  const float* f32(int64_t r) const {
    return is_plain(weight_, DType::kF32) ? reinterpret_cast<const float*>(weight_.dense_view().row(r)) : nullptr;
  }

 private:
  const Matrix& weight_;
};

class WrittenRows {
 public:
  explicit WrittenRows(const RowSource& source) : source_(source) {}
  int64_t rows() const { return source_.rows; }
  int64_t cols() const { return source_.cols; }
  void write(int64_t r, float* out) const { source_.write(r, out); }
  const std::optional<tensor::MaskView>& mask() const { return source_.mask; }
  bool keep_f32() const { return source_.keep_f32; }
  const float* f32(int64_t) const { return nullptr; }

 private:
  const RowSource& source_;
};

// x in bfloat16, zeros behind its columns, in `memory` of half(x.rows * stride) floats.
Bf16View to_bf16_rows(ConstMatView x, int64_t stride, float* memory) {
  const Bf16View out(reinterpret_cast<uint16_t*>(memory), x.rows, x.cols, stride);
  parallel_ranges(x.rows, kExpansionGrain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      to_bf16(x.row(t), out.row(t), x.cols);
      std::fill(out.row(t) + x.cols, out.row(t) + stride, uint16_t{0});
    }
  });
  return out;
}

// As the products of packed_product.h read it.
ConstBf16View to_packed_columns(Context& context, ConstMatView x) {
  const int64_t stride = packed_columns(x.cols);
  return to_bf16_rows(x, stride, context.scratch(Context::kInput, half(x.rows * stride)));
}

template <class Rows>
ConstMatView f32_piece(Context& context, const Rows& weight, int64_t begin, int64_t end) {
  const int64_t cols = weight.cols();
  if (const float* there = weight.f32(begin)) return {there, end - begin, cols};
  float* out = context.scratch(Context::kWeights, rows_a_piece(weight.rows(), cols) * cols);
  parallel_ranges(end - begin, kExpansionGrain, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) weight.write(begin + r, out + r * cols);
  });
  return {out, end - begin, cols};
}

// At least once, so that the backward of a weight without rows still overwrites dx.
template <class Rows, class Body>
void for_each_piece(const Rows& weight, Body&& body) {
  const int64_t rows = weight.rows(), step = rows_a_piece(rows, weight.cols());
  int64_t begin = 0;
  do {
    body(begin, std::min(begin + step, rows));
    begin += step;
  } while (begin < rows);
}

template <class Rows>
KeptRows kept_rows(const Rows& weight, int64_t begin, int64_t end) {
  return {*weight.mask(), begin, end, [&](int64_t r, float* out) { weight.write(r, out); }};
}

template <class Rows>
void forward(Context& context, const Rows& weight, ConstMatView x, float beta, MatView y) {
  const Compute compute = weight.keep_f32() ? Compute::kF32 : context.compute();
  if (weight.mask() && sparse_product_wins(*weight.mask(), x.rows, compute)) {
    const TokenBlocks input = block_tokens(x, context.scratch(Context::kInput, block_floats(x.rows, x.cols)));
    for_each_piece(weight, [&](int64_t begin, int64_t end) {
      const KeptRows rows = kept_rows(weight, begin, end);
      const KeptLists lists = list_by_row(rows, context.scratch(Context::kWeights, list_floats(rows)));
      sparse_product(lists, input, beta, y.col_range(begin, end));
    });
  } else if (compute == Compute::kBf16) {
    multiply_by_rows(
        context, to_packed_columns(context, x), [&](int64_t r, float* out) { weight.write(r, out); }, beta,
        y.col_range(0, weight.rows()));
  } else {
    for_each_piece(weight, [&](int64_t begin, int64_t end) {
      gemm(Trans::kNo, Trans::kYes, 1.0f, x, f32_piece(context, weight, begin, end), beta, y.col_range(begin, end));
    });
  }
}

template <class Rows>
void backward(Context& context, const Rows& weight, ConstMatView dy, float beta, MatView dx) {
  const Compute compute = weight.keep_f32() ? Compute::kF32 : context.compute();
  const bool sparse = weight.mask() && sparse_product_wins(*weight.mask(), dy.rows, compute);
  if (!sparse && compute == Compute::kBf16)
    return multiply_by_columns(
        context, to_packed_columns(context, dy), [&](int64_t r, float* out) { weight.write(r, out); }, beta, dx);
  for_each_piece(weight, [&](int64_t begin, int64_t end) {
    const ConstMatView piece = dy.col_range(begin, end);
    const float piece_beta = begin == 0 ? beta : 1.0f;
    if (sparse) {
      const KeptRows rows = kept_rows(weight, begin, end);
      const KeptLists lists = list_by_column(rows, context.scratch(Context::kWeights, list_floats(rows)));
      sparse_product(lists, block_tokens(piece, context.scratch(Context::kInput, block_floats(piece.rows, piece.cols))),
                     piece_beta, dx);
    } else {
      gemm(Trans::kNo, Trans::kNo, 1.0f, piece, f32_piece(context, weight, begin, end), piece_beta, dx);
    }
  });
}

}  // namespace

int64_t rows_a_piece(int64_t rows, int64_t cols) {
  return std::clamp<int64_t>(kPieceFloats / std::max<int64_t>(cols, 1), 1, std::max<int64_t>(rows, 1));
}

void expand_row(const Matrix& weight, int64_t r, float* out) {
  if (weight.is_sparse()) {
    thread_local std::vector<float> packed;
    packed.resize(static_cast<size_t>(weight.cols() + kPackedSlack));
    unpack_packed(weight.sparse_view(), r, packed.data());
    return sparse_expand(weight.sparse_view().mask.row(r), packed.data(), weight.cols(), out);
  }
  const tensor::DenseView view = weight.dense_view();
  unpack_values(view.dtype, view.row(r), view.cols, out);
}

void expand_rows(const Matrix& weight, int64_t begin, int64_t end, float* out) {
  parallel_ranges(end - begin, kExpansionGrain, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) expand_row(weight, begin + r, out + r * weight.cols());
  });
}

void linear(Context& context, const Matrix& weight, ConstMatView x, float beta, MatView y) {
  const Product product{&weight, beta, y};
  linear(context, {&product, 1}, x);
}

void linear(Context& context, std::span<const Product> products, ConstMatView x) {
  if (x.rows <= kFewRows) return linear_few_rows(context, products, x);
  for (const Product& product : products) forward(context, MatrixRows(*product.weight), x, product.beta, product.y);
}

void linear_backward(Context& context, const Matrix& weight, ConstMatView dy, float beta, MatView dx) {
  backward(context, MatrixRows(weight), dy, beta, dx);
}

void linear(Context& context, const RowSource& weight, ConstMatView x, float beta, MatView y) {
  if (x.rows <= kFewRows) return linear_few_rows(context, weight, x, beta, y);
  forward(context, WrittenRows(weight), x, beta, y);
}

void linear_backward(Context& context, const RowSource& weight, ConstMatView dy, float beta, MatView dx) {
  backward(context, WrittenRows(weight), dy, beta, dx);
}

void weight_gradient(Context& context, ConstMatView dy, ConstMatView x, MatView dw) {
  if (context.compute() == Compute::kF32) return gemm(Trans::kYes, Trans::kNo, 1.0f, dy, x, 0.0f, dw);
  const int64_t dy_floats = half(dy.rows * dy.cols);
  float* memory = context.scratch(Context::kInput, dy_floats + half(x.rows * x.cols));
  const Bf16View left = to_bf16_rows(dy, dy.cols, memory), right = to_bf16_rows(x, x.cols, memory + dy_floats);
  outer_product(context, left, right, dw);
}

}  // namespace brick::kernels
