#include "brick/prune/structures.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>

#include "brick/base/error.h"

namespace brick::prune {
namespace {

using model::Cut;
using model::LayerShape;
using Indices = std::vector<int32_t>;

Indices ascending(const std::vector<double>& scores) {
  Indices order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return scores[static_cast<size_t>(a)] < scores[static_cast<size_t>(b)];
  });
  return order;
}

Indices lowest(const std::vector<double>& scores, int64_t count) {
  Indices order = ascending(scores);
  order.resize(static_cast<size_t>(count));
  return order;
}

void drop_groups(model::LayerCut& cut, std::span<const int32_t> dropped) {
  const auto gone = [&](int32_t group) { return std::find(dropped.begin(), dropped.end(), group) != dropped.end(); };
  const auto heads_a_group = static_cast<int32_t>(cut.parent.heads / cut.parent.kv_heads);
  std::erase_if(cut.kv_heads, gone);
  std::erase_if(cut.heads, [&](int32_t head) { return gone(head / heads_a_group); });
}

void drop_neurons(model::LayerCut& cut, std::span<const int32_t> dropped) {
  std::vector<bool> gone(static_cast<size_t>(cut.parent.ffn));
  for (const int32_t i : dropped) gone[static_cast<size_t>(i)] = true;
  std::erase_if(cut.neurons, [&](int32_t i) { return gone[static_cast<size_t>(i)]; });
}

// What goes at once.
struct Unit {
  double score;
  int64_t layer, weights;
  bool is_group;
  Indices members;
};

void add_units(const LayerScores& scores, const LayerShape& shape, int64_t hidden, int64_t layer, int64_t multiple,
               std::vector<Unit>& units) {
  const Indices groups = ascending(scores.groups);
  for (size_t i = 0; i + 1 < groups.size(); ++i)
    units.push_back(
        {scores.groups[static_cast<size_t>(groups[i])], layer, group_weights(shape, hidden), true, {groups[i]}});
  const Indices neurons = ascending(scores.neurons);
  // The first leaves a whole multiple behind.
  for (int64_t begin = 0, end = shape.ffn % multiple; begin < shape.ffn - multiple; begin = end, end += multiple) {
    if (begin == end) end += multiple;
    Unit unit{
        0, layer, (end - begin) * neuron_weights(hidden), false, {neurons.begin() + begin, neurons.begin() + end}};
    for (const int32_t i : unit.members) unit.score += scores.neurons[static_cast<size_t>(i)];
    unit.score /= static_cast<double>(end - begin);
    units.push_back(std::move(unit));
  }
}
}  // namespace

int64_t group_weights(const LayerShape& shape, int64_t hidden) {
  return 2 * (1 + shape.heads / shape.kv_heads) * shape.head_dim * hidden;
}

int64_t neuron_weights(int64_t hidden) { return 3 * hidden; }

int64_t layer_weights(const LayerShape& shape, int64_t hidden) {
  return shape.kv_heads * group_weights(shape, hidden) + shape.ffn * neuron_weights(hidden);
}

Cut choose_globally(const model::Model& model, const std::vector<LayerScores>& scores, double remove,
                    const StructureLimits& limits) {
  Cut cut = model::whole_cut(model);
  std::vector<Unit> units;
  for (const model::LayerCut& layer : cut.layers)
    if (!limits.is_protected(layer.layer, cut.parent_layers))
      add_units(scores[static_cast<size_t>(layer.layer)], layer.parent, model.config.hidden, layer.layer,
                limits.width_multiple, units);
  std::stable_sort(units.begin(), units.end(), [](const Unit& a, const Unit& b) { return a.score < b.score; });
  double removed = 0;
  for (const Unit& unit : units) {
    const auto weights = static_cast<double>(unit.weights);
    if (removed + weights / 2 >= remove) continue;  // a smaller one may fit yet
    removed += weights;
    model::LayerCut& layer = cut.layers[static_cast<size_t>(unit.layer)];
    if (unit.is_group)
      drop_groups(layer, unit.members);
    else
      drop_neurons(layer, unit.members);
  }
  return cut;
}

double left_globally(const model::Model& model, double remove, const StructureLimits& limits) {
  const auto layers = static_cast<int64_t>(model.layers.size());
  int64_t removable = 0;
  for (int64_t i = 0; i < layers; ++i) {
    const LayerShape& shape = model.layers[static_cast<size_t>(i)].shape;
    if (!limits.is_protected(i, layers))
      removable += (shape.kv_heads - 1) * group_weights(shape, model.config.hidden) +
                   std::max<int64_t>(shape.ffn - limits.width_multiple, 0) * neuron_weights(model.config.hidden);
  }
  return static_cast<double>(model.linear_parameters()) - std::min(remove, static_cast<double>(removable));
}

Widths widths_at(const LayerShape& shape, int64_t hidden, double share, int64_t width_multiple) {
  constexpr double kSlack = 1e-9;  // 0.25 that came out a little below
  const int64_t channels = shape.kv_heads * shape.head_dim;
  const auto left = static_cast<int64_t>(std::floor(static_cast<double>(channels) * (1 - share) + kSlack));
  const int64_t groups_gone = std::min((channels - left) / shape.head_dim, shape.kv_heads - 1);
  const double remove = share * static_cast<double>(layer_weights(shape, hidden)) -
                        static_cast<double>(groups_gone * group_weights(shape, hidden));
  const double width = static_cast<double>(shape.ffn) - remove / static_cast<double>(neuron_weights(hidden));
  const int64_t nearest = std::llround(width / static_cast<double>(width_multiple)) * width_multiple;
  return {shape.kv_heads - groups_gone, std::clamp(nearest, std::min(width_multiple, shape.ffn), shape.ffn)};
}

Cut choose_by_layer(const model::Model& model, const model::Model& whole, const std::vector<LayerScores>& scores,
                    double share, double last_share, const StructureLimits& limits) {
  Cut cut = model::whole_cut(model);
  const int64_t hidden = model.config.hidden, multiple = limits.width_multiple;
  for (model::LayerCut& layer : cut.layers) {
    if (limits.is_protected(layer.layer, cut.parent_layers)) continue;
    const auto l = static_cast<size_t>(layer.layer);
    const LayerShape &now = layer.parent, &first = whole.layers[l].shape;
    const Widths wanted = widths_at(first, hidden, share, multiple);
    const int64_t width = std::max(wanted.neurons, widths_at(first, hidden, last_share, multiple).neurons);
    drop_groups(layer, lowest(scores[l].groups, std::max<int64_t>(now.kv_heads - wanted.groups, 0)));
    drop_neurons(layer, lowest(scores[l].neurons, std::max<int64_t>(now.ffn - width, 0)));
  }
  return cut;
}

int64_t stream_width(double sparsity, int64_t width, int64_t multiple) {
  const double left = static_cast<double>(width) * (1 - sparsity) / static_cast<double>(multiple);
  return std::clamp<int64_t>(std::llround(left) * multiple, std::min(multiple, width), width);
}

std::vector<int32_t> keep_highest(const std::vector<double>& scores, int64_t count) {
  const Indices order = ascending(scores);
  Indices kept(order.end() - count, order.end());
  std::sort(kept.begin(), kept.end());
  return kept;
}

void check_scores(const std::vector<LayerScores>& scores) {
  for (size_t layer = 0; layer < scores.size(); ++layer)
    for (const std::vector<double>* of : {&scores[layer].groups, &scores[layer].neurons})
      if (!std::all_of(of->begin(), of->end(), [](double score) { return std::isfinite(score); }))
        fail(ErrorCode::kNumeric,
             "what the structures of layer {} are worth is NaN or infinite in the calibration: the weights before it "
             "are damaged or overflow",
             layer);
}

}  // namespace brick::prune
