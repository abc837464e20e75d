#include "brick/federate/check_update.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "brick/base/error.h"
#include "brick/kernels/linear.h"

namespace brick::federate {
namespace {

using model::LoraPair;
using model::Proj;
using Reason = std::optional<std::string>;
using Targets = std::vector<std::array<bool, model::kProjCount>>;

// <B A, B' A'>_F = sum_ij (B^T B')_ij (A A'^T)_ij.
double inner(const LoraPair& x, const LoraPair& y) {
  const tensor::ConstMatView bx = x.b.mat(), by = y.b.mat(), ax = x.a.mat(), ay = y.a.mat();
  std::vector<double> gram(static_cast<size_t>(bx.cols * by.cols));
  for (int64_t r = 0; r < bx.rows; ++r)
    for (int64_t i = 0; i < bx.cols; ++i)
      for (int64_t j = 0; j < by.cols; ++j)
        gram[static_cast<size_t>(i * by.cols + j)] += static_cast<double>(bx(r, i)) * by(r, j);
  double total = 0;
  for (int64_t i = 0; i < ax.rows; ++i)
    for (int64_t j = 0; j < ay.rows; ++j) {
      double product = 0;
      for (int64_t c = 0; c < ax.cols; ++c) product += static_cast<double>(ax(i, c)) * ay(j, c);
      total += gram[static_cast<size_t>(i * by.cols + j)] * product;
    }
  return total;
}

// Squared norms of c B A and of its difference to what was sent. `sent` may be absent.
struct SquaredNorms {
  double whole = 0, moved = 0;
};

SquaredNorms squared_norms(const ClientUpdate& update, int64_t layer, Proj proj) {
  const LoraPair& pair = update.adapter->at(layer, proj);
  const double c = update.adapter->config.scale();
  SquaredNorms norms;
  norms.whole = norms.moved = c * c * inner(pair, pair);
  if (update.sent == nullptr || !update.sent->at(layer, proj).present()) return norms;
  const LoraPair& from = update.sent->at(layer, proj);
  const double d = update.sent->config.scale();
  norms.moved = std::max(0.0, norms.whole - 2 * c * d * inner(pair, from) + d * d * inner(from, from));
  if (!std::isfinite(norms.whole)) norms.moved = norms.whole;
  return norms;
}

std::string shape_text(const tensor::Tensor& tensor) { return fmt::format("[{}]", fmt::join(tensor.shape(), ", ")); }

bool is_matrix(const tensor::Tensor& tensor, int64_t rows, int64_t cols) {
  return tensor.dtype() == tensor::DType::kF32 && tensor.shape() == tensor::Shape{rows, cols};
}

Reason check_weight(const ClientUpdate& update) {
  if (!std::isfinite(update.records)) return "its number of records is not finite";
  if (update.records <= 0) return fmt::format("its number of records is {}, so it has no weight", update.records);
  return std::nullopt;
}

Reason check_base(const ClientUpdate& update, const Reference& reference) {
  for (const std::string* base : {&update.adapter->config.base_fingerprint, &update.base_fingerprint})
    if (!reference.fingerprint.empty() && !base->empty() && *base != reference.fingerprint)
      return fmt::format("it was made on another base model ({:.12} instead of {:.12})", *base, reference.fingerprint);
  return std::nullopt;
}

Reason check_mask(const ClientUpdate& update, const Reference& reference) {
  const model::LoraConfig& config = update.adapter->config;
  if (config.masked && (config.mask_hash.empty() || config.mask_hash != update.mask_hash))
    return fmt::format("it is masked for another block (mask {:.12} instead of {:.12})",
                       config.mask_hash.empty() ? "unknown" : config.mask_hash,
                       update.mask_hash.empty() ? "none" : update.mask_hash);
  if (config.masked && update.masks.empty()) return "it is masked, but its block has no masks";
  if (update.masks.empty()) return std::nullopt;
  if (update.masks.size() != reference.weights.size())
    return fmt::format("its block has masks for {} layers, the model has {}", update.masks.size(),
                       reference.weights.size());
  for (size_t layer = 0; layer < update.masks.size(); ++layer)
    for (Proj proj : model::kProjs) {
      const auto& mask = update.masks[layer][static_cast<size_t>(proj)];
      const Reference::Weight& weight = reference.weights[layer][static_cast<size_t>(proj)];
      if (mask && (mask->rows != weight.rows || mask->cols != weight.cols))
        return fmt::format("its block's mask of {} is [{}, {}], the weight [{}, {}]",
                           matrix_path(static_cast<int64_t>(layer), proj), mask->rows, mask->cols, weight.rows,
                           weight.cols);
    }
  return std::nullopt;
}

// `whose`: "its" or "its start's".
Reason check_shapes(const model::Adapter& adapter, const Reference& reference, std::string_view whose) {
  const int64_t rank = adapter.config.rank;
  if (rank < 1) return fmt::format("{} rank is {}", whose, rank);
  if (const float scale = adapter.config.scale(); !std::isfinite(scale) || scale <= 0)
    return fmt::format("{} scale (alpha {} at rank {}) is no positive number", whose, adapter.config.alpha, rank);
  if (adapter.layers.size() != reference.weights.size())
    return fmt::format("{} adapter has {} layers, the model {}", whose, adapter.layers.size(),
                       reference.weights.size());
  bool any = false;
  for (size_t l = 0; l < adapter.layers.size(); ++l)
    for (Proj proj : model::kProjs) {
      const int64_t layer = static_cast<int64_t>(l);
      const LoraPair& pair = adapter.at(layer, proj);
      const bool wanted = reference.targets.empty() ? pair.present() : reference.targets[l][static_cast<size_t>(proj)];
      if (pair.present() != wanted)
        return fmt::format("{} targets differ from the federation's: {} {}", whose, matrix_path(layer, proj),
                           wanted ? "is missing" : "is not among them");
      if (!wanted) continue;
      any = true;
      const Reference::Weight& weight = reference.weights[l][static_cast<size_t>(proj)];
      if (!is_matrix(pair.a, rank, weight.cols))
        return fmt::format("{} {}.lora_A.weight is {} {}, expected f32 [{}, {}]", whose, matrix_path(layer, proj),
                           tensor::name(pair.a.dtype()), shape_text(pair.a), rank, weight.cols);
      if (!is_matrix(pair.b, weight.rows, rank))
        return fmt::format("{} {}.lora_B.weight is {} {}, expected f32 [{}, {}]", whose, matrix_path(layer, proj),
                           tensor::name(pair.b.dtype()), shape_text(pair.b), weight.rows, rank);
    }
  if (!any) return fmt::format("{} adapter has no matrices", whose);
  return std::nullopt;
}

Reason check_finite(const model::Adapter& adapter) {
  Reason reason;
  const auto finite = [](const tensor::Tensor& t) {
    return std::all_of(t.f32(), t.f32() + t.size(), [](float x) { return std::isfinite(x); });
  };
  model::for_each_pair(adapter, [&](int64_t layer, Proj proj, const LoraPair& pair) {
    if (reason) return;
    for (const auto& [name, factor] : {std::pair{"A", &pair.a}, std::pair{"B", &pair.b}})
      if (!reason && !finite(*factor))
        reason = fmt::format("{}.lora_{}.weight has values that are not finite", matrix_path(layer, proj), name);
  });
  return reason;
}

Reason check_size(const ClientUpdate& update, const Reference& reference, const UpdateLimits& limits) {
  Reason reason;
  model::for_each_pair(*update.adapter, [&](int64_t layer, Proj proj, const LoraPair&) {
    if (reason) return;
    const double norm = reference.weights[static_cast<size_t>(layer)][static_cast<size_t>(proj)].norm;
    const SquaredNorms squared = squared_norms(update, layer, proj);
    const double largest = std::sqrt(std::max(squared.whole, squared.moved));
    if (!std::isfinite(largest))
      reason = fmt::format("its product of {} overflows", matrix_path(layer, proj));
    else if (norm > 0 && largest > limits.of_weight * norm)
      reason = fmt::format("its change of {} has norm {:.3g}, more than {:g} times the weight's {:.3g}",
                           matrix_path(layer, proj), largest, limits.of_weight, norm);
  });
  return reason;
}

Targets targets_of(const model::Adapter& adapter) {
  Targets targets(adapter.layers.size());
  for (size_t layer = 0; layer < targets.size(); ++layer)
    for (Proj proj : model::kProjs)
      targets[layer][static_cast<size_t>(proj)] = adapter.at(static_cast<int64_t>(layer), proj).present();
  return targets;
}

Targets commonest_targets(std::span<const ClientUpdate> updates) {
  std::vector<std::pair<Targets, int>> counts;
  for (const ClientUpdate& update : updates) {
    if (update.adapter == nullptr) continue;
    Targets targets = targets_of(*update.adapter);
    const auto found = std::find_if(counts.begin(), counts.end(), [&](const auto& c) { return c.first == targets; });
    if (found != counts.end())
      ++found->second;
    else
      counts.emplace_back(std::move(targets), 1);
  }
  const auto most =
      std::max_element(counts.begin(), counts.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == counts.end() ? Targets{} : most->first;
}

std::optional<double> median_norm(const Review& review, const UpdateLimits& limits) {
  std::vector<double> norms;
  for (double norm : review.norms)
    if (norm > 0) norms.push_back(norm);
  if (static_cast<int64_t>(norms.size()) < limits.median_clients || norms.empty()) return std::nullopt;
  const auto middle = norms.begin() + static_cast<std::ptrdiff_t>((norms.size() - 1) / 2);
  std::nth_element(norms.begin(), middle, norms.end());
  return *middle;
}

}  // namespace

Reference reference_of(const model::Model& parent, const model::Adapter* like) {
  Reference reference;
  reference.fingerprint = model::fingerprint(parent);
  reference.weights.resize(parent.layers.size());
  std::vector<float> rows;
  for (size_t layer = 0; layer < parent.layers.size(); ++layer)
    for (Proj proj : model::kProjs) {
      const tensor::Matrix& weight = parent.layers[layer][proj];
      const int64_t piece = kernels::rows_a_piece(weight);
      rows.resize(static_cast<size_t>(piece * weight.cols()));
      double squares = 0;
      for (int64_t begin = 0; begin < weight.rows(); begin += piece) {
        const int64_t end = std::min(begin + piece, weight.rows());
        kernels::expand_rows(weight, begin, end, rows.data());
        for (int64_t i = 0; i < (end - begin) * weight.cols(); ++i)
          squares += static_cast<double>(rows[static_cast<size_t>(i)]) * rows[static_cast<size_t>(i)];
      }
      reference.weights[layer][static_cast<size_t>(proj)] = {weight.rows(), weight.cols(), std::sqrt(squares)};
    }
  if (like != nullptr) reference.targets = targets_of(*like);
  return reference;
}

Reason reject_reason(const ClientUpdate& update, const Reference& reference, const UpdateLimits& limits) {
  if (update.adapter == nullptr) return "it returned no adapter";
  if (Reason reason = check_weight(update)) return reason;
  if (Reason reason = check_base(update, reference)) return reason;
  if (Reason reason = check_mask(update, reference)) return reason;
  if (Reason reason = check_shapes(*update.adapter, reference, "its")) return reason;
  if (update.sent != nullptr) {
    if (Reason reason = check_shapes(*update.sent, reference, "its start's")) return reason;
    if (update.sent->config.rank != update.adapter->config.rank)
      return fmt::format("it was sent rank {} and returned rank {}", update.sent->config.rank,
                         update.adapter->config.rank);
  }
  if (Reason reason = check_finite(*update.adapter)) return reason;
  return check_size(update, reference, limits);
}

double update_norm(const ClientUpdate& update) {
  double total = 0;
  model::for_each_pair(*update.adapter, [&](int64_t layer, Proj proj, const LoraPair&) {
    total += squared_norms(update, layer, proj).moved;
  });
  return std::sqrt(total);
}

Review review(std::span<const ClientUpdate> updates, const Reference& reference, const UpdateLimits& limits) {
  Reference common = reference;
  if (common.targets.empty()) common.targets = commonest_targets(updates);
  if (common.targets.size() != common.weights.size()) common.targets.clear();
  Review result;
  for (const ClientUpdate& update : updates) {
    result.reasons.push_back(reject_reason(update, common, limits));
    result.norms.push_back(result.reasons.back() ? 0.0 : update_norm(update));
  }
  if (const std::optional<double> median = median_norm(result, limits))
    for (size_t k = 0; k < updates.size(); ++k)
      if (!result.reasons[k] && result.norms[k] > limits.of_median * *median)
        result.reasons[k] = fmt::format("its update has norm {:.3g}, more than {:g} times the clients' median {:.3g}",
                                        result.norms[k], limits.of_median, *median);
  std::string all;
  for (size_t k = 0; k < updates.size(); ++k) {
    if (!result.reasons[k])
      result.accepted.push_back(updates[k]);
    else
      all += fmt::format("{}client '{}': {}", all.empty() ? "" : "; ", updates[k].name, *result.reasons[k]);
  }
  if (result.accepted.empty())
    fail(ErrorCode::kInvalidInput, "no client's update is acceptable{}{}", all.empty() ? "" : ": ", all);
  return result;
}

}  // namespace brick::federate
