#include "brick/kernels/few_rows.h"

#include "brick/base/parallel.h"
#include "brick/kernels/row_dot.h"
#include "brick/kernels/sparse_row.h"
#include "brick/kernels/vector_ops.h"

namespace brick::kernels {
namespace {

using tensor::ConstMatView;
using tensor::DType;
using tensor::Matrix;
using tensor::MatView;

constexpr int64_t kRowGrain = 8;

// The kept values of row r as bfloat16, in `memory` of two rows and two kPackedSlack.
const uint16_t* rounded_packed(const tensor::SparseView& view, int64_t r, float* memory) {
  auto* out = reinterpret_cast<uint16_t*>(memory + view.cols() + kPackedSlack);
  const int64_t count = packed_count(view, r);
  if (view.dtype == DType::kQ4_1) {
    unpack_q4_1_bf16(view.values + view.row_offset[r], count / tensor::kQuantBlock, out);
  } else {
    unpack_packed(view, r, memory);
    to_bf16(memory, out, count);
  }
  return out;
}

// The kept values of row r where they lie, if they are of type T with enough behind them for sparse_dot(); else null.
template <class T>
const T* packed_in_place(const tensor::SparseView& view, DType dtype, int64_t r) {
  if (view.dtype != dtype || view.row_offset[view.rows()] - view.row_offset[r + 1] < kPackedSlack * sizeof(T))
    return nullptr;
  return reinterpret_cast<const T*>(view.values + view.row_offset[r]);
}

// A row of activations.
struct Input {
  const float* values;
  const float* block_sums;  // of 32 values each
  const uint16_t* bf16;     // the values rounded; null in float32
};

class MatrixRows {
 public:
  explicit MatrixRows(const Matrix& weight) : weight_(weight) {}
  int64_t rows() const { return weight_.rows(); }
  int64_t cols() const { return weight_.cols(); }

  // Calls use(dot), dot(x) being row r's product with x in the form that suits the encoding; `memory` is of
  // 2 (cols + kPackedSlack) floats. With `bf16` both may be rounded to bfloat16.
  template <class Use>
  void with_row(int64_t r, float* memory, bool bf16, Use&& use) const {
    const int64_t n = cols();
    if (weight_.is_sparse() && is_packed(weight_.sparse_view())) return with_packed_row(r, memory, bf16, use);
    if (weight_.is_sparse()) {
      expand_row(weight_, r, memory);
      return use([=](const Input& x) { return dot(memory, x.values, n); });
    }
    const tensor::DenseView view = weight_.dense_view();
    if (view.dtype == DType::kF32) {
      use([=, row = reinterpret_cast<const float*>(view.row(r))](const Input& x) { return dot(row, x.values, n); });
    } else if (has_encoded_dot(view.dtype)) {
      use([=, row = view.row(r)](const Input& x) { return dot_encoded(view.dtype, row, x.values, x.block_sums, n); });
    } else {
      expand_row(weight_, r, memory);
      use([=](const Input& x) { return dot(memory, x.values, n); });
    }
  }

 private:
  template <class Use>
  void with_packed_row(int64_t r, float* memory, bool bf16, Use&& use) const {
    const tensor::SparseView view = weight_.sparse_view();
    const uint64_t* mask = view.mask.row(r);
    const int64_t n = cols();
    const auto* halves = packed_in_place<uint16_t>(view, DType::kBF16, r);
    if (bf16 && has_sparse_dot_bf16()) {
      if (halves == nullptr) halves = rounded_packed(view, r, memory);
      return use([=](const Input& x) { return sparse_dot(mask, halves, x.bf16, n); });
    }
    if (halves != nullptr) return use([=](const Input& x) { return sparse_dot(mask, halves, x.values, n); });
    const auto* values = packed_in_place<float>(view, DType::kF32, r);
    if (values == nullptr) {
      unpack_packed(view, r, memory);
      values = memory;
    }
    use([=](const Input& x) { return sparse_dot(mask, values, x.values, n); });
  }

  const Matrix& weight_;
};

class WrittenRows {
 public:
  explicit WrittenRows(const RowSource& source) : source_(source) {}
  int64_t rows() const { return source_.rows; }
  int64_t cols() const { return source_.cols; }
  template <class Use>
  void with_row(int64_t r, float* memory, bool, Use&& use) const {
    source_.write(r, memory);
    use([&](const Input& x) { return dot(memory, x.values, cols()); });
  }

 private:
  const RowSource& source_;
};

template <class Rows>
void multiply(Context& context, const Rows& weight, ConstMatView x, float beta, MatView y) {
  const int64_t cols = weight.cols(), blocks = cols / tensor::kQuantBlock, row_floats = 2 * (cols + kPackedSlack);
  float* sums = context.scratch(Context::kWeights, threads() * row_floats + x.rows * blocks);
  float* memory = sums + x.rows * blocks;
  const bool bf16 = context.compute() == Compute::kBf16;
  auto* halves =
      bf16 ? reinterpret_cast<uint16_t*>(context.scratch(Context::kInput, (x.rows * cols + 1) / 2)) : nullptr;
  for (int64_t t = 0; t < x.rows; ++t) {
    block_sums(x.row(t), blocks * tensor::kQuantBlock, sums + t * blocks);
    if (bf16) to_bf16(x.row(t), halves + t * cols, cols);
  }
  parallel_ranges(weight.rows(), kRowGrain, [&](int64_t begin, int64_t end) {
    float* own = memory + omp_get_thread_num() * row_floats;
    for (int64_t r = begin; r < end; ++r)
      weight.with_row(r, own, bf16, [&](auto&& dot_with) {
        for (int64_t t = 0; t < x.rows; ++t)
          y(t, r) = dot_with({x.row(t), sums + t * blocks, bf16 ? halves + t * cols : nullptr}) +
                    (beta != 0.0f ? y(t, r) : 0.0f);
      });
  });
}

}  // namespace

void linear_few_rows(Context& context, const Matrix& weight, ConstMatView x, float beta, MatView y) {
  multiply(context, MatrixRows(weight), x, beta, y);
}

void linear_few_rows(Context& context, const RowSource& weight, ConstMatView x, float beta, MatView y) {
  multiply(context, WrittenRows(weight), x, beta, y);
}

}  // namespace brick::kernels
