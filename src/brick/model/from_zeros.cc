#include "brick/model/from_zeros.h"

#include <bit>
#include <set>

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

// So many of every group of consecutive inputs of a row are kept.
struct Pattern {
  const char* name;
  int64_t kept, group;
};
constexpr Pattern kPatterns[] = {{"2:4", 2, 4}, {"4:8", 4, 8}};

int64_t kept_in_group(tensor::MaskView mask, int64_t r, int64_t c, int64_t group) {
  return std::popcount(mask.row(r)[c / 64] >> (c % 64) & ((uint64_t{1} << group) - 1));
}

// Whether no group has more weights that aren't zero, and few have less.
bool obeys(tensor::MaskView mask, const Pattern& pattern) {
  if (mask.cols % pattern.group != 0) return false;
  int64_t missing = 0;
  for (int64_t r = 0; r < mask.rows; ++r)
    for (int64_t c = 0; c < mask.cols; c += pattern.group) {
      const int64_t kept = kept_in_group(mask, r, c, pattern.group);
      if (kept > pattern.kept) return false;
      missing += pattern.kept - kept;
    }
  return static_cast<double>(missing) <= kLeastZeros * static_cast<double>(mask.rows * mask.cols);
}

void complete(tensor::Mask& mask, const Pattern& pattern) {
  for (int64_t r = 0; r < mask.rows(); ++r)
    for (int64_t begin = 0; begin < mask.cols(); begin += pattern.group) {
      int64_t missing = pattern.kept - kept_in_group(mask.view(), r, begin, pattern.group);
      for (int64_t c = begin; missing > 0; ++c) {
        if (mask.kept(r, c)) continue;
        mask.set(r, c, true);
        --missing;
      }
    }
}

// The mask's pattern by its name. It then keeps zeros where a group has fewer weights than that says.
const char* find_pattern(tensor::Mask& mask) {
  for (const Pattern& pattern : kPatterns)
    if (obeys(mask.view(), pattern)) {
      complete(mask, pattern);
      return pattern.name;
    }
  return "unstructured";
}

}  // namespace

Model block_from_zeros(const Model& model, tensor::DType dtype) {
  if (!tensor::is_float(dtype))
    fail(ErrorCode::kInvalidInput, "a block's values in {}: expected f32, f16 or bf16", name(dtype));
  if (model.block.is_block())
    fail(ErrorCode::kInvalidInput, "{} is a block already (method {})", model.source, model.block.method);
  Model block = model;
  int64_t zeros = 0;
  std::set<std::string> patterns;
  for (size_t i = 0; i < block.layers.size(); ++i)
    for (Proj proj : kProjs) {
      Matrix& weight = block.layers[i][proj];
      const tensor::Tensor dense = dense_values(weight);
      tensor::Mask mask = mask_of(dense);
      const int64_t count = weight.rows() * weight.cols();
      if (static_cast<double>(count - mask.view().count()) < kLeastZeros * static_cast<double>(count)) continue;
      check_holds(dtype, dense.f32(), count, weight_name(static_cast<int64_t>(i), proj));
      patterns.insert(find_pattern(mask));
      zeros += count - mask.view().count();
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
  block.block.pattern = patterns.size() == 1 ? *patterns.begin() : "unstructured";
  block.block.sparsity = share;
  block.block.values = name(dtype);
  block.block.parent = fingerprint(model);
  block.block.mask_hash = mask_hash(block);
  return block;
}

}  // namespace brick::model
