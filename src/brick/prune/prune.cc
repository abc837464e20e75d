#include "brick/prune/prune.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "brick/base/error.h"
#include "brick/io/json_file.h"
#include "brick/io/provenance.h"
#include "brick/model/save_parts.h"
#include "brick/prune/level_pruner.h"
#include "brick/prune/owl.h"

namespace brick::prune {
namespace {

using model::Proj;

// Settings that nothing later would catch before minutes have gone.
void check_settings(const PruneConfig& config, const Pattern& pattern) {
  if (!(config.damping >= 0) || !std::isfinite(config.damping))
    fail(ErrorCode::kInvalidInput, "damping {}: expected a share of the mean diagonal, 0 or more", config.damping);
  if (config.block_columns < 1 || config.piece_tokens < 1)
    fail(ErrorCode::kInvalidInput, "block_columns {} and piece_tokens {} must be 1 or more", config.block_columns,
         config.piece_tokens);
  if (!(config.owl_outlier > 0) || !std::isfinite(config.owl_outlier) || !(config.owl_spread >= 0) ||
      !(config.owl_spread < 1))
    fail(ErrorCode::kInvalidInput, "owl_outlier {} must be above 0 and owl_spread {} a share", config.owl_outlier,
         config.owl_spread);
  if (config.refit_steps < 0 || config.descent_epochs < 0 || config.descent_batch < 1 || !(config.descent_rate >= 0) ||
      !std::isfinite(config.descent_rate))
    fail(ErrorCode::kInvalidInput,
         "refit_steps {}, descent_epochs {} and descent_rate {} must be 0 or more, descent_batch {} 1 or more",
         config.refit_steps, config.descent_epochs, config.descent_rate, config.descent_batch);
  if (!pattern.unstructured() && config.block_columns % pattern.group != 0)
    fail(ErrorCode::kInvalidInput, "block_columns {} is no multiple of {}, as pattern {} asks", config.block_columns,
         pattern.group, name(pattern));
}

void check_sparsity(double sparsity, const Pattern& pattern) {
  constexpr double kSlack = 1e-6;  // 1:3 written as 0.3333333
  if (!(sparsity >= 0 && sparsity < 1))
    fail(ErrorCode::kInvalidInput, "sparsity {}: expected a share from 0 to below 1", sparsity);
  if (sparsity > 0 && !pattern.unstructured() && std::fabs(sparsity - pattern.sparsity()) > kSlack)
    fail(ErrorCode::kInvalidInput, "sparsity {}: pattern {} removes {:g}; ask for that or for 'unstructured'", sparsity,
         name(pattern), pattern.sparsity());
}

void check_weights(const Family& family) {
  const auto layers = static_cast<int64_t>(family.parent.layers.size());
  for (int64_t layer = 0; layer < layers; ++layer) {
    for (const Proj proj : model::kProjs) {
      const tensor::Matrix& weight = family.parent.layers[static_cast<size_t>(layer)][proj];
      const std::string weight_name = family.name(layer, proj);
      choose_storage(family.config.values, weight, family.recipe.keeps_values(), weight_name);
      MatrixProblem problem;
      problem.name = weight_name;
      problem.weight = {nullptr, weight.rows(), weight.cols()};
      problem.pattern = family.pattern;
      check_groups(problem);
    }
  }
}

int64_t widest_input(const model::Model& model) {
  int64_t widest = 0;
  for (const model::Layer& layer : model.layers)
    for (const tensor::Matrix& weight : layer.projections) widest = std::max(widest, weight.cols());
  return widest;
}

// A note where the text is short, none where it suffices.
std::string check_calibration(const Family& family) {
  if (!family.recipe.needs_calibration()) return {};
  const int64_t tokens = family.calibration.tokens(), widest = widest_input(family.parent);
  if (tokens == 0)
    fail(ErrorCode::kInvalidInput,
         "{} needs calibration text and there is none: give --calibration TEXT (or .npy of ids), or use "
         "magnitude",
         family.config.method);
  if (tokens >= widest) return {};
  return fmt::format(
      "{} calibration tokens are fewer than the widest input, {}: the statistics are poor; give more text", tokens,
      widest);
}

model::BlockSpec describe(const Family& family, double sparsity, const model::Model& block, const PruneReport& report) {
  const PruneConfig& config = family.config;
  nlohmann::json settings = {{"model", model::model_name(family.parent)},
                             {"method", config.method},
                             {"sparsity", sparsity},
                             {"pattern", config.pattern},
                             {"values", config.values},
                             {"damping", config.damping},
                             {"block_columns", config.block_columns},
                             {"piece_tokens", config.piece_tokens}};
  if (family.recipe.needs_calibration())
    settings["calibration"] = {{"sha256", family.calibration.hash()}, {"tokens", family.calibration.tokens()}};
  if (family.recipe.owl)
    settings["owl"] = {
        {"outlier", config.owl_outlier}, {"spread", config.owl_spread}, {"layer_sparsities", report.layer_sparsities}};
  if (family.recipe.reconstruct)
    settings["reconstruct"] = {{"refit_steps", config.refit_steps},
                               {"descent_epochs", config.descent_epochs},
                               {"descent_batch", config.descent_batch},
                               {"descent_rate", config.descent_rate}};
  model::BlockSpec spec;
  spec.method = config.method;
  spec.pattern = config.pattern;
  spec.sparsity = sparsity;
  spec.values = sparsity > 0 ? config.values : "keep";
  spec.parent = model::fingerprint(family.parent);
  spec.mask_hash = model::mask_hash(block);
  spec.provenance =
      nlohmann::json(io::Provenance{config.tool_version, spec.parent, io::compact_json(settings), config.seed}).dump();
  return spec;
}

}  // namespace

std::vector<model::Model> prune_family(const model::Model& parent, std::span<const std::span<const int32_t>> windows,
                                       std::span<const double> sparsities, const PruneConfig& config,
                                       kernels::Context& context, ProgressSink& sink,
                                       std::vector<PruneReport>* reports) {
  const Recipe recipe = parse_recipe(config.method);
  const Pattern pattern = parse_pattern(config.pattern);
  check_settings(config, pattern);
  if (recipe.owl && !pattern.unstructured())
    fail(ErrorCode::kInvalidInput, "{}: pattern {} leaves no choice of the layers' sparsities", config.method,
         name(pattern));
  for (const double sparsity : sparsities) check_sparsity(sparsity, pattern);
  const Calibration calibration(recipe.needs_calibration() ? windows : std::span<const std::span<const int32_t>>(),
                                config.piece_tokens);
  Family family{parent, config, recipe, pattern, calibration, context, sink, 0, {}, {}};
  for (const double sparsity : sparsities) family.levels_left += sparsity > 0 ? 1 : 0;
  std::string note;
  if (family.levels_left > 0) {
    check_weights(family);
    note = check_calibration(family);
    if (!note.empty()) sink.warn(note);
    if (recipe.owl) family.outlier_shares = outlier_shares(parent, calibration, config.owl_outlier, context, sink);
  }

  std::vector<model::Model> blocks;
  if (reports != nullptr) reports->clear();
  for (const double sparsity : sparsities) {
    PruneReport report;
    if (sparsity > 0) {
      if (!note.empty()) report.notes.push_back(note);
      --family.levels_left;
      blocks.push_back(LevelPruner(family, sparsity).run(report));
    } else {
      blocks.push_back(parent);
    }
    blocks.back().block = describe(family, sparsity, blocks.back(), report);
    if (reports != nullptr) reports->push_back(std::move(report));
  }
  return blocks;
}

model::Model prune(const model::Model& parent, std::span<const std::span<const int32_t>> windows,
                   const PruneConfig& config, kernels::Context& context, ProgressSink& sink, PruneReport* report) {
  std::vector<PruneReport> reports;
  std::vector<model::Model> blocks =
      prune_family(parent, windows, std::span(&config.sparsity, 1), config, context, sink, &reports);
  if (report != nullptr) *report = std::move(reports.front());
  return std::move(blocks.front());
}

}  // namespace brick::prune
