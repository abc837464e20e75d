#include "brick/federate/placement.h"

#include <algorithm>

#include "brick/base/error.h"
#include "brick/model/weight_shape.h"

namespace brick::federate {
namespace {

using model::LoraPair;
using model::Proj;

constexpr int32_t kLacking = -1;

// The place of each of the parent's among the kept; none: all are.
std::vector<int32_t> places(const std::optional<std::vector<int32_t>>& kept, int64_t count) {
  std::vector<int32_t> out(static_cast<size_t>(count), kLacking);
  for (int64_t i = 0; i < (kept ? static_cast<int64_t>(kept->size()) : count); ++i)
    out[static_cast<size_t>(kept ? (*kept)[static_cast<size_t>(i)] : i)] = static_cast<int32_t>(i);
  return out;
}

void check_parent(const model::Cut& cut, const model::Model& parent, const std::string& source) {
  if (parent.block.cut)
    fail(ErrorCode::kUnsupported,
         "{}: a block of another cut than the federation's model, which is a structured block itself", source);
  if (cut.parent_layers != static_cast<int64_t>(parent.layers.size()))
    fail(ErrorCode::kMismatch, "{}: cut from a model of {} layers, but the federation's has {}", source,
         cut.parent_layers, parent.layers.size());
  for (const model::LayerCut& layer : cut.layers)
    if (const model::LayerShape& own = parent.layers[static_cast<size_t>(layer.layer)].shape; layer.parent != own)
      fail(ErrorCode::kMismatch,
           "{}: cut from a model whose layer {} has {} heads, {} key/value heads and feed-forward size {}, but the "
           "federation's has {}, {} and {}",
           source, layer.layer, layer.parent.heads, layer.parent.kv_heads, layer.parent.ffn, own.heads, own.kv_heads,
           own.ffn);
}

}  // namespace

Placement::Placement(const model::Model& block, const model::Model& parent) : mask_hash_(model::mask_hash(block)) {
  const std::string hash = model::cut_hash(block);
  const bool alike = hash == model::cut_hash(parent);
  const bool narrowed = !alike && block.block.cut && block.block.cut->stream;
  if (const int64_t hidden = narrowed ? block.block.cut->stream->parent : block.config.hidden;
      hidden != parent.config.hidden)
    fail(ErrorCode::kMismatch, "{}: {} wide, the federation's model {}: it is another model's, or {}", block.source,
         hidden, parent.config.hidden, kOtherStream);
  if (alike) {
    if (!mask_hash_.empty()) masks_ = masks_of(block);
    return;
  }
  if (!block.block.cut)
    fail(ErrorCode::kMismatch, "{}: a whole model's block, but the federation's model is a structured block",
         block.source);
  const model::Cut& cut = *block.block.cut;
  check_parent(cut, parent, block.source);
  cut_hash_ = hash;
  layers_.resize(parent.layers.size());
  masks_.resize(parent.layers.size());
  for (size_t own = 0; own < cut.layers.size(); ++own) {
    parents_.push_back(cut.layers[own].layer);
    layers_[static_cast<size_t>(cut.layers[own].layer)].own = static_cast<int64_t>(own);
  }
  static const std::vector<int32_t> kNothing;
  for (size_t l = 0; l < layers_.size(); ++l)
    for (Proj proj : model::kProjs) {
      const std::optional<int64_t> own = layers_[l].own;
      Matrix& matrix = layers_[l].matrices[static_cast<size_t>(proj)];
      const auto [rows, cols] = model::weight_shape(parent.layers[l].shape, parent.config.hidden, proj);
      if (own) {
        const model::LayerCut& kept = cut.layers[static_cast<size_t>(*own)];
        const tensor::Matrix& weight = block.layers[static_cast<size_t>(*own)][proj];
        matrix.rows = places(model::kept_rows(cut, kept, proj), rows);
        matrix.cols = places(model::kept_cols(cut, kept, proj), cols);
        matrix.own = {weight.rows(), weight.cols()};
        place_mask(&weight, matrix);
      } else {
        matrix.rows = places(kNothing, rows);
        matrix.cols = places(kNothing, cols);
        place_mask(nullptr, matrix);
      }
      if (!matrix.row_of.empty()) masks_[l][static_cast<size_t>(proj)] = PlacedMask(matrix.words, matrix.row_of, cols);
    }
}

// Rows of words: first one of zeros, for rows that the block lacks, then one for all the others, or, where the block's
// matrix is sparse, one for each.
void Placement::place_mask(const tensor::Matrix* own, Matrix& matrix) {
  const auto rows = static_cast<int64_t>(matrix.rows.size()), cols = static_cast<int64_t>(matrix.cols.size());
  const bool sparse = own != nullptr && own->is_sparse();
  if (!sparse && matrix.own.rows == rows && matrix.own.cols == cols) return;
  tensor::Mask mask(1 + (own == nullptr ? 0 : sparse ? matrix.own.rows : 1), cols);
  for (int64_t r = 1; r < mask.rows(); ++r)
    for (int64_t c = 0; c < cols; ++c)
      if (const int32_t from = matrix.cols[static_cast<size_t>(c)]; from != kLacking)
        mask.set(r, c, !sparse || own->sparse_view().mask.kept(r - 1, from));
  matrix.words.assign(mask.words().begin(), mask.words().end());
  for (const int32_t place : matrix.rows) matrix.row_of.push_back(place == kLacking ? 0 : sparse ? 1 + place : 1);
}

void Placement::describe(ClientUpdate& update) const {
  update.placement = structured() ? this : nullptr;
  update.masks = masks_;
  update.mask_hash = mask_hash_;
}

MatrixShape Placement::shape(int64_t layer, Proj proj) const {
  const Matrix& matrix = at(layer, proj);
  return {static_cast<int64_t>(matrix.rows.size()), static_cast<int64_t>(matrix.cols.size())};
}

MatrixShape Placement::own_shape(int64_t layer, Proj proj) const { return at(layer, proj).own; }

bool Placement::has_row(int64_t layer, Proj proj, int64_t row) const {
  return at(layer, proj).rows[static_cast<size_t>(row)] != kLacking;
}

bool Placement::has_col(int64_t layer, Proj proj, int64_t col) const {
  return at(layer, proj).cols[static_cast<size_t>(col)] != kLacking;
}

LoraPair Placement::placed(const ClientUpdate& update, int64_t layer, Proj proj) const {
  const Matrix& matrix = at(layer, proj);
  const auto rows = static_cast<int64_t>(matrix.rows.size()), cols = static_cast<int64_t>(matrix.cols.size());
  const int64_t rank = update.config().rank;
  const std::optional<int64_t> own_layer = layers_[static_cast<size_t>(layer)].own;
  if (!own_layer) return {tensor::matrix(rank, cols), tensor::matrix(rows, rank)};
  LoraPair own = update.own_pair(*own_layer, proj);
  LoraPair out;
  if (matrix.own.cols == cols) {
    out.a = std::move(own.a);
  } else {
    out.a = tensor::matrix(rank, cols);
    for (int64_t i = 0; i < rank; ++i)
      for (int64_t c = 0; c < cols; ++c)
        if (const int32_t from = matrix.cols[static_cast<size_t>(c)]; from != kLacking)
          out.a.mat()(i, c) = own.a.mat()(i, from);
  }
  if (matrix.own.rows == rows) {
    out.b = std::move(own.b);
  } else {
    out.b = tensor::matrix(rows, rank);
    for (int64_t r = 0; r < rows; ++r)
      if (const int32_t from = matrix.rows[static_cast<size_t>(r)]; from != kLacking)
        std::copy_n(own.b.mat().row(from), rank, out.b.mat().row(r));
  }
  return out;
}

LoraPair Placement::part(const LoraPair& whole, int64_t layer, Proj proj) const {
  const Matrix& matrix = at(layer, proj);
  LoraPair out{whole.a.clone(), whole.b.clone()};
  const tensor::MatView a = out.a.mat(), b = out.b.mat();
  for (int64_t c = 0; c < a.cols; ++c)
    if (matrix.cols[static_cast<size_t>(c)] == kLacking)
      for (int64_t i = 0; i < a.rows; ++i) a(i, c) = 0.0f;
  for (int64_t r = 0; r < b.rows; ++r)
    if (matrix.rows[static_cast<size_t>(r)] == kLacking) std::fill_n(b.row(r), b.cols, 0.0f);
  return out;
}

}  // namespace brick::federate
