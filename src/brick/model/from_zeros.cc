#include "brick/model/from_zeros.h"

#include <algorithm>
#include <atomic>

#include "brick/base/error.h"
#include "brick/base/parallel.h"
#include "brick/kernels/linear.h"
#include "brick/model/save_parts.h"

namespace brick::model {
namespace {

using tensor::Matrix;

tensor::Tensor dense_values(const Matrix& weight) {
  tensor::Tensor dense = tensor::matrix(weight.rows(), weight.cols());
  kernels::expand_rows(weight, 0, weight.rows(), dense.f32());
  return dense;
}

tensor::Mask mask_of(const tensor::Tensor& dense) {
  const tensor::ConstMatView values = dense.mat();
  tensor::Mask mask(values.rows, values.cols);
  parallel_ranges(values.rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      for (int64_t c = 0; c < values.cols; ++c) mask.set(r, c, values(r, c) != 0.0f);
  });
  return mask;
}

}  // namespace

Model block_from_zeros(const Model& model, tensor::DType dtype) {
  if (!tensor::is_float(dtype))
    fail(ErrorCode::kInvalidInput, "a block's values in {}: expected f32, f16 or bf16", name(dtype));
  if (model.block.is_block())
    fail(ErrorCode::kInvalidInput, "{} is a block already (method {})", model.source, model.block.method);
  Model block = model;
  int64_t zeros = 0;
  for (size_t i = 0; i < block.layers.size(); ++i)
    for (Proj proj : kProjs) {
      Matrix& weight = block.layers[i][proj];
      const tensor::Tensor dense = dense_values(weight);
      const tensor::Mask mask = mask_of(dense);
      const int64_t count = weight.rows() * weight.cols(), removed = count - mask.view().count();
      if (static_cast<double>(removed) < kLeastZeros * static_cast<double>(count)) continue;
      check_holds(dtype, dense.f32(), count, weight_name(static_cast<int64_t>(i), proj));
      zeros += removed;
      weight =
          Matrix::sparse(tensor::SparseMatrix::encode(dense.mat(), mask.view(), tensor::SparseCoding::kValues, dtype));
    }
  const double share = static_cast<double>(zeros) / static_cast<double>(model.linear_parameters());
  if (share < kLeastZeros)
    fail(ErrorCode::kInvalidInput,
         "{}: {:.1f} % of the layers' linear weights are zero; a pruned model has {:.0f} % or more (brick prune makes "
         "one)",
         model.source, 100 * share, 100 * kLeastZeros);
  block.block.method = "zeros";
  block.block.pattern = "unstructured";
  block.block.sparsity = share;
  block.block.values = name(dtype);
  block.block.parent = fingerprint(model);
  block.block.mask_hash = mask_hash(block);
  return block;
}

}  // namespace brick::model
