// Which parts of its parent a structured block has, by their places there. Weights of whole structures are gone from
// such a block, unlike those that a mask drops.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "brick/model/config.h"

namespace brick::model {

struct Model;

// A layer's own widths: blocks may differ from layer to layer.
struct LayerShape {
  int64_t heads = 0, kv_heads = 0, head_dim = 0, ffn = 0;

  bool operator==(const LayerShape&) const = default;
};

struct LayerCut {
  int64_t layer = 0;  // the parent's layer
  LayerShape parent;  // its widths
  // Kept query heads [H], key/value heads [K] and feed-forward neurons [F], ascending. Query heads stay with the
  // key/value head that they had.
  std::vector<int32_t> heads, kv_heads, neurons;
};

// Of a narrowed residual stream: columns of embedding, head, q, k, v, gate and up, rows of o and down, entries of norms
// and biases.
struct StreamCut {
  int64_t parent = 0;             // the parent's width
  std::vector<int32_t> channels;  // kept ones [D], ascending
  std::string fingerprint;        // of the parent, which the narrowed weights no longer tell
};

// A block's own cut (BlockSpec) counts in its first parent, that nothing was cut from, however often it was cut since.
struct Cut {
  int64_t parent_layers = 0;
  std::vector<LayerCut> layers;     // one a layer of the block; the parent's layers ascend
  std::optional<StreamCut> stream;  // none: the stream is the parent's
};

// The cut that leaves everything, in the model's own numbers.
Cut whole_cut(const Model& model);
// The cut that leaves these channels of the residual stream and all else.
Cut channel_cut(const Model& model, std::vector<int32_t> channels);

// What `cut` leaves of the model. In it, kept weights are held as `values` says: f32, bf16, q4 (dense Q4_1), or keep:
// as the model has them; embedding and head too where the stream is narrowed (q4: these as q8_0). A tied head stays
// tied. The result's BlockSpec has its cut, composed with the model's own, and nothing else. Errors: kUnsupported,
// naming the weight, where "keep" would have to take quantised blocks of a row apart, rows are no whole number of q4's
// blocks, or a weight that is to be cut is masked; kInvalidInput for other `values`.
Model slice(const Model& model, const Cut& cut, const std::string& values);

// Error(kCorrupt), prefixed by `what`, unless the cut gives layers of these shapes in a stream `hidden` wide: every
// index within the parent's width, ascending, as many as the layer is wide.
void check_cut(const Cut& cut, std::span<const LayerShape> shapes, int64_t hidden, const std::string& what);

// Kept rows or columns of the parent's matrix of one of the cut's layers; none: all of them.
std::optional<std::vector<int32_t>> kept_rows(const Cut& cut, const LayerCut& layer, Proj proj);
std::optional<std::vector<int32_t>> kept_cols(const Cut& cut, const LayerCut& layer, Proj proj);

// SHA-256 over the cut in decimal (docs/block-format.md); empty where there is none.
std::string cut_hash(const Model& model);

}  // namespace brick::model
