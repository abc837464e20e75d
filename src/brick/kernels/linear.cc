#include "brick/kernels/linear.h"

#include <algorithm>

#include "brick/base/parallel.h"
#include "brick/kernels/gemm.h"
#include "brick/kernels/vector_ops.h"

namespace brick::kernels {
namespace {

using tensor::ConstMatView;
using tensor::DType;
using tensor::Matrix;
using tensor::MatView;

constexpr int64_t kPieceFloats = 2 << 20;
constexpr int64_t kFewRows = 4;        // up to here one pass over the weights beats their expansion
constexpr int64_t kExpansionGrain = 8;

bool is_plain_f32(const Matrix& weight) { return !weight.is_sparse() && weight.dtype() == DType::kF32; }

ConstMatView plain_rows(const Matrix& weight, int64_t begin, int64_t end) {
  const tensor::DenseView view = weight.dense_view();
  return {reinterpret_cast<const float*>(view.row(begin)), end - begin, view.cols};
}

void decode_row(const Matrix& weight, int64_t r, float* out) {
  if (weight.is_sparse()) return tensor::unpack_sparse_row(weight.sparse_view(), r, out);
  const tensor::DenseView view = weight.dense_view();
  unpack_values(view.dtype, view.row(r), view.cols, out);
}

// One pass over the weights: each row is decoded into cache and meets every x.
void linear_few_rows(const Matrix& weight, ConstMatView x, float beta, MatView y, float* rows) {
  const int64_t cols = weight.cols();
  parallel_ranges(weight.rows(), kExpansionGrain, [&](int64_t begin, int64_t end) {
    float* row = rows + omp_get_thread_num() * cols;
    for (int64_t r = begin; r < end; ++r) {
      const float* values = row;
      if (is_plain_f32(weight))
        values = plain_rows(weight, r, r + 1).data;
      else
        decode_row(weight, r, row);
      for (int64_t t = 0; t < x.rows; ++t) y(t, r) = dot(values, x.row(t), cols) + (beta != 0.0f ? y(t, r) : 0.0f);
    }
  });
}

const uint16_t* to_bf16_rows(Context& context, ConstMatView x) {
  auto* out = reinterpret_cast<uint16_t*>(context.scratch(Context::kInput, (x.rows * x.cols + 1) / 2));
  parallel_ranges(x.rows, kExpansionGrain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) to_bf16(x.row(t), out + t * x.cols, x.cols);
  });
  return out;
}

// The piece in bfloat16; bfloat16 weights are used where they lie.
const uint16_t* bf16_rows(Context& context, const Matrix& weight, int64_t begin, int64_t end) {
  if (!weight.is_sparse() && weight.dtype() == DType::kBF16)
    return reinterpret_cast<const uint16_t*>(weight.dense_view().row(begin));
  const int64_t cols = weight.cols(), halves = (rows_a_piece(weight) * cols + 1) / 2;
  float* memory = context.scratch(Context::kWeights, halves + threads() * cols);
  auto* out = reinterpret_cast<uint16_t*>(memory);
  parallel_ranges(end - begin, kExpansionGrain, [&](int64_t first, int64_t last) {
    float* row = memory + halves + omp_get_thread_num() * cols;
    for (int64_t r = first; r < last; ++r) {
      decode_row(weight, begin + r, row);
      to_bf16(row, out + r * cols, cols);
    }
  });
  return out;
}

ConstMatView f32_rows(Context& context, const Matrix& weight, int64_t begin, int64_t end) {
  if (is_plain_f32(weight)) return plain_rows(weight, begin, end);
  float* out = context.scratch(Context::kWeights, rows_a_piece(weight) * weight.cols());
  expand_rows(weight, begin, end, out);
  return {out, end - begin, weight.cols()};
}

// At least once, so that the backward of a weight without rows still overwrites dx.
template <class Body>
void for_each_piece(const Matrix& weight, Body&& body) {
  const int64_t step = rows_a_piece(weight), rows = weight.rows();
  int64_t begin = 0;
  do {
    body(begin, std::min(begin + step, rows));
    begin += step;
  } while (begin < rows);
}

}  // namespace

int64_t rows_a_piece(const Matrix& weight) {
  return std::clamp<int64_t>(kPieceFloats / std::max<int64_t>(weight.cols(), 1), 1, std::max<int64_t>(weight.rows(), 1));
}

void expand_rows(const Matrix& weight, int64_t begin, int64_t end, float* out) {
  parallel_ranges(end - begin, kExpansionGrain, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) decode_row(weight, begin + r, out + r * weight.cols());
  });
}

void linear(Context& context, const Matrix& weight, ConstMatView x, float beta, MatView y) {
  if (x.rows <= kFewRows) {
    float* rows = context.scratch(Context::kWeights, threads() * weight.cols());
    return linear_few_rows(weight, x, beta, y, rows);
  }
  if (context.compute() == Compute::kBf16) {
    const uint16_t* input = to_bf16_rows(context, x);
    for_each_piece(weight, [&](int64_t begin, int64_t end) {
      gemm_bf16(Trans::kYes, input, bf16_rows(context, weight, begin, end), x.rows, end - begin, x.cols, beta,
                y.col_range(begin, end));
    });
    return;
  }
  for_each_piece(weight, [&](int64_t begin, int64_t end) {
    gemm(Trans::kNo, Trans::kYes, 1.0f, x, f32_rows(context, weight, begin, end), beta, y.col_range(begin, end));
  });
}

void linear_backward(Context& context, const Matrix& weight, ConstMatView dy, float beta, MatView dx) {
  const bool bf16 = context.compute() == Compute::kBf16;
  for_each_piece(weight, [&](int64_t begin, int64_t end) {
    const ConstMatView piece = dy.col_range(begin, end);
    const float piece_beta = begin == 0 ? beta : 1.0f;
    if (bf16)
      gemm_bf16(Trans::kNo, to_bf16_rows(context, piece), bf16_rows(context, weight, begin, end), dy.rows, weight.cols(),
                end - begin, piece_beta, dx);
    else
      gemm(Trans::kNo, Trans::kNo, 1.0f, piece, f32_rows(context, weight, begin, end), piece_beta, dx);
  });
}

}  // namespace brick::kernels
