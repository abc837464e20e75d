// Which structures of a model go: key/value heads with their query heads, and feed-forward neurons. Internal to prune/.
#pragma once

#include <cstdint>
#include <vector>

#include "brick/model/cut.h"
#include "brick/model/model.h"

namespace brick::prune {

// What each structure of a layer is worth, on one scale for all structures of all layers; the lowest go first.
struct LayerScores {
  std::vector<double> groups;   // [K], of a key/value head with its query heads
  std::vector<double> neurons;  // [F]
};

struct StructureLimits {
  int64_t width_multiple = 64;                  // of the neurons that a layer keeps, at least so many
  int64_t protect_first = 0, protect_last = 0;  // layers that stay whole

  bool is_protected(int64_t layer, int64_t layers) const {
    return layer < protect_first || layer >= layers - protect_last;
  }
};

// Linear weights of a layer and of its structures.
int64_t layer_weights(const model::LayerShape& shape, int64_t hidden);
int64_t group_weights(const model::LayerShape& shape, int64_t hidden);
int64_t neuron_weights(int64_t hidden);

// Removes the lowest scores of all layers until `remove` linear weights are gone, as nearly as whole structures allow.
// Neurons go `width_multiple` at a time, a layer's lowest first, by their mean score; each layer keeps at least one
// key/value head and width_multiple neurons. Ties go to the lower layer, heads before neurons.
model::Cut choose_globally(const model::Model& model, const std::vector<LayerScores>& scores, double remove,
                           const StructureLimits& limits);

// Linear weights that choose_globally() leaves, but for half of what goes at once: at most a key/value head.
double left_globally(const model::Model& model, double remove, const StructureLimits& limits);

// What `share` leaves of a layer: floor((C - floor(C (1 - share))) / head size) key/value heads go, C = K head size (as
// LLM-Pruner counts), and for what is then left of the share in linear weights neurons, to the nearest multiple.
struct Widths {
  int64_t groups, neurons;
};
Widths widths_at(const model::LayerShape& shape, int64_t hidden, double share, int64_t width_multiple);

// Brings each layer that is not protected to widths_at(share) of its shape in `whole`, the model before its first cut:
// its lowest key/value heads and neurons go. Where later steps bring it to `last_share`, it keeps as many neurons as
// that leaves: a head that goes only then takes the place of neurons that would have gone by now.
model::Cut choose_by_layer(const model::Model& model, const model::Model& whole, const std::vector<LayerScores>& scores,
                           double share, double last_share, const StructureLimits& limits);

// Of a residual stream: the multiple nearest to what is left of the width, at least one of them and at most the width.
int64_t stream_width(double sparsity, int64_t width, int64_t multiple);

// Ascending indices of the `count` highest scores; of equal ones the lower index goes first.
std::vector<int32_t> keep_highest(const std::vector<double>& scores, int64_t count);

// Error(kNumeric) naming the layer whose scores are not all finite.
void check_scores(const std::vector<LayerScores>& scores);

}  // namespace brick::prune
