#include "brick/prune/prune.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <nlohmann/json.hpp>

#include "brick/base/error.h"
#include "brick/base/process.h"
#include "brick/io/json_file.h"
#include "brick/io/provenance.h"
#include "brick/model/save_parts.h"
#include "brick/prune/level_pruner.h"
#include "brick/prune/owl.h"
#include "brick/prune/structured.h"

namespace brick::prune {
namespace {

using model::Proj;

void check_ranges(const PruneConfig& config, const Pattern& pattern) {
  if (!(config.damping >= 0) || !std::isfinite(config.damping))
    fail(ErrorCode::kInvalidInput, "damping {}: expected a share of the mean diagonal, 0 or more", config.damping);
  if (config.block_columns < 1 || config.piece_tokens < 1)
    fail(ErrorCode::kInvalidInput, "block_columns {} and piece_tokens {} must be 1 or more", config.block_columns,
         config.piece_tokens);
  if (config.dsnot_skip != "mlp" && config.dsnot_skip != "attention" && config.dsnot_skip != "none")
    fail(ErrorCode::kInvalidInput, "dsnot_skip '{}': expected mlp, attention or none", config.dsnot_skip);
  if (!(config.owl_outlier > 0) || !std::isfinite(config.owl_outlier) || !(config.owl_spread >= 0) ||
      !(config.owl_spread < 1))
    fail(ErrorCode::kInvalidInput, "owl_outlier {} must be above 0 and owl_spread {} a share", config.owl_outlier,
         config.owl_spread);
  if (config.refit_steps < 0 || config.descent_epochs < 0 || config.descent_batch < 1 || !(config.descent_rate >= 0) ||
      !std::isfinite(config.descent_rate))
    fail(ErrorCode::kInvalidInput,
         "refit_steps {}, descent_epochs {} and descent_rate {} must be 0 or more, descent_batch {} 1 or more",
         config.refit_steps, config.descent_epochs, config.descent_rate, config.descent_batch);
  if (!(config.regional_scale >= 0) || !std::isfinite(config.regional_scale) || config.regional_rounds < 0 ||
      config.regional_samples < 1 || !(config.regional_rate >= 0) || !std::isfinite(config.regional_rate))
    fail(ErrorCode::kInvalidInput,
         "regional_scale {}, regional_rounds {} and regional_rate {} must be 0 or more, regional_samples {} 1 or more",
         config.regional_scale, config.regional_rounds, config.regional_rate, config.regional_samples);
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

void check_mixed(const PruneConfig& config, const Recipe& recipe, std::span<const double> sparsities) {
  if (recipe.structured->needs(config).narrows)
    fail(ErrorCode::kUnsupported,
         "{}: {} narrows the residual stream, so that its values are also those of the embedding; prune twice, first "
         "by {} alone with the values that these shall have",
         config.method, recipe.structured->name, recipe.structured->name);
  if (!(config.structured_sparsity > 0 && config.structured_sparsity < 1))
    fail(ErrorCode::kInvalidInput,
         "{}: structured_sparsity {}: expected the share that {} cuts out, above 0 and below 1; sparsity is of what "
         "that leaves",
         config.method, config.structured_sparsity, recipe.structured->name);
  if (std::ranges::find(sparsities, 0.0) != sparsities.end())
    fail(ErrorCode::kInvalidInput, "{}: sparsity 0 masks nothing; {} by itself makes that block", config.method,
         recipe.structured->name);
}

// Of the method that masks.
void check_values(const model::Model& parent, const PruneConfig& config, const Recipe& recipe) {
  for (size_t layer = 0; layer < parent.layers.size(); ++layer)
    for (const Proj proj : model::kProjs)
      choose_storage(config.values, parent.layers[layer][proj], recipe.keeps_values(),
                     model::weight_name(static_cast<int64_t>(layer), proj));
}

void check_patterns(const model::Model& parent, const Pattern& pattern) {
  for (size_t layer = 0; layer < parent.layers.size(); ++layer) {
    for (const Proj proj : model::kProjs) {
      const tensor::Matrix& weight = parent.layers[layer][proj];
      MatrixProblem problem;
      problem.name = model::weight_name(static_cast<int64_t>(layer), proj);
      problem.weight = {nullptr, weight.rows(), weight.cols()};
      problem.pattern = pattern;
      check_groups(problem);
    }
  }
}

void check_cuts(const model::Model& parent, std::span<const double> sparsities, PruneConfig config,
                const StructuredMethod& method) {
  check_structures(method.needs(config), parent, config);
  if (method.check == nullptr) return;
  for (const double sparsity : sparsities) {
    config.sparsity = sparsity;
    if (sparsity > 0) method.check(parent, config);
  }
}

// What a method that cuts and masks does first.
PruneConfig cutting_part(const PruneConfig& config, const Recipe& recipe) {
  PruneConfig cutting = config;
  cutting.method = recipe.structured->name;
  cutting.sparsity = config.structured_sparsity;
  cutting.pattern = name(Pattern{});
  cutting.true_sequential = false;
  if (config.values != "keep") cutting.values = "f32";
  return cutting;
}

int64_t widest_input(const model::Model& model) {
  int64_t widest = 0;
  for (const model::Layer& layer : model.layers)
    for (const tensor::Matrix& weight : layer.projections) widest = std::max(widest, weight.cols());
  return widest;
}

void require_text(const Calibration& calibration, const std::string& method) {
  if (calibration.tokens() == 0)
    fail(ErrorCode::kInvalidInput,
         "{} needs calibration text and there is none: give --calibration TEXT (or .npy of ids), or use "
         "magnitude",
         method);
}

// A note where the text is short, none where it suffices.
std::string check_calibration(const Family& family) {
  if (!family.recipe.needs_calibration()) return {};
  const int64_t tokens = family.calibration.tokens(), widest = widest_input(family.parent);
  if (tokens >= widest) return {};
  return fmt::format(
      "{} calibration tokens are fewer than the widest input, {}: the statistics are poor; give more text", tokens,
      widest);
}

// The fields of those names.
nlohmann::json named_settings(PruneConfig config, std::span<const std::string_view> names) {
  nlohmann::json settings = nlohmann::json::object();
  config.fields([&](std::string_view name, const auto& value, std::string_view) {
    if (std::ranges::find(names, name) != names.end()) settings[std::string(name)] = value;
  });
  return settings;
}

nlohmann::json masking_settings(const Recipe& recipe, const PruneConfig& config, const PruneReport& report) {
  nlohmann::json settings = named_settings(config, recipe.method->settings);
  settings["pattern"] = config.pattern;
  settings["piece_tokens"] = config.piece_tokens;
  if (config.true_sequential) settings["true_sequential"] = true;
  if (recipe.owl)
    settings["owl"] = {
        {"outlier", config.owl_outlier}, {"spread", config.owl_spread}, {"layer_sparsities", report.layer_sparsities}};
  if (recipe.method->prune_layer != nullptr)
    settings["regional"] = {{"scale", config.regional_scale},
                            {"rounds", config.regional_rounds},
                            {"samples", config.regional_samples},
                            {"rate", config.regional_rate}};
  if (recipe.reconstruct) settings["damping"] = config.damping;
  if (recipe.reconstruct)
    settings["reconstruct"] = {{"refit_steps", config.refit_steps},
                               {"descent_epochs", config.descent_epochs},
                               {"descent_batch", config.descent_batch},
                               {"descent_rate", config.descent_rate}};
  return settings;
}

// "flap+wanda" of a block that a structured method made before or makes now.
std::string whole_method(const model::Model& parent, const PruneConfig& config, const Recipe& recipe) {
  const std::string& before = parent.block.method;
  const bool cut_before = parent.block.cut || std::ranges::any_of(structured_methods(), [&](const auto& method) {
                            return before.find(method.name) != std::string::npos;
                          });
  const bool mixed = !before.empty() && (cut_before || recipe.structured != nullptr);
  return mixed ? before + "+" + config.method : config.method;
}

model::BlockSpec describe(const model::Model& parent, const PruneConfig& config, const Recipe& recipe,
                          const Calibration& calibration, double sparsity, const model::Model& block,
                          const PruneReport& report) {
  nlohmann::json settings = recipe.structured != nullptr ? named_settings(config, recipe.structured->settings(config))
                                                         : masking_settings(recipe, config, report);
  settings["model"] = model::model_name(parent);
  settings["method"] = config.method;
  settings["sparsity"] = sparsity;
  settings["values"] = config.values;
  if (calibration.tokens() > 0)
    settings["calibration"] = {
        {"sha256", calibration.hash()}, {"tokens", calibration.tokens()}, {"windows", calibration.sequences().size()}};
  if (!parent.block.provenance.empty()) settings["pruned_before"] = parent.block.provenance;
  model::BlockSpec spec;
  spec.method = whole_method(parent, config, recipe);
  spec.pattern = recipe.structured != nullptr ? "structured" : config.pattern;
  spec.sparsity = sparsity;
  spec.values = sparsity > 0 ? config.values : "keep";
  spec.parent = model::fingerprint(parent);
  spec.mask_hash = model::mask_hash(block);
  spec.cut = block.block.cut;
  spec.provenance =
      nlohmann::json(io::Provenance{config.tool_version, spec.parent, io::compact_json(settings), config.seed}).dump();
  return spec;
}

struct Level {
  model::Model block;  // its BlockSpec has the cut alone
  PruneReport report;
};

std::vector<Level> cut_levels(const StructureProblem& problem, const StructuredMethod& method) {
  constexpr double kNear = 0.01;
  const StructureNeeds needs = method.needs(problem.config);
  const Stopwatch watch;
  std::vector<Level> levels;
  std::vector<model::Model> blocks = method.prune(problem);
  for (size_t i = 0; i < blocks.size(); ++i) {
    Level& level = levels.emplace_back(Level{std::move(blocks[i]), {}});
    PruneReport& report = level.report;
    report.calibration_tokens = problem.calibration.tokens();
    report.sparsity = 1 - static_cast<double>(level.block.linear_parameters()) /
                              static_cast<double>(problem.parent.linear_parameters());
    report.seconds = watch.seconds();
    if (std::fabs(report.sparsity - problem.sparsities[i]) > kNear)
      report.notes.push_back(
          fmt::format("{} removed {:.1f} % of the linear weights instead of {:.1f} %: it takes whole {}", method.name,
                      100 * report.sparsity, 100 * problem.sparsities[i], needs.unit));
    if (level.block.parameters() > problem.parent.parameters())
      report.notes.push_back(fmt::format(
          "{} made a block of {} parameters, more than the model's {}: its head no longer is the embedding; "
          "ask for a higher sparsity",
          method.name, level.block.parameters(), problem.parent.parameters()));
    for (const std::string& note : report.notes) problem.sink.warn(note);
  }
  return levels;
}

std::vector<Level> mask_levels(Family& family, std::span<const double> sparsities) {
  const std::string note = check_calibration(family);
  if (!note.empty()) family.sink.warn(note);
  if (family.recipe.owl)
    family.outlier_shares =
        outlier_shares(family.parent, family.calibration, family.config.owl_outlier, family.context, family.sink);
  std::vector<Level> levels;
  family.levels_left = static_cast<int64_t>(sparsities.size());
  for (const double sparsity : sparsities) {
    PruneReport report;
    if (!note.empty()) report.notes.push_back(note);
    --family.levels_left;
    model::Model block = LevelPruner(family, sparsity).run(report);
    levels.push_back({std::move(block), std::move(report)});
  }
  return levels;
}

// What prune_family() promises of a method that cuts and masks.
std::vector<model::Model> cut_and_mask(const model::Model& parent, std::span<const std::span<const int32_t>> windows,
                                       std::span<const double> sparsities, const PruneConfig& config,
                                       const Recipe& recipe, kernels::Context& context, ProgressSink& sink,
                                       std::vector<PruneReport>* reports) {
  const PruneConfig cutting = cutting_part(config, recipe);
  PruneConfig masking = config;
  masking.method = config.method.substr(cutting.method.size() + 1);

  PruneReport first;
  const model::Model cut = prune(parent, windows, cutting, context, sink, &first);
  std::vector<model::Model> blocks = prune_family(cut, windows, sparsities, masking, context, sink, reports);
  if (reports != nullptr)
    for (PruneReport& report : *reports) {
      report.sparsity = 1 - (1 - first.sparsity) * (1 - report.sparsity);
      report.calibration_tokens = std::max(report.calibration_tokens, first.calibration_tokens);
      report.notes.insert(report.notes.begin(), first.notes.begin(), first.notes.end());
      report.seconds += first.seconds;
    }
  return blocks;
}

}  // namespace

bool needs_calibration(const PruneConfig& config) {
  const Recipe recipe = parse_recipe(config.method);
  return (recipe.structured != nullptr && recipe.structured->needs(config).text) ||
         (recipe.method != nullptr && recipe.needs_calibration());
}

void check_settings(const PruneConfig& config, std::span<const double> sparsities) {
  const Recipe recipe = parse_recipe(config.method);
  const Pattern pattern = parse_pattern(config.pattern);
  check_ranges(config, pattern);
  if ((recipe.owl || recipe.method == nullptr) && !pattern.unstructured())
    fail(ErrorCode::kInvalidInput, "{}: pattern {} leaves no choice of {}", config.method, name(pattern),
         recipe.owl ? "the layers' sparsities" : "structures");
  if (config.true_sequential && (recipe.method == nullptr || recipe.takes_layers()))
    fail(ErrorCode::kInvalidInput, "{}: true_sequential is for methods that prune one weight after the other",
         config.method);
  for (const double sparsity : sparsities) check_sparsity(sparsity, pattern);
  if (recipe.structured != nullptr) recipe.structured->needs(config);
  if (recipe.mixed()) check_mixed(config, recipe, sparsities);
}

void check_parent(const model::Model& parent, std::span<const double> sparsities, const PruneConfig& config) {
  const Recipe recipe = parse_recipe(config.method);
  if (std::ranges::all_of(sparsities, [](double sparsity) { return sparsity == 0; })) return;
  if (recipe.method != nullptr) check_values(parent, config, recipe);
  if (recipe.mixed())
    check_cuts(parent, std::span(&config.structured_sparsity, 1), cutting_part(config, recipe), *recipe.structured);
  else if (recipe.structured != nullptr)
    check_cuts(parent, sparsities, config, *recipe.structured);
  else
    check_patterns(parent, parse_pattern(config.pattern));
}

std::vector<model::Model> prune_family(const model::Model& parent, std::span<const std::span<const int32_t>> windows,
                                       std::span<const double> sparsities, const PruneConfig& config,
                                       kernels::Context& context, ProgressSink& sink,
                                       std::vector<PruneReport>* reports) {
  check_settings(config, sparsities);
  check_parent(parent, sparsities, config);
  const Recipe recipe = parse_recipe(config.method);
  if (recipe.mixed()) return cut_and_mask(parent, windows, sparsities, config, recipe, context, sink, reports);
  const bool calibrated = needs_calibration(config);
  const Calibration calibration(calibrated ? windows : std::span<const std::span<const int32_t>>(),
                                config.piece_tokens);
  std::vector<double> asked;
  std::copy_if(sparsities.begin(), sparsities.end(), std::back_inserter(asked), [](double s) { return s > 0; });
  if (calibrated && !asked.empty()) require_text(calibration, config.method);

  std::vector<Level> levels;
  if (!asked.empty() && recipe.structured != nullptr) {
    levels = cut_levels({parent, calibration, asked, config, context, sink}, *recipe.structured);
  } else if (!asked.empty()) {
    Family family{parent, config, recipe, parse_pattern(config.pattern), calibration, context, sink, 0, {}, {}};
    levels = mask_levels(family, asked);
  }

  std::vector<model::Model> blocks;
  if (reports != nullptr) reports->clear();
  size_t next = 0;
  for (const double sparsity : sparsities) {
    Level level = sparsity > 0 ? std::move(levels[next++]) : Level{parent, {}};
    level.block.block = describe(parent, config, recipe, calibration, sparsity, level.block, level.report);
    blocks.push_back(std::move(level.block));
    if (reports != nullptr) reports->push_back(std::move(level.report));
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
