#include "brick/federate/update.h"

#include <fmt/format.h>

namespace brick::federate {

std::vector<LayerMasks> masks_of(const model::Model& block) {
  std::vector<LayerMasks> masks(block.layers.size());
  for (size_t layer = 0; layer < masks.size(); ++layer)
    for (model::Proj proj : model::kProjs)
      if (const tensor::Matrix& weight = block.layers[layer][proj]; weight.is_sparse())
        masks[layer][static_cast<size_t>(proj)] = weight.sparse_view().mask;
  return masks;
}

double sparsity(const ClientUpdate& update) {
  int64_t total = 0, kept = 0;
  model::for_each_pair(*update.adapter, [&](int64_t layer, model::Proj proj, const model::LoraPair& pair) {
    const int64_t size = pair.b.shape()[0] * pair.a.shape()[1];
    total += size;
    const auto& mask =
        update.masks.empty() ? std::nullopt : update.masks[static_cast<size_t>(layer)][static_cast<size_t>(proj)];
    kept += mask ? mask->count() : size;
  });
  return total == 0 ? 0.0 : 1.0 - static_cast<double>(kept) / static_cast<double>(total);
}

std::vector<double> client_weights(std::span<const ClientUpdate> updates) {
  double total = 0;
  for (const ClientUpdate& update : updates) total += update.records;
  std::vector<double> weights;
  weights.reserve(updates.size());
  for (const ClientUpdate& update : updates) weights.push_back(update.records / total);
  return weights;
}

std::string matrix_path(int64_t layer, model::Proj proj) {
  return fmt::format("model.layers.{}.{}", layer, model::module_path(proj));
}

}  // namespace brick::federate
