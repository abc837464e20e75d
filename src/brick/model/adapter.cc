#include "brick/model/adapter.h"

#include <algorithm>
#include <cmath>
#include <regex>

#include "brick/base/error.h"

namespace brick::model {
namespace {

constexpr int64_t kLargestRank = 1 << 16;
constexpr size_t kLongestTargets = 1000;  // std::regex recurses
// Layers whose paths a regular expression is tried on: enough to see that it picks some.
constexpr int64_t kTriedLayers = 128;

std::vector<std::string> split(const std::string& list) {
  std::vector<std::string> parts(1);
  for (char c : list) {
    if (c == ',')
      parts.emplace_back();
    else if (c != ' ')
      parts.back() += c;
  }
  return parts;
}

std::vector<Proj> in_order(std::vector<Proj> targets) {
  std::sort(targets.begin(), targets.end());
  targets.erase(std::unique(targets.begin(), targets.end()), targets.end());
  return targets;
}

// Whether the expression matches the matrix; an Error where it does in some layers only.
bool matches(const std::regex& expression, const std::string& targets, Proj proj) {
  for (std::string_view whole : {name(proj), module_path(proj)})
    if (std::regex_match(whole.begin(), whole.end(), expression)) return true;
  int64_t count = 0;
  for (int64_t layer = 0; layer < kTriedLayers; ++layer)
    count += std::regex_match(fmt::format("model.layers.{}.{}", layer, module_path(proj)), expression) ? 1 : 0;
  if (count != 0 && count != kTriedLayers)
    fail(ErrorCode::kUnsupported, "targets '{}' match {} in some layers only; an adapter has the same in all", targets,
         name(proj));
  return count != 0;
}

std::string shape_text(const tensor::Tensor& t) {
  return t.shape().size() == 2 ? fmt::format("{} x {}", t.shape()[0], t.shape()[1])
                               : fmt::format("{} dimensions", t.shape().size());
}

bool has_shape(const tensor::Tensor& t, int64_t rows, int64_t cols) { return t.shape() == tensor::Shape{rows, cols}; }

void check_config(const LoraConfig& config) {
  if (config.rank <= 0 || config.rank > kLargestRank)
    fail(ErrorCode::kInvalidInput, "LoRA rank {} is not in 1..{}", config.rank, kLargestRank);
  if (!(config.alpha > 0) || !std::isfinite(config.alpha))
    fail(ErrorCode::kInvalidInput, "LoRA alpha {} is not positive", config.alpha);
  if (!(config.dropout >= 0) || config.dropout >= 1)
    fail(ErrorCode::kInvalidInput, "LoRA dropout {} is not in [0, 1)", config.dropout);
  if (config.targets.empty()) fail(ErrorCode::kInvalidInput, "LoRA without targets");
}

LoraPair empty_like(const LoraPair& pair) {
  if (!pair.present()) return {};
  return {tensor::Tensor(pair.a.dtype(), pair.a.shape()), tensor::Tensor(pair.b.dtype(), pair.b.shape())};
}

}  // namespace

float LoraConfig::scale() const {
  const auto r = static_cast<double>(rank);
  return static_cast<float>(alpha / (rslora ? std::sqrt(r) : r));
}

int64_t Adapter::parameters() const {
  int64_t count = 0;
  for_each_pair(*this, [&](int64_t, Proj, const LoraPair& pair) { count += pair.a.size() + pair.b.size(); });
  return count;
}

Adapter Adapter::clone() const {
  Adapter copy;
  copy.config = config;
  copy.layers.resize(layers.size());
  for_each_pair(*this, [&](int64_t layer, Proj proj, const LoraPair& pair) {
    copy.at(layer, proj) = {pair.a.clone(), pair.b.clone()};
  });
  return copy;
}

std::vector<Proj> parse_targets(const std::string& targets) {
  if (targets == "all" || targets == "all-linear") return {kProjs.begin(), kProjs.end()};
  std::vector<Proj> found;
  const std::vector<std::string> parts = split(targets);
  for (const std::string& part : parts)
    if (const std::optional<Proj> proj = find_proj(part)) found.push_back(*proj);
  if (found.size() == parts.size()) return in_order(found);
  if (targets.size() > kLongestTargets)
    fail(ErrorCode::kInvalidInput, "targets are {} characters, more than the {} that a regular expression may have",
         targets.size(), kLongestTargets);

  found.clear();
  try {
    const std::regex expression(targets, std::regex::ECMAScript);
    for (Proj proj : kProjs)
      if (matches(expression, targets, proj)) found.push_back(proj);
  } catch (const std::regex_error& e) {
    fail(ErrorCode::kInvalidInput, "targets '{}' are no regular expression: {}", targets, e.what());
  }
  if (found.empty())
    fail(ErrorCode::kInvalidInput,
         "targets '{}' match nothing: expected all, names out of q_proj, k_proj, v_proj, o_proj, gate_proj, "
         "up_proj, "
         "down_proj, or a regular expression that matches a whole name or path",
         targets);
  return found;
}

Adapter make_adapter(const Model& model, LoraConfig config, uint64_t seed) {
  check_config(config);
  config.targets = in_order(std::move(config.targets));
  config.base_fingerprint = fingerprint(model);
  config.cut_hash = cut_hash(model);
  config.mask_hash = config.masked ? mask_hash(model) : std::string();
  if (config.masked && config.mask_hash.empty())
    fail(ErrorCode::kMismatch, "{}: a masked adapter needs a block, but no weight of this model is masked",
         model.source.empty() ? "model" : model.source);
  Adapter adapter;
  adapter.config = std::move(config);
  adapter.layers.resize(model.layers.size());
  for (size_t i = 0; i < model.layers.size(); ++i) {
    for (Proj proj : adapter.config.targets) {
      const tensor::Matrix& weight = model.layers[i][proj];
      LoraPair& pair = adapter.layers[i][static_cast<size_t>(proj)];
      pair.a = tensor::matrix(adapter.config.rank, weight.cols());
      pair.b = tensor::matrix(weight.rows(), adapter.config.rank);
      const double bound = 1.0 / std::sqrt(static_cast<double>(weight.cols()));
      Rng rng(seed, stream_id({i, static_cast<uint64_t>(proj)}));
      for (int64_t k = 0; k < pair.a.size(); ++k)
        pair.a.f32()[k] = static_cast<float>(bound * (2.0 * rng.uniform() - 1.0));
    }
  }
  return adapter;
}

Adapter zeros_like(const Adapter& adapter) {
  Adapter zeros;
  zeros.config = adapter.config;
  zeros.layers.resize(adapter.layers.size());
  for_each_pair(adapter,
                [&](int64_t layer, Proj proj, const LoraPair& pair) { zeros.at(layer, proj) = empty_like(pair); });
  return zeros;
}

void check_fits(const Adapter& adapter, const Model& model) {
  if (!adapter.config.cut_hash.empty() && adapter.config.cut_hash != cut_hash(model))
    fail(ErrorCode::kMismatch, "the adapter belongs to the structured block with cut {}, but this model's is {}",
         adapter.config.cut_hash.substr(0, 12), model.block.cut ? cut_hash(model).substr(0, 12) : "none");
  if (adapter.layers.size() != model.layers.size())
    fail(ErrorCode::kMismatch, "the adapter has {} layers, but the model has {}", adapter.layers.size(),
         model.layers.size());
  const int64_t rank = adapter.config.rank;
  for_each_pair(adapter, [&](int64_t layer, Proj proj, const LoraPair& pair) {
    const tensor::Matrix& weight = model.layers[static_cast<size_t>(layer)][proj];
    if (!has_shape(pair.a, rank, weight.cols()) || !has_shape(pair.b, weight.rows(), rank))
      fail(ErrorCode::kMismatch, "{} is {} x {}, which an adapter of rank {} with A {} and B {} does not fit",
           weight_name(layer, proj), weight.rows(), weight.cols(), rank, shape_text(pair.a), shape_text(pair.b));
  });
  if (!adapter.config.masked) return;
  const std::string own = mask_hash(model);
  if (own == adapter.config.mask_hash && !own.empty()) return;
  const std::string wanted = adapter.config.mask_hash.substr(0, 12);
  if (own.empty())
    fail(ErrorCode::kMismatch,
         "the adapter is masked: it belongs to the block with mask {} alone, but this model has no mask", wanted);
  fail(ErrorCode::kMismatch, "the adapter is masked: it belongs to the block with mask {}, but this block's is {}",
       wanted, own.substr(0, 12));
}

}  // namespace brick::model
