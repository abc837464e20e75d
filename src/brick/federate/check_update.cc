#include "brick/federate/check_update.h"

#define EIGEN_DONT_PARALLELIZE
#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <utility>

#include "brick/base/error.h"
#include "brick/base/parallel.h"
#include "brick/federate/placement.h"
#include "brick/kernels/linear.h"
#include "brick/kernels/vector_ops.h"

namespace brick::federate {
namespace {

using model::LoraPair;
using model::Proj;
using Reason = std::optional<std::string>;
using Targets = std::vector<std::array<bool, model::kProjCount>>;

// Squared norms of c B A and of its difference to what was sent.
struct SquaredNorms {
  double whole = 0, moved = 0;
};

using RowMajorF = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

Eigen::Map<const RowMajorF> eigen(const tensor::Tensor& t) { return {t.f32(), t.shape()[0], t.shape()[1]}; }

// ||X Y||_F^2 = sum (X^T X) (Y Y^T), with X = [c B, -d B'] and Y = [A; A']. `from` may be absent.
SquaredNorms squared_norms(const LoraPair& pair, double c, const LoraPair& from, double d) {
  const Eigen::Index own = pair.a.shape()[0], all = own + (from.present() ? from.a.shape()[0] : 0);
  Eigen::MatrixXd x(pair.b.shape()[0], all), y(pair.a.shape()[1], all);
  x.leftCols(own) = c * eigen(pair.b).cast<double>();
  y.leftCols(own) = eigen(pair.a).cast<double>().transpose();
  if (from.present()) {
    x.rightCols(all - own) = -d * eigen(from.b).cast<double>();
    y.rightCols(all - own) = eigen(from.a).cast<double>().transpose();
  }
  const Eigen::MatrixXd products = (x.transpose() * x).cwiseProduct(y.transpose() * y);
  SquaredNorms norms{products.topLeftCorner(own, own).sum(), std::max(0.0, products.sum())};
  if (!std::isfinite(norms.whole)) norms.moved = norms.whole;
  return norms;
}

std::string outline_text(const tensor::TensorView& factor) {
  return fmt::format("{} [{}]", tensor::name(factor.dtype), fmt::join(factor.shape, ", "));
}

bool is_matrix(const tensor::TensorView& factor, int64_t rows, int64_t cols) {
  return factor.dtype == tensor::DType::kF32 && factor.shape == tensor::Shape{rows, cols};
}

Reason check_weight(const ClientUpdate& update) {
  if (!std::isfinite(update.records)) return "its number of records is not finite";
  if (update.records <= 0) return fmt::format("its number of records is {}, so it has no weight", update.records);
  return std::nullopt;
}

Reason check_base(const ClientUpdate& update, const Reference& reference) {
  for (const std::string* base : {&update.config().base_fingerprint, &update.base_fingerprint})
    if (!reference.fingerprint.empty() && !base->empty() && *base != reference.fingerprint)
      return fmt::format("it was made on another base model ({:.12} instead of {:.12})", *base, reference.fingerprint);
  return std::nullopt;
}

Reason check_cut(const ClientUpdate& update, const Reference& reference) {
  const std::string& own = update.config().cut_hash;
  const std::string& block = update.placement != nullptr ? update.placement->cut_hash() : reference.cut_hash;
  if (!own.empty() && own != block)
    return fmt::format("it was made for another structured block (cut {:.12} instead of {:.12})", own,
                       block.empty() ? "none" : block);
  if (update.placement != nullptr && update.placement->layers() != static_cast<int64_t>(reference.weights.size()))
    return fmt::format("its block was cut from {} layers, the model has {}", update.placement->layers(),
                       reference.weights.size());
  return std::nullopt;
}

Reason check_mask(const ClientUpdate& update, const Reference& reference) {
  const model::LoraConfig& config = update.config();
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
Reason check_shapes(const ClientUpdate& adapter, const Reference& reference, std::string_view whose) {
  const model::LoraConfig& config = adapter.config();
  const int64_t rank = config.rank;
  if (rank < 1) return fmt::format("{} rank is {}", whose, rank);
  if (const float scale = config.scale(); !std::isfinite(scale) || scale <= 0)
    return fmt::format("{} scale (alpha {} at rank {}) is no positive number", whose, config.alpha, rank);
  const Placement* placement = adapter.placement;
  const int64_t layers =
      placement != nullptr ? placement->own_layers() : static_cast<int64_t>(reference.weights.size());
  if (adapter.own_layers() != layers)
    return fmt::format("{} adapter has {} layers, the {} {}", whose, adapter.own_layers(),
                       placement != nullptr ? "block" : "model", layers);
  bool any = false;
  for (int64_t layer = 0; layer < layers; ++layer)
    for (Proj proj : model::kProjs) {
      const int64_t parent = placement != nullptr ? placement->parent_layer(layer) : layer;
      const auto l = static_cast<size_t>(parent), p = static_cast<size_t>(proj);
      const tensor::TensorView a = adapter.own_outline(layer, proj, false), b = adapter.own_outline(layer, proj, true);
      const bool present = !a.shape.empty();
      const bool wanted = reference.targets.empty() ? present : reference.targets[l][p];
      if (present != wanted)
        return fmt::format("{} targets differ from the federation's: {} {}", whose, matrix_path(layer, proj),
                           wanted ? "is missing" : "is not among them");
      if (!wanted) continue;
      any = true;
      const MatrixShape weight = placement != nullptr
                                     ? placement->own_shape(parent, proj)
                                     : MatrixShape{reference.weights[l][p].rows, reference.weights[l][p].cols};
      if (!is_matrix(a, rank, weight.cols))
        return fmt::format("{} {}.lora_A.weight is {}, expected f32 [{}, {}]", whose, matrix_path(layer, proj),
                           outline_text(a), rank, weight.cols);
      if (!is_matrix(b, weight.rows, rank))
        return fmt::format("{} {}.lora_B.weight is {}, expected f32 [{}, {}]", whose, matrix_path(layer, proj),
                           outline_text(b), weight.rows, rank);
    }
  if (!any) return fmt::format("{} adapter has no matrices", whose);
  return std::nullopt;
}

Reason check_finite(const LoraPair& pair, int64_t layer, Proj proj) {
  for (const auto& [name, factor] : {std::pair{"A", &pair.a}, std::pair{"B", &pair.b}})
    if (!std::all_of(factor->f32(), factor->f32() + factor->size(), [](float x) { return std::isfinite(x); }))
      return fmt::format("{}.lora_{}.weight has values that are not finite", matrix_path(layer, proj), name);
  return std::nullopt;
}

Reason check_size(const SquaredNorms& squared, double norm, const UpdateLimits& limits, int64_t layer, Proj proj) {
  const double largest = std::sqrt(std::max(squared.whole, squared.moved));
  if (!std::isfinite(largest)) return fmt::format("its product of {} overflows", matrix_path(layer, proj));
  if (norm > 0 && largest > limits.of_weight * norm)
    return fmt::format("its change of {} has norm {:.3g}, more than {:g} times the weight's {:.3g}",
                       matrix_path(layer, proj), largest, limits.of_weight, norm);
  return std::nullopt;
}

SquaredNorms squared_norms(const ClientUpdate& update, const LoraPair& pair, int64_t layer, Proj proj) {
  LoraPair part;  // absent where nothing was sent
  if (update.sent == nullptr) return squared_norms(pair, update.config().scale(), part, 0.0);
  const LoraPair& from = update.sent_of(update.sent->at(layer, proj), layer, proj, part);
  return squared_norms(pair, update.config().scale(), from, update.sent->config.scale());
}

// Reads it once, matrix by matrix.
Reason check_values(const ClientUpdate& update, const Reference& reference, const UpdateLimits& limits, double& norm) {
  Reason reason;
  double moved = 0;
  for_each_target(update, [&](int64_t layer, Proj proj, int64_t, int64_t) {
    if (reason) return;
    const LoraPair pair = update.pair(layer, proj);
    if ((reason = check_finite(pair, layer, proj))) return;
    const SquaredNorms squared = squared_norms(update, pair, layer, proj);
    const Reference::Weight& weight = reference.weights[static_cast<size_t>(layer)][static_cast<size_t>(proj)];
    reason = check_size(squared, weight.norm, limits, layer, proj);
    moved += squared.moved;
  });
  norm = reason ? 0.0 : std::sqrt(moved);
  return reason;
}

Reason check_update(const ClientUpdate& update, const Reference& reference, const UpdateLimits& limits, double& norm) {
  norm = 0;
  if (!update.returned()) return "it returned no adapter";
  if (Reason reason = check_weight(update)) return reason;
  if (Reason reason = check_base(update, reference)) return reason;
  if (Reason reason = check_cut(update, reference)) return reason;
  if (Reason reason = check_mask(update, reference)) return reason;
  if (Reason reason = check_shapes(update, reference, "its")) return reason;
  if (update.sent != nullptr) {
    ClientUpdate start;
    start.adapter = update.sent;
    if (Reason reason = check_shapes(start, reference, "its start's")) return reason;
    if (update.sent->config.rank != update.config().rank)
      return fmt::format("it was sent rank {} and returned rank {}", update.sent->config.rank, update.config().rank);
  }
  return check_values(update, reference, limits, norm);
}

double frobenius_norm(const tensor::Matrix& weight) {
  const int64_t piece = kernels::rows_a_piece(weight), cols = weight.cols();
  std::vector<float> rows(static_cast<size_t>(piece * cols));
  double squares = 0;
  for (int64_t begin = 0; begin < weight.rows(); begin += piece) {
    const int64_t end = std::min(begin + piece, weight.rows());
    kernels::expand_rows(weight, begin, end, rows.data());
    for (int64_t i = 0; i < end - begin; ++i)
      squares += kernels::sum_squares(&rows[static_cast<size_t>(i * cols)], cols);
  }
  return std::sqrt(squares);
}

Targets targets_of(const ClientUpdate& update) {
  Targets targets(static_cast<size_t>(update.layers()));
  for_each_target(update, [&](int64_t layer, Proj proj, int64_t, int64_t) {
    targets[static_cast<size_t>(layer)][static_cast<size_t>(proj)] = true;
  });
  return targets;
}

Targets commonest_targets(std::span<const ClientUpdate> updates, size_t layers) {
  std::vector<std::pair<Targets, int>> counts;
  for (const ClientUpdate& update : updates) {
    if (!update.returned() || update.layers() != static_cast<int64_t>(layers)) continue;
    Targets targets = targets_of(update);
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
  reference.cut_hash = model::cut_hash(parent);
  reference.weights.resize(parent.layers.size());
  parallel_try(static_cast<int64_t>(parent.layers.size()), [&](int64_t layer) {
    const auto l = static_cast<size_t>(layer);
    for (Proj proj : model::kProjs) {
      const tensor::Matrix& weight = parent.layers[l][proj];
      reference.weights[l][static_cast<size_t>(proj)] = {weight.rows(), weight.cols(), frobenius_norm(weight)};
    }
  });
  if (like != nullptr) {
    ClientUpdate update;
    update.adapter = like;
    reference.targets = targets_of(update);
  }
  return reference;
}

Reason reject_reason(const ClientUpdate& update, const Reference& reference, const UpdateLimits& limits) {
  double norm = 0;
  return check_update(update, reference, limits, norm);
}

double update_norm(const ClientUpdate& update) {
  double total = 0;
  for_each_target(update, [&](int64_t layer, Proj proj, int64_t, int64_t) {
    total += squared_norms(update, update.pair(layer, proj), layer, proj).moved;
  });
  return std::sqrt(total);
}

Review review(std::span<const ClientUpdate> updates, const Reference& reference, const UpdateLimits& limits) {
  Reference common = reference;
  if (common.targets.empty()) common.targets = commonest_targets(updates, common.weights.size());
  if (common.targets.size() != common.weights.size()) common.targets.clear();
  Review result;
  result.reasons.resize(updates.size());
  result.norms.resize(updates.size());
  parallel_try(static_cast<int64_t>(updates.size()), [&](int64_t i) {
    const auto k = static_cast<size_t>(i);
    result.reasons[k] = check_update(updates[k], common, limits, result.norms[k]);
  });
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
