// What one client hands back after a round of tuning, and the quantities that every rule takes from it
// (method: LEGO's HeteAgg, arXiv 2410.18287, as docs/method reads it).
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "brick/model/adapter.h"
#include "brick/tensor/mask.h"

namespace brick::federate {

class Placement;

struct MatrixShape {
  int64_t rows = 0, cols = 0;
};

// Which weights of the model's matrix a block has. Looks at words owned elsewhere. Rows of a structured block's mask
// are shared: `row_of` [rows] has each one's place among them; null: they stand one after another.
struct PlacedMask {
  const uint64_t* words = nullptr;  // as in tensor::MaskView
  const int32_t* row_of = nullptr;
  int64_t rows = 0, cols = 0;

  PlacedMask(const tensor::MaskView& mask) : words(mask.words), rows(mask.rows), cols(mask.cols) {}
  PlacedMask(std::span<const uint64_t> shared, std::span<const int32_t> places, int64_t width)
      : words(shared.data()), row_of(places.data()), rows(static_cast<int64_t>(places.size())), cols(width) {}

  const uint64_t* row(int64_t r) const {
    return words + (row_of == nullptr ? r : row_of[r]) * tensor::mask_words(cols);
  }
  bool kept(int64_t r, int64_t c) const { return tensor::MaskView{row(r), 1, cols}.kept(0, c); }
  int64_t count_row(int64_t r) const { return tensor::MaskView{row(r), 1, cols}.count(); }
  int64_t count() const;
  bool same_words(const PlacedMask& other) const { return words == other.words && row_of == other.row_of; }
  bool operator==(const PlacedMask& other) const;  // keep the same weights
};

// The masks of one layer's matrices, by Proj; none where the block has all of the matrix.
using LayerMasks = std::array<std::optional<PlacedMask>, model::kProjCount>;

// Looks at adapters and masks owned by the caller, who keeps them alive for the whole call.
struct ClientUpdate {
  std::string name;
  // After training: in memory, or in its file, of which the rules read one matrix at a time.
  const model::Adapter* adapter = nullptr;
  const model::AdapterFile* file = nullptr;
  // What this client was sent: the truncation of the global adapter to its rank (redistribute.h), of which a structured
  // block has its part. Null: it started from the global adapter itself, or from nothing where there is none.
  const model::Adapter* sent = nullptr;
  const Placement* placement = nullptr;  // of a structured block; null: its matrices have the model's shapes
  std::span<const LayerMasks> masks;     // of its block, a layer of the model an entry; empty for a dense client
  std::string mask_hash;                 // model::mask_hash of its block; empty for a dense client
  std::string base_fingerprint;          // model::fingerprint of the model it tuned; empty where unknown
  double records = 0;                    // n_k, trained records; any positive measure of weight will do

  bool returned() const { return adapter != nullptr || file != nullptr; }
  const model::LoraConfig& config() const { return file != nullptr ? file->config() : adapter->config; }
  // What it started from where `global` is the global adapter, or null.
  const model::Adapter* start(const model::Adapter* global) const { return sent != nullptr ? sent : global; }

  // As it was returned: a structured block's own layers and shapes.
  int64_t own_layers() const;
  // Type and shape of A or B, without its bytes; an empty shape where the matrix is no target.
  tensor::TensorView own_outline(int64_t layer, model::Proj proj, bool is_b) const;
  model::LoraPair own_pair(int64_t layer, model::Proj proj) const;  // a copy

  // In the model's coordinates, as the rules see it (placement.h). For updates whose shapes have been checked.
  int64_t layers() const;
  std::optional<MatrixShape> target(int64_t layer, model::Proj proj) const;  // of the weight; none: no target
  std::optional<PlacedMask> mask(int64_t layer, model::Proj proj) const;     // none: the block has all of it
  model::LoraPair pair(int64_t layer, model::Proj proj) const;               // a copy
  // What this client was sent of `whole`, the model's: itself, or the block's part of it, then held in `part`.
  const model::LoraPair& sent_of(const model::LoraPair& whole, int64_t layer, model::Proj proj,
                                 model::LoraPair& part) const;
};

// Calls visit(layer, proj, rows, cols) on the model's matrices that an update targets, in a fixed order.
template <class Visit>
void for_each_target(const ClientUpdate& update, Visit&& visit) {
  for (int64_t layer = 0; layer < update.layers(); ++layer)
    for (model::Proj proj : model::kProjs)
      if (const std::optional<MatrixShape> shape = update.target(layer, proj))
        visit(layer, proj, shape->rows, shape->cols);
}

// The masks of a block's sparse matrices; views, valid as long as the matrices' bytes.
std::vector<LayerMasks> masks_of(const model::Model& block);

// w_k = n_k / sum n, in the order of `updates`.
std::vector<double> client_weights(std::span<const ClientUpdate> updates);

// "model.layers.3.self_attn.q_proj", the path in messages.
std::string matrix_path(int64_t layer, model::Proj proj);

}  // namespace brick::federate
