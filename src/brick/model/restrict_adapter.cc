#include "brick/model/restrict_adapter.h"

#include <algorithm>

#include "brick/base/error.h"
#include "brick/model/weight_shape.h"

namespace brick::model {
namespace {

using tensor::Tensor;
using Kept = std::optional<std::vector<int32_t>>;

std::string shape_text(const Tensor& factor) { return fmt::format("[{}]", fmt::join(factor.shape(), ", ")); }

Tensor kept_rows_of(const Tensor& from, const Kept& rows) {
  if (!rows) return from.clone();
  Tensor out = tensor::matrix(static_cast<int64_t>(rows->size()), from.shape()[1]);
  for (int64_t r = 0; r < out.shape()[0]; ++r)
    std::copy_n(from.mat().row((*rows)[static_cast<size_t>(r)]), out.shape()[1], out.mat().row(r));
  return out;
}

Tensor kept_cols_of(const Tensor& from, const Kept& cols) {
  if (!cols) return from.clone();
  Tensor out = tensor::matrix(from.shape()[0], static_cast<int64_t>(cols->size()));
  for (int64_t r = 0; r < out.shape()[0]; ++r) {
    const float* row = from.mat().row(r);
    std::transform(cols->begin(), cols->end(), out.mat().row(r), [row](int32_t c) { return row[c]; });
  }
  return out;
}

}  // namespace

Adapter restricted(const Adapter& whole, const Model& block) {
  const std::string hash = cut_hash(block);
  if (whole.config.cut_hash == hash) return whole.clone();
  if (!block.block.cut || !whole.config.cut_hash.empty())
    fail(ErrorCode::kMismatch,
         "the adapter belongs to the structured block with cut {:.12}, but this model's is {:.12}",
         whole.config.cut_hash, hash.empty() ? "none" : hash);
  const Cut& cut = *block.block.cut;
  if (static_cast<int64_t>(whole.layers.size()) != cut.parent_layers)
    fail(ErrorCode::kMismatch, "the adapter has {} layers, but the structured block's parent has {}",
         whole.layers.size(), cut.parent_layers);
  Adapter out;
  out.config = whole.config;
  out.config.cut_hash = hash;
  out.layers.resize(cut.layers.size());
  for (size_t i = 0; i < cut.layers.size(); ++i) {
    const LayerCut& kept = cut.layers[i];
    for (Proj proj : kProjs) {
      const LoraPair& pair = whole.at(kept.layer, proj);
      if (!pair.present()) continue;
      const auto [rows, cols] = weight_shape(kept.parent, cut.stream ? cut.stream->parent : block.config.hidden, proj);
      const int64_t rank = whole.config.rank;
      if (pair.a.shape() != tensor::Shape{rank, cols} || pair.b.shape() != tensor::Shape{rows, rank})
        fail(ErrorCode::kMismatch,
             "{} of the structured block's parent is {} x {}, which an adapter of rank {} with A {} and B {} does not "
             "fit",
             weight_name(kept.layer, proj), rows, cols, rank, shape_text(pair.a), shape_text(pair.b));
      out.at(static_cast<int64_t>(i), proj) = {kept_cols_of(pair.a, kept_cols(cut, kept, proj)),
                                               kept_rows_of(pair.b, kept_rows(cut, kept, proj))};
    }
  }
  return out;
}

}  // namespace brick::model
