#include "brick/federate/update.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "brick/base/error.h"
#include "brick/federate/placement.h"

namespace brick::federate {

int64_t PlacedMask::count() const {
  int64_t total = 0;
  for (int64_t r = 0; r < rows; ++r) total += count_row(r);
  return total;
}

bool PlacedMask::operator==(const PlacedMask& other) const {
  if (rows != other.rows || cols != other.cols) return false;
  if (same_words(other)) return true;
  for (int64_t r = 0; r < rows; ++r)
    if (!std::equal(row(r), row(r) + tensor::mask_words(cols), other.row(r))) return false;
  return true;
}

std::vector<LayerMasks> masks_of(const model::Model& block) {
  std::vector<LayerMasks> masks(block.layers.size());
  for (size_t layer = 0; layer < masks.size(); ++layer)
    for (model::Proj proj : model::kProjs)
      if (const tensor::Matrix& weight = block.layers[layer][proj]; weight.is_sparse())
        masks[layer][static_cast<size_t>(proj)] = weight.sparse_view().mask;
  return masks;
}

int64_t ClientUpdate::own_layers() const {
  return file != nullptr ? file->layers() : static_cast<int64_t>(adapter->layers.size());
}

tensor::TensorView ClientUpdate::own_outline(int64_t layer, model::Proj proj, bool is_b) const {
  if (file != nullptr) return {tensor::DType::kF32, file->shape(layer, proj, is_b), {}};
  const model::LoraPair& pair = adapter->at(layer, proj);
  const tensor::Tensor& factor = is_b ? pair.b : pair.a;
  return {factor.dtype(), factor.shape(), {}};
}

model::LoraPair ClientUpdate::own_pair(int64_t layer, model::Proj proj) const {
  if (file != nullptr) return file->read(layer, proj);
  const model::LoraPair& pair = adapter->at(layer, proj);
  return {pair.a.clone(), pair.b.clone()};
}

int64_t ClientUpdate::layers() const { return placement != nullptr ? placement->layers() : own_layers(); }

std::optional<MatrixShape> ClientUpdate::target(int64_t layer, model::Proj proj) const {
  if (placement != nullptr) {
    const std::vector<model::Proj>& targets = config().targets;
    if (std::find(targets.begin(), targets.end(), proj) == targets.end()) return std::nullopt;
    return placement->shape(layer, proj);
  }
  const tensor::Shape a = own_outline(layer, proj, false).shape;
  if (a.empty()) return std::nullopt;
  return MatrixShape{own_outline(layer, proj, true).shape[0], a[1]};
}

std::optional<PlacedMask> ClientUpdate::mask(int64_t layer, model::Proj proj) const {
  return masks.empty() ? std::nullopt : masks[static_cast<size_t>(layer)][static_cast<size_t>(proj)];
}

model::LoraPair ClientUpdate::pair(int64_t layer, model::Proj proj) const {
  return placement != nullptr ? placement->placed(*this, layer, proj) : own_pair(layer, proj);
}

const model::LoraPair& ClientUpdate::sent_of(const model::LoraPair& whole, int64_t layer, model::Proj proj,
                                             model::LoraPair& part) const {
  if (placement == nullptr) return whole;
  part = placement->part(whole, layer, proj);
  return part;
}

std::vector<double> client_weights(std::span<const ClientUpdate> updates) {
  double total = 0;
  for (const ClientUpdate& update : updates) total += update.records;
  if (!std::isfinite(total))
    fail(ErrorCode::kNumeric, "the clients' numbers of records add up to {}: they are too large", total);
  std::vector<double> weights;
  weights.reserve(updates.size());
  for (const ClientUpdate& update : updates) weights.push_back(update.records / total);
  return weights;
}

std::string matrix_path(int64_t layer, model::Proj proj) {
  return fmt::format("model.layers.{}.{}", layer, model::module_path(proj));
}

}  // namespace brick::federate
