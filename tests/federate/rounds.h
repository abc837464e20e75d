// Small federations in memory: adapters, masks and updates, and dense products to compare.
#pragma once

#include <cmath>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "brick/base/rng.h"
#include "brick/federate/rules.h"
#include "brick/federate/update.h"

namespace brick::federate {

using model::Adapter;
using model::Proj;

struct Target {
  Proj proj;
  int64_t rows, cols;
};

// Large enough for the iterative decompositions at the ranks of these tests; all different.
inline const std::vector<Target>& targets() {
  static const std::vector<Target> all{{Proj::kQ, 96, 80}, {Proj::kDown, 80, 128}};
  return all;
}

inline Adapter zero_adapter(int64_t rank, double alpha, const std::vector<Target>& shapes = targets(),
                            int64_t layers = 2) {
  Adapter adapter;
  adapter.config.rank = rank;
  adapter.config.alpha = alpha;
  adapter.layers.resize(static_cast<size_t>(layers));
  for (const Target& target : shapes) {
    adapter.config.targets.push_back(target.proj);
    for (int64_t layer = 0; layer < layers; ++layer)
      adapter.at(layer, target.proj) = {tensor::matrix(rank, target.cols), tensor::matrix(target.rows, rank)};
  }
  return adapter;
}

// Adds normal noise to every factor.
inline Adapter disturbed(const Adapter& from, double deviation, uint64_t seed) {
  Adapter adapter = from.clone();
  Rng rng(seed, 77);
  model::for_each_pair(adapter, [&](int64_t, Proj, model::LoraPair& pair) {
    for (tensor::Tensor* factor : {&pair.a, &pair.b})
      for (int64_t i = 0; i < factor->size(); ++i) factor->f32()[i] += static_cast<float>(deviation * rng.normal());
  });
  return adapter;
}

inline Adapter random_adapter(int64_t rank, double alpha, uint64_t seed,
                              const std::vector<Target>& shapes = targets()) {
  return disturbed(zero_adapter(rank, alpha, shapes), 0.1, seed);
}

// c B A of one matrix, row-major.
inline std::vector<double> product(const Adapter& adapter, int64_t layer, Proj proj) {
  const model::LoraPair& pair = adapter.at(layer, proj);
  const tensor::ConstMatView a = pair.a.mat(), b = pair.b.mat();
  std::vector<double> out(static_cast<size_t>(b.rows * a.cols));
  for (int64_t r = 0; r < b.rows; ++r)
    for (int64_t i = 0; i < a.rows; ++i)
      for (int64_t c = 0; c < a.cols; ++c)
        out[static_cast<size_t>(r * a.cols + c)] += static_cast<double>(adapter.config.scale()) * b(r, i) * a(i, c);
  return out;
}

// ||x - y|| / ||y|| of what two adapters add, over all matrices of y.
inline double difference(const Adapter& x, const Adapter& y) {
  double error = 0, norm = 0;
  model::for_each_pair(y, [&](int64_t layer, Proj proj, const model::LoraPair&) {
    const std::vector<double> from = product(x, layer, proj), to = product(y, layer, proj);
    for (size_t i = 0; i < to.size(); ++i) {
      error += (from[i] - to[i]) * (from[i] - to[i]);
      norm += to[i] * to[i];
    }
  });
  return std::sqrt(error / norm);
}

inline bool same_bits(const Adapter& x, const Adapter& y) {
  bool same = x.config.rank == y.config.rank && x.config.scale() == y.config.scale();
  model::for_each_pair(y, [&](int64_t layer, Proj proj, const model::LoraPair& pair) {
    const model::LoraPair& other = x.at(layer, proj);
    for (const auto& [p, q] : {std::pair{&other.a, &pair.a}, std::pair{&other.b, &pair.b}})
      same = same && std::equal(p->bytes().begin(), p->bytes().end(), q->bytes().begin(), q->bytes().end());
  });
  return same;
}

// Masks that the views of updates look at.
struct BlockMasks {
  std::vector<std::array<tensor::Mask, model::kProjCount>> masks;

  std::vector<LayerMasks> of_layers;

  // Valid until the next call.
  std::span<const LayerMasks> views() {
    of_layers.assign(masks.size(), {});
    for (size_t layer = 0; layer < masks.size(); ++layer)
      for (size_t p = 0; p < masks[layer].size(); ++p)
        if (masks[layer][p].rows() > 0) of_layers[layer][p] = masks[layer][p].view();
    return of_layers;
  }
};

inline BlockMasks random_masks(double sparsity, uint64_t seed, const std::vector<Target>& shapes = targets(),
                               int64_t layers = 2) {
  BlockMasks block;
  block.masks.resize(static_cast<size_t>(layers));
  Rng rng(seed, 78);
  for (auto& layer : block.masks)
    for (const Target& target : shapes) {
      tensor::Mask mask(target.rows, target.cols);
      for (int64_t r = 0; r < target.rows; ++r)
        for (int64_t c = 0; c < target.cols; ++c) mask.set(r, c, rng.uniform() >= sparsity);
      layer[static_cast<size_t>(target.proj)] = std::move(mask);
    }
  return block;
}

// Owns what its updates look at.
struct Federation {
  std::optional<Adapter> global;
  std::deque<Adapter> adapters, sent;
  std::deque<BlockMasks> masks;
  std::vector<ClientUpdate> updates;

  const Adapter* global_or_null() const { return global ? &*global : nullptr; }

  ClientUpdate& add(const std::string& name, Adapter adapter, double sparsity, double records = 1) {
    ClientUpdate update;
    update.name = name;
    update.adapter = &adapters.emplace_back(std::move(adapter));
    update.records = records;
    if (sparsity > 0) {
      std::vector<Target> shapes;
      for (Proj proj : model::kProjs)
        if (update.adapter->at(0, proj).present())
          shapes.push_back({proj, update.adapter->at(0, proj).b.shape()[0], update.adapter->at(0, proj).a.shape()[1]});
      masks.push_back(
          random_masks(sparsity, 1000 + updates.size(), shapes, static_cast<int64_t>(update.adapter->layers.size())));
      update.masks = masks.back().views();
    }
    updates.push_back(update);
    return updates.back();
  }

  Adapter run(const std::string& rule, AggregateConfig config = {}) const {
    config.rule = rule;
    return aggregate(global_or_null(), updates, config, 5);
  }
};

// Four clients at 0, 25, 50 and 75 % that moved away from a global adapter.
inline Federation four_clients(double deviation, bool sparse) {
  Federation f;
  f.global = random_adapter(8, 16, 1);
  for (int k = 0; k < 4; ++k)
    f.add("client" + std::to_string(k), disturbed(*f.global, deviation, 10 + static_cast<uint64_t>(k)),
          sparse ? 0.25 * k : 0.0, 10.0 * (k + 1));
  return f;
}

}  // namespace brick::federate
