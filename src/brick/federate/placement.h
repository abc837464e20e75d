// A client's block in the coordinates of the federation's model, its parent (docs/federation.md): which of the parent's
// weights it has, and where its adapter's factors lie there. A structured block's adapter counts as the parent's whose
// rows of B and columns of A are zero where the block lacks them; of a layer that it lacks, both factors are zero.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "brick/federate/update.h"

namespace brick::federate {

// Why a block of SliceGPT, or a narrowed one that does not say which channels it kept, has no placement in its parent;
// for messages.
inline constexpr std::string_view kOtherStream =
    "its residual stream is rotated, or narrowed to unknown channels: its adapters have no place in the model's "
    "coordinates";

class Placement {
 public:
  // Error(kMismatch) where the block's residual stream is neither the parent's nor channels of it, or, naming the
  // layer, where the block was cut from a model of other widths than the parent's. Looks at the masks of a block that
  // nothing was cut out of, and copies a structured one's.
  Placement(const model::Model& block, const model::Model& parent);
  // Updates and masks look at it.
  Placement(const Placement&) = delete;
  Placement& operator=(const Placement&) = delete;

  // Sets what `update` says of its block.
  void describe(ClientUpdate& update) const;
  bool structured() const { return !cut_hash_.empty(); }

  // The rest is for structured blocks. Layers, rows and columns are the parent's, but for those called own.
  const std::string& cut_hash() const { return cut_hash_; }
  int64_t layers() const { return static_cast<int64_t>(layers_.size()); }
  int64_t own_layers() const { return static_cast<int64_t>(parents_.size()); }
  int64_t parent_layer(int64_t own) const { return parents_[static_cast<size_t>(own)]; }
  MatrixShape shape(int64_t layer, model::Proj proj) const;
  MatrixShape own_shape(int64_t layer, model::Proj proj) const;  // zeros where the block lacks the layer
  bool has_row(int64_t layer, model::Proj proj, int64_t row) const;
  bool has_col(int64_t layer, model::Proj proj, int64_t col) const;

  // The factors that the update's client returned.
  model::LoraPair placed(const ClientUpdate& update, int64_t layer, model::Proj proj) const;
  // The parent's factors without what the block lacks: what its client is sent of them (model/restrict_adapter.h),
  // placed.
  model::LoraPair part(const model::LoraPair& whole, int64_t layer, model::Proj proj) const;

 private:
  struct Matrix {
    std::vector<int32_t> rows, cols;  // the place of each in the block, or kLacking
    MatrixShape own;
    std::vector<uint64_t> words;  // of PlacedMask; empty where the block has all of the matrix
    std::vector<int32_t> row_of;
  };
  struct Layer {
    std::optional<int64_t> own;
    std::array<Matrix, model::kProjCount> matrices;
  };

  const Matrix& at(int64_t layer, model::Proj proj) const {
    return layers_[static_cast<size_t>(layer)].matrices[static_cast<size_t>(proj)];
  }
  static void place_mask(const tensor::Matrix* own, Matrix& matrix);

  std::string mask_hash_, cut_hash_;
  std::vector<LayerMasks> masks_;  // empty where the block has everything
  std::vector<Layer> layers_;      // of the parent; empty where nothing was cut out
  std::vector<int64_t> parents_;   // of the block's layers
};

}  // namespace brick::federate
