#include "brick/tensor/matrix.h"

#include "brick/base/error.h"
#include "brick/tensor/pack.h"

namespace brick::tensor {

Matrix Matrix::dense(const TensorView& view, std::shared_ptr<const void> keep) {
  if (view.shape.size() != 2) fail(ErrorCode::kCorrupt, "a matrix has two dimensions, found {}", view.shape.size());
  if (!is_float(view.dtype) && !is_quantised(view.dtype))
    fail(ErrorCode::kUnsupported, "a matrix of {} is not supported", name(view.dtype));
  if (static_cast<int64_t>(view.bytes.size()) != byte_count(view.dtype, view.shape))
    fail(ErrorCode::kCorrupt, "a matrix of {} bytes, expected {}", view.bytes.size(),
         byte_count(view.dtype, view.shape));
  Matrix out;
  out.held_ = Dense{{view.dtype, view.shape[0], view.shape[1], view.bytes.data()}, std::move(keep)};
  return out;
}

Matrix Matrix::dense(Tensor tensor) {
  auto keep = std::make_shared<const Tensor>(std::move(tensor));
  return dense(keep->view(), keep);
}

Matrix Matrix::sparse(SparseMatrix matrix) {
  Matrix out;
  out.held_ = std::make_shared<const SparseMatrix>(std::move(matrix));
  return out;
}

int64_t Matrix::rows() const {
  if (const auto* d = std::get_if<Dense>(&held_)) return d->view.rows;
  return is_sparse() ? sparse_view().rows() : 0;
}
int64_t Matrix::cols() const {
  if (const auto* d = std::get_if<Dense>(&held_)) return d->view.cols;
  return is_sparse() ? sparse_view().cols() : 0;
}

DenseView Matrix::dense_view() const { return std::get<Dense>(held_).view; }
const SparseMatrix& Matrix::sparse_matrix() const { return *std::get<std::shared_ptr<const SparseMatrix>>(held_); }
SparseView Matrix::sparse_view() const { return sparse_matrix().view(); }

TensorView Matrix::tensor_view() const {
  const DenseView view = dense_view();
  return {view.dtype, {view.rows, view.cols}, {view.data, static_cast<size_t>(view.rows * view.stride_bytes())}};
}

DType Matrix::dtype() const { return is_sparse() ? sparse_view().dtype : dense_view().dtype; }
int64_t Matrix::nonzeros() const { return is_sparse() ? sparse_matrix().nonzeros() : rows() * cols(); }
int64_t Matrix::bytes() const {
  if (empty()) return 0;
  return is_sparse() ? sparse_matrix().bytes() : rows() * dense_view().stride_bytes();
}

void Matrix::unpack_rows(int64_t begin, int64_t end, float* out, int64_t stride) const {
  if (is_sparse()) {
    const SparseView view = sparse_view();
    for (int64_t r = begin; r < end; ++r) unpack_sparse_row(view, r, out + (r - begin) * stride);
    return;
  }
  const DenseView view = dense_view();
  for (int64_t r = begin; r < end; ++r) unpack(view.dtype, view.row(r), view.cols, out + (r - begin) * stride);
}

Tensor Matrix::to_f32() const {
  Tensor out = matrix(rows(), cols());
  unpack_rows(0, rows(), out.f32(), cols());
  return out;
}

}  // namespace brick::tensor
