// The weight of a linear layer, [out, in], as it is held in memory: dense in any format or bitmask-sparse.
#pragma once

#include <memory>
#include <optional>
#include <variant>

#include "brick/tensor/sparse.h"
#include "brick/tensor/tensor.h"

namespace brick::tensor {

// A dense encoded matrix whose bytes live elsewhere.
struct DenseView {
  DType dtype = DType::kF32;
  int64_t rows = 0, cols = 0;
  const std::byte* data = nullptr;

  int64_t stride_bytes() const { return row_bytes(dtype, cols); }
  const std::byte* row(int64_t r) const { return data + r * stride_bytes(); }
};

// Immutable and cheap to copy: copies share the bytes, which `keep` keeps alive.
class Matrix {
 public:
  Matrix() = default;
  // Two dimensions, a float or block format; Error(kCorrupt) otherwise.
  static Matrix dense(const TensorView& view, std::shared_ptr<const void> keep);
  static Matrix dense(Tensor tensor);
  static Matrix sparse(SparseMatrix matrix);

  int64_t rows() const;
  int64_t cols() const;
  bool empty() const { return std::holds_alternative<std::monostate>(held_); }
  bool is_sparse() const { return std::holds_alternative<std::shared_ptr<const SparseMatrix>>(held_); }

  DenseView dense_view() const;    // dense only; as long as this Matrix or a copy
  SparseView sparse_view() const;  // sparse only; likewise
  const SparseMatrix& sparse_matrix() const;
  TensorView tensor_view() const;  // dense only

  DType dtype() const;       // of the stored values
  int64_t nonzeros() const;  // kept weights of a sparse matrix, all of a dense one
  int64_t bytes() const;
  void unpack_rows(int64_t begin, int64_t end, float* out, int64_t stride) const;  // scalar reference
  Tensor to_f32() const;

 private:
  struct Dense {
    DenseView view;
    std::shared_ptr<const void> keep;
  };
  std::variant<std::monostate, Dense, std::shared_ptr<const SparseMatrix>> held_;
};

}  // namespace brick::tensor
