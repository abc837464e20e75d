#include "brick/model/merge.h"

#include <algorithm>

#include "brick/base/error.h"
#include "brick/base/parallel.h"
#include "brick/kernels/linear.h"
#include "brick/kernels/vector_ops.h"
#include "brick/model/lora_branch.h"
#include "brick/model/save_parts.h"
#include "brick/tensor/pack.h"

namespace brick::model {
namespace {

using tensor::DType;
using tensor::Matrix;
using tensor::SparseCoding;

// How the merged weight is held.
struct Encoding {
  bool sparse;
  SparseCoding coding;  // of a sparse one
  DType dtype;
};

Encoding encoding_of(const Matrix& weight, bool masked, const std::string& values) {
  const bool sparse = masked && weight.is_sparse();
  if (values == "f32") return {sparse, SparseCoding::kValues, DType::kF32};
  if (values == "bf16") return {sparse, SparseCoding::kValues, DType::kBF16};
  if (!weight.is_sparse()) return {false, SparseCoding::kValues, weight.dtype()};
  const SparseCoding coding = weight.sparse_view().coding;
  if (coding == SparseCoding::kValues) return {sparse, coding, weight.dtype()};
  if (coding == SparseCoding::kQ4 && sparse) return {true, coding, weight.dtype()};
  return {sparse, SparseCoding::kValues, DType::kBF16};
}

// Rows [begin, end) of W + delta into `out`.
void merged_rows(const Matrix& weight, const Branch& branch, int64_t begin, int64_t end, float* out) {
  parallel_ranges(end - begin, 16, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) effective_row(weight, branch, begin + r, out + r * weight.cols());
  });
}

Matrix merge_weight(const std::string& name, const Matrix& weight, const Branch& branch, const Encoding& encoding) {
  const int64_t rows = weight.rows(), cols = weight.cols(), step = kernels::rows_a_piece(weight);
  if (encoding.sparse) {
    tensor::Tensor merged = tensor::matrix(rows, cols);
    for (int64_t begin = 0; begin < rows; begin += step)
      merged_rows(weight, branch, begin, std::min(begin + step, rows), merged.mat().row(begin));
    check_holds(encoding.dtype, merged.f32(), merged.size(), name);
    return Matrix::sparse(
        tensor::SparseMatrix::encode(merged.mat(), weight.sparse_view().mask, encoding.coding, encoding.dtype));
  }
  tensor::Tensor out(encoding.dtype, {rows, cols});
  tensor::Tensor piece = tensor::matrix(std::min(step, rows), cols);
  const int64_t stride = tensor::row_bytes(encoding.dtype, cols);
  for (int64_t begin = 0; begin < rows; begin += step) {
    const int64_t end = std::min(begin + step, rows);
    merged_rows(weight, branch, begin, end, piece.f32());
    check_holds(encoding.dtype, piece.f32(), (end - begin) * cols, name);
    parallel_ranges(end - begin, 16, [&](int64_t first, int64_t last) {
      tensor::pack(encoding.dtype, piece.mat().row(first), (last - first) * cols,
                   out.bytes().data() + (begin + first) * stride);
    });
  }
  return Matrix::dense(std::move(out));
}

}  // namespace

Model merge(const Model& model, const Adapter& adapter, const std::string& values) {
  if (values != "f32" && values != "bf16" && values != "keep")
    fail(ErrorCode::kInvalidInput, "values '{}': expected f32, bf16 or keep", values);
  check_fits(adapter, model);
  Model merged = model;
  for_each_pair(adapter, [&](int64_t layer, Proj proj, const LoraPair& pair) {
    Matrix& weight = merged.layers[static_cast<size_t>(layer)][proj];
    Branch branch;
    branch.pair = &pair;
    branch.scale = adapter.config.scale();
    branch.masked = adapter.config.masked;
    weight = merge_weight(weight_name(layer, proj), weight, branch, encoding_of(weight, branch.masked, values));
  });
  if (merged.block.is_block()) {  // masks may have gone
    merged.block.values = values;
    merged.block.mask_hash = mask_hash(merged);
  }
  return merged;
}

}  // namespace brick::model
