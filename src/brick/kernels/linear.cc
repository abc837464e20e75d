#include "brick/kernels/linear.h"

#include <algorithm>
#include <vector>

#include "brick/base/parallel.h"
#include "brick/kernels/gemm.h"
#include "brick/kernels/row_dot.h"
#include "brick/kernels/sparse_row.h"
#include "brick/kernels/vector_ops.h"

namespace brick::kernels {
namespace {

using tensor::ConstMatView;
using tensor::DType;
using tensor::Matrix;
using tensor::MatView;

constexpr int64_t kPieceFloats = 2 << 20;
constexpr int64_t kFewRows = 4;  // up to here one pass over the weights beats their expansion
constexpr int64_t kExpansionGrain = 8;

bool is_plain(const Matrix& weight, DType dtype) { return !weight.is_sparse() && weight.dtype() == dtype; }

// Sparse with its kept values one behind the other (not beside their columns' scales, as in SparseCoding::kParent).
bool is_packed(const Matrix& weight) {
  return weight.is_sparse() && weight.sparse_view().coding != tensor::SparseCoding::kParent;
}

// The kept values of row r as float32; `out` has room for a row and kPackedSlack.
void unpack_packed(const tensor::SparseView& view, int64_t r, float* out) {
  const int64_t block = tensor::info(view.dtype).block_values, kept = view.mask.count_row(r);
  const int64_t count = (kept + block - 1) / block * block;
  unpack_values(view.dtype, view.values + view.row_offset[r], count, out);
}

// A weight in any form, to be read as rows of either arithmetic.
class MatrixRows {
 public:
  explicit MatrixRows(const Matrix& weight) : weight_(weight) {}
  int64_t rows() const { return weight_.rows(); }
  int64_t cols() const { return weight_.cols(); }
  void write(int64_t r, float* out) const { expand_row(weight_, r, out); }
  // Where such rows lie in memory already; else null.
  const float* f32(int64_t r) const { return in_place<float>(DType::kF32, r); }
  const uint16_t* bf16(int64_t r) const { return in_place<uint16_t>(DType::kBF16, r); }

  // Calls use(dot), dot(x, block sums of x) being row r's product with x in the form that suits the encoding; `memory`
  // has room for a row and kPackedSlack.
  template <class Use>
  void with_row(int64_t r, float* memory, Use&& use) const {
    const int64_t n = cols();
    if (const float* row = f32(r)) {
      use([=](const float* x, const float*) { return dot(row, x, n); });
    } else if (is_packed(weight_)) {
      const tensor::SparseView view = weight_.sparse_view();
      unpack_packed(view, r, memory);
      use([=, mask = view.mask.row(r)](const float* x, const float*) { return sparse_dot(mask, memory, x, n); });
    } else if (!weight_.is_sparse() && has_encoded_dot(weight_.dtype())) {
      const tensor::DenseView view = weight_.dense_view();
      use([=, row = view.row(r)](const float* x, const float* sums) {
        return dot_encoded(view.dtype, row, x, sums, n);
      });
    } else {
      write(r, memory);
      use([=](const float* x, const float*) { return dot(memory, x, n); });
    }
  }

 private:
  template <class T>
  const T* in_place(DType dtype, int64_t r) const {
    return is_plain(weight_, dtype) ? reinterpret_cast<const T*>(weight_.dense_view().row(r)) : nullptr;
  }
  const Matrix& weight_;
};

class WrittenRows {
 public:
  explicit WrittenRows(const RowSource& source) : source_(source) {}
  int64_t rows() const { return source_.rows; }
  int64_t cols() const { return source_.cols; }
  void write(int64_t r, float* out) const { source_.write(r, out); }
  const float* f32(int64_t) const { return nullptr; }
  const uint16_t* bf16(int64_t) const { return nullptr; }
  template <class Use>
  void with_row(int64_t r, float* memory, Use&& use) const {
    write(r, memory);
    use([&](const float* x, const float*) { return dot(memory, x, cols()); });
  }

 private:
  const RowSource& source_;
};

// One pass over the weights: each row meets every x while it is in cache.
template <class Rows>
void linear_few_rows(Context& context, const Rows& weight, ConstMatView x, float beta, MatView y) {
  const int64_t cols = weight.cols(), blocks = cols / tensor::kQuantBlock, row_floats = cols + kPackedSlack;
  float* sums = context.scratch(Context::kWeights, threads() * row_floats + x.rows * blocks);
  float* memory = sums + x.rows * blocks;
  for (int64_t t = 0; t < x.rows; ++t) block_sums(x.row(t), blocks * tensor::kQuantBlock, sums + t * blocks);
  parallel_ranges(weight.rows(), kExpansionGrain, [&](int64_t begin, int64_t end) {
    float* row = memory + omp_get_thread_num() * row_floats;
    for (int64_t r = begin; r < end; ++r)
      weight.with_row(r, row, [&](auto&& dot_with) {
        for (int64_t t = 0; t < x.rows; ++t)
          y(t, r) = dot_with(x.row(t), sums + t * blocks) + (beta != 0.0f ? y(t, r) : 0.0f);
      });
  });
}

// x in bfloat16, rows dense, in `memory` of bf16_floats(x).
const uint16_t* to_bf16_rows(ConstMatView x, float* memory) {
  auto* out = reinterpret_cast<uint16_t*>(memory);
  parallel_ranges(x.rows, kExpansionGrain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) to_bf16(x.row(t), out + t * x.cols, x.cols);
  });
  return out;
}

int64_t bf16_floats(ConstMatView x) { return (x.rows * x.cols + 1) / 2; }

template <class Rows>
const uint16_t* bf16_piece(Context& context, const Rows& weight, int64_t begin, int64_t end) {
  if (const uint16_t* there = weight.bf16(begin)) return there;
  const int64_t cols = weight.cols(), halves = (rows_a_piece(weight.rows(), cols) * cols + 1) / 2;
  float* memory = context.scratch(Context::kWeights, halves + threads() * cols);
  auto* out = reinterpret_cast<uint16_t*>(memory);
  parallel_ranges(end - begin, kExpansionGrain, [&](int64_t first, int64_t last) {
    float* row = memory + halves + omp_get_thread_num() * cols;
    for (int64_t r = first; r < last; ++r) {
      weight.write(begin + r, row);
      to_bf16(row, out + r * cols, cols);
    }
  });
  return out;
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
void forward(Context& context, const Rows& weight, ConstMatView x, float beta, MatView y) {
  if (x.rows <= kFewRows) return linear_few_rows(context, weight, x, beta, y);
  if (context.compute() == Compute::kBf16) {
    const uint16_t* input = to_bf16_rows(x, context.scratch(Context::kInput, bf16_floats(x)));
    for_each_piece(weight, [&](int64_t begin, int64_t end) {
      gemm_bf16(Trans::kNo, Trans::kYes, input, bf16_piece(context, weight, begin, end), x.rows, end - begin, x.cols,
                beta, y.col_range(begin, end));
    });
    return;
  }
  for_each_piece(weight, [&](int64_t begin, int64_t end) {
    gemm(Trans::kNo, Trans::kYes, 1.0f, x, f32_piece(context, weight, begin, end), beta, y.col_range(begin, end));
  });
}

template <class Rows>
void backward(Context& context, const Rows& weight, ConstMatView dy, float beta, MatView dx) {
  for_each_piece(weight, [&](int64_t begin, int64_t end) {
    const ConstMatView piece = dy.col_range(begin, end);
    const float piece_beta = begin == 0 ? beta : 1.0f;
    if (context.compute() == Compute::kBf16)
      gemm_bf16(Trans::kNo, Trans::kNo, to_bf16_rows(piece, context.scratch(Context::kInput, bf16_floats(piece))),
                bf16_piece(context, weight, begin, end), dy.rows, weight.cols(), end - begin, piece_beta, dx);
    else
      gemm(Trans::kNo, Trans::kNo, 1.0f, piece, f32_piece(context, weight, begin, end), piece_beta, dx);
  });
}

}  // namespace

int64_t rows_a_piece(int64_t rows, int64_t cols) {
  return std::clamp<int64_t>(kPieceFloats / std::max<int64_t>(cols, 1), 1, std::max<int64_t>(rows, 1));
}

void expand_row(const Matrix& weight, int64_t r, float* out) {
  if (is_packed(weight)) {
    thread_local std::vector<float> packed;
    packed.resize(static_cast<size_t>(weight.cols() + kPackedSlack));
    unpack_packed(weight.sparse_view(), r, packed.data());
    return sparse_expand(weight.sparse_view().mask.row(r), packed.data(), weight.cols(), out);
  }
  if (weight.is_sparse()) return tensor::unpack_sparse_row(weight.sparse_view(), r, out);
  const tensor::DenseView view = weight.dense_view();
  unpack_values(view.dtype, view.row(r), view.cols, out);
}

void expand_rows(const Matrix& weight, int64_t begin, int64_t end, float* out) {
  parallel_ranges(end - begin, kExpansionGrain, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) expand_row(weight, begin + r, out + r * weight.cols());
  });
}

void linear(Context& context, const Matrix& weight, ConstMatView x, float beta, MatView y) {
  forward(context, MatrixRows(weight), x, beta, y);
}

void linear_backward(Context& context, const Matrix& weight, ConstMatView dy, float beta, MatView dx) {
  backward(context, MatrixRows(weight), dy, beta, dx);
}

void linear(Context& context, const RowSource& weight, ConstMatView x, float beta, MatView y) {
  forward(context, WrittenRows(weight), x, beta, y);
}

void linear_backward(Context& context, const RowSource& weight, ConstMatView dy, float beta, MatView dx) {
  backward(context, WrittenRows(weight), dy, beta, dx);
}

void weight_gradient(Context& context, ConstMatView dy, ConstMatView x, MatView dw) {
  if (context.compute() == Compute::kF32) return gemm(Trans::kYes, Trans::kNo, 1.0f, dy, x, 0.0f, dw);
  float* memory = context.scratch(Context::kInput, bf16_floats(dy) + bf16_floats(x));
  const uint16_t *left = to_bf16_rows(dy, memory), *right = to_bf16_rows(x, memory + bf16_floats(dy));
  gemm_bf16(Trans::kYes, Trans::kNo, left, right, dw.rows, dw.cols, dy.rows, 0.0f, dw);
}

}  // namespace brick::kernels
