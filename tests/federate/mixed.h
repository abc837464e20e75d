// A federation of whole, sparse and structured blocks of one small model.
#pragma once

#include "brick/federate/placement.h"
#include "brick/federate/redistribute.h"
#include "brick/model/restrict_adapter.h"
#include "federate/rounds.h"
#include "model/cut_model.h"

namespace brick::federate {

inline const std::vector<std::string>& structured_rules() {
  static const std::vector<std::string> names{"flexlora", "hete-h0", "hete-h0-axis", "hete-h1", "hete-h2", "hete-tau"};
  return names;
}

// Another cut than tiny_cut(): the last layer is gone, the first has all heads.
inline model::Cut other_cut() {
  model::Cut cut = model::whole_cut(model::tiny_model({.layers = 3}));
  cut.layers.pop_back();
  std::erase_if(cut.layers[0].neurons, [](int32_t i) { return i < 24; });
  cut.layers[1].heads = {1, 2};
  return cut;
}

class MixedFederation {
 public:
  model::Model parent = model::tiny_model({.layers = 3});
  Federation f;  // order of clients: whole, sparse, structured, other, both, narrow

  // Clients moved by `deviation`; of one rank, or each of its own.
  explicit MixedFederation(double deviation, bool unequal_ranks = false) {
    const std::vector<int64_t> ranks =
        unequal_ranks ? std::vector<int64_t>{4, 2, 3, 4, 6, 2} : std::vector<int64_t>(6, 4);
    f.global = model::make_adapter(parent,
                                   {.rank = 4, .alpha = 8, .targets = {model::kProjs.begin(), model::kProjs.end()}}, 0);
    model::randomise(*f.global, 1);
    for (Adapter& sent : redistribute(*f.global, ranks)) f.sent.push_back(std::move(sent));
    add("whole", parent, deviation);
    add("sparse", model::tiny_block(parent, 0.5), deviation);
    add("structured", model::slice(parent, model::tiny_cut(), "f32"), deviation);
    add("other", model::slice(parent, other_cut(), "f32"), deviation);
    add("both", model::tiny_block(model::slice(parent, model::tiny_cut(), "f32"), 0.3), deviation);
    add("narrow", model::slice(parent, model::tiny_narrow_cut(parent), "f32"), deviation);
  }

  const model::Model& block(size_t client) const { return blocks_[client]; }
  const Placement& placement(size_t client) const { return placements_[client]; }
  ClientUpdate& add(const std::string& name, const model::Model& block, double deviation) {
    const size_t k = f.updates.size();
    blocks_.push_back(block);
    placements_.emplace_back(blocks_.back(), parent);
    const Adapter& sent = k < f.sent.size() ? f.sent[k] : *f.global;
    ClientUpdate& update = f.add(name, disturbed(model::restricted(sent, blocks_.back()), deviation, 30 + k), 0.0,
                                 10.0 * static_cast<double>(k + 1));
    update.sent = &sent;
    placements_.back().describe(update);
    return update;
  }

 private:
  std::deque<model::Model> blocks_;
  std::deque<Placement> placements_;
};

}  // namespace brick::federate
