#include "brick/prune/stored_values.h"

#include "brick/base/error.h"

namespace brick::prune {

using tensor::DType;
using tensor::SparseCoding;

Storage choose_storage(const std::string& values, const tensor::Matrix& parent, bool keeps_values,
                       const std::string& name) {
  if (values == "f32") return {SparseCoding::kValues, DType::kF32};
  if (values == "bf16") return {SparseCoding::kValues, DType::kBF16};
  if (values == "q4") return {SparseCoding::kQ4, DType::kQ4_1};
  if (values != "keep") fail(ErrorCode::kInvalidInput, "values '{}': expected f32, bf16, q4 or keep", values);
  const DType dtype = parent.dtype();
  if (tensor::is_float(dtype)) return {SparseCoding::kValues, dtype};
  if (!keeps_values)
    fail(ErrorCode::kUnsupported,
         "{}: this method changes the weights that it keeps, so {} integers cannot be kept; use --values "
         "bf16, f32 or q4",
         name, tensor::name(dtype));
  if (!tensor::can_keep_parent(dtype))
    fail(ErrorCode::kUnsupported, "{}: integers of {} cannot be kept; use --values bf16, f32 or q4", name,
         tensor::name(dtype));
  if (parent.is_sparse())
    fail(ErrorCode::kUnsupported,
         "{}: it was pruned before and its packed {} values cannot be cut again; use --values bf16, f32 or q4", name,
         tensor::name(dtype));
  return {SparseCoding::kParent, dtype};
}

DType dense_dtype(const std::string& values, const tensor::Matrix& parent, int64_t cols, const std::string& name) {
  const DType dtype = choose_storage(values, parent, false, name).dtype;
  if (tensor::is_quantised(dtype) && cols % tensor::kQuantBlock != 0)
    fail(ErrorCode::kUnsupported, "{}: rows of {} weights are no blocks of {}; use --values bf16 or f32", name, cols,
         tensor::kQuantBlock);
  return dtype;
}

void check_width(const model::Model& parent, int64_t width, const std::string& values) {
  dense_dtype(values, parent.embedding, width, "model.embed_tokens.weight");
  if (parent.own_head) dense_dtype(values, *parent.own_head, width, "lm_head.weight");
  for (size_t i = 0; i < parent.layers.size(); ++i)
    for (const model::Proj proj : model::kProjs) {
      const tensor::Matrix& weight = parent.layers[i][proj];
      dense_dtype(values, weight, model::writes_stream(proj) ? weight.cols() : width,
                  model::weight_name(static_cast<int64_t>(i), proj));
    }
}

tensor::Matrix store_pruned(const Storage& storage, const tensor::Matrix& parent, tensor::ConstMatView dense,
                            tensor::MaskView mask) {
  if (storage.coding != SparseCoding::kParent)
    return tensor::Matrix::sparse(tensor::SparseMatrix::encode(dense, mask, storage.coding, storage.dtype));
  const tensor::TensorView encoded = parent.tensor_view();
  return tensor::Matrix::sparse(tensor::SparseMatrix::encode(dense, mask, storage.coding, storage.dtype, &encoded));
}

}  // namespace brick::prune
