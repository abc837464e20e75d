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
  const model::Adapter* adapter = nullptr;  // after training
  // What this client was sent: the truncation of the global adapter to its rank (redistribute.h). Null: it
  // started from the global adapter itself, or from nothing where there is none.
  const model::Adapter* sent = nullptr;
  std::vector<LayerMasks> masks;  // of its block, a layer an entry; empty for a dense client
  std::string mask_hash;          // model::mask_hash of its block; empty for a dense client
  std::string base_fingerprint;   // model::fingerprint of the model it tuned; empty where unknown
  double records = 0;             // n_k, trained records; any positive measure of weight will do
};

// The masks of a block's sparse matrices; views, valid as long as the matrices' bytes.
std::vector<LayerMasks> masks_of(const model::Model& block);

// Share of masked weights among the matrices that the adapter targets, in [0, 1]: s_k.
double sparsity(const ClientUpdate& update);

// w_k = n_k / sum n, in the order of `updates`.
std::vector<double> client_weights(std::span<const ClientUpdate> updates);

// "model.layers.3.self_attn.q_proj", the path in messages.
std::string matrix_path(int64_t layer, model::Proj proj);

}  // namespace brick::federate
