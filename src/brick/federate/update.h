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

// The masks of one layer's matrices, by Proj; none where the matrix is dense.
using LayerMasks = std::array<std::optional<tensor::MaskView>, model::kProjCount>;

// Looks at adapters and masks owned by the caller, who keeps them alive for the whole call.
struct ClientUpdate {
  std::string name;
  // After training: in memory, or in its file, of which the rules read one matrix at a time.
  const model::Adapter* adapter = nullptr;
  const model::AdapterFile* file = nullptr;
  // What this client was sent: the truncation of the global adapter to its rank (redistribute.h). Null: it
  // started from the global adapter itself, or from nothing where there is none.
  const model::Adapter* sent = nullptr;
  std::span<const LayerMasks> masks;  // of its block, a layer an entry; empty for a dense client
  std::string mask_hash;              // model::mask_hash of its block; empty for a dense client
  std::string base_fingerprint;       // model::fingerprint of the model it tuned; empty where unknown
  double records = 0;                 // n_k, trained records; any positive measure of weight will do

  bool returned() const { return adapter != nullptr || file != nullptr; }
  const model::LoraConfig& config() const { return file != nullptr ? file->config() : adapter->config; }
  int64_t layers() const;
  // Type and shape of A or B, without its bytes; an empty shape where the matrix is no target.
  tensor::TensorView outline(int64_t layer, model::Proj proj, bool is_b) const;
  model::LoraPair pair(int64_t layer, model::Proj proj) const;  // a copy
};

// Calls visit(layer, proj, rows, cols) on the matrices that an update targets, in a fixed order.
template <class Visit>
void for_each_target(const ClientUpdate& update, Visit&& visit) {
  for (int64_t layer = 0; layer < update.layers(); ++layer)
    for (model::Proj proj : model::kProjs)
      if (const tensor::Shape a = update.outline(layer, proj, false).shape; !a.empty())
        visit(layer, proj, update.outline(layer, proj, true).shape[0], a[1]);
}

// The masks of a block's sparse matrices; views, valid as long as the matrices' bytes.
std::vector<LayerMasks> masks_of(const model::Model& block);

// Share of masked weights among the matrices that the adapter targets, in [0, 1]: s_k.
double sparsity(const ClientUpdate& update);

// w_k = n_k / sum n, in the order of `updates`.
std::vector<double> client_weights(std::span<const ClientUpdate> updates);

// "model.layers.3.self_attn.q_proj", the path in messages.
std::string matrix_path(int64_t layer, model::Proj proj);

}  // namespace brick::federate
