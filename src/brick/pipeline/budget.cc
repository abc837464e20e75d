#include "brick/pipeline/budget.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "brick/base/error.h"
#include "brick/io/json_file.h"
#include "brick/model/block_format.h"
#include "brick/model/model_card.h"
#include "brick/prune/registry.h"
#include "brick/prune/selection.h"
#include "brick/prune/stored_values.h"
#include "brick/prune/structured.h"
#include "brick/text/tokenizer_spec.h"

namespace brick::pipeline {
namespace {

constexpr int kSteps = 1000, kMostSteps = 950;  // beyond 0.95 nothing of a model is left
constexpr int64_t kHeaderEntry = 80;            // of a tensor in the header of safetensors, beside its name
constexpr int64_t kProvenance = 1000;           // what config.json and README.md say of a block but not of its parent
constexpr int64_t kCutLayer = 200;              // what config.json says of a structured block's layer
constexpr const char *kUnstructured = DecodeProfile::kUnstructured, *kStructured = DecodeProfile::kStructured;

std::string without_spaces(const std::string& text) {
  std::string out;
  for (const char c : text)
    if (c != ' ') out += c;
  return out;
}

// Kept weights of a row on average.
double kept_a_row(const tensor::Matrix& weight, const prune::Method& method, const prune::Pattern& pattern,
                  double sparsity) {
  const int64_t rows = weight.rows(), cols = weight.cols();
  if (!pattern.unstructured()) {
    const int64_t kept = cols / pattern.group * (pattern.group - pattern.drop);
    return static_cast<double>(kept);
  }
  if (method.even_rows) return static_cast<double>(cols - prune::share_of(cols, sparsity));
  return static_cast<double>(rows * cols - prune::share_of(rows * cols, sparsity)) / static_cast<double>(rows);
}

// Rows that keep unequally many fill their last blocks by any amount: the mean over counts around theirs.
double row_bytes(const prune::Storage& storage, int64_t cols, double kept, bool even) {
  const auto bytes = [&](int64_t count) {
    return static_cast<double>(
        tensor::sparse_row_bytes(storage.coding, storage.dtype, cols, std::clamp<int64_t>(count, 0, cols)));
  };
  const auto around = [&](int64_t count) {
    constexpr int64_t kReach = 16;  // blocks have 32 values
    double sum = 0;
    for (int64_t i = count - kReach; i < count + kReach; ++i) sum += (bytes(i) + bytes(i + 1)) / 2;
    return sum / (2 * kReach);
  };
  const auto whole = static_cast<int64_t>(kept);
  if (even) return bytes(whole);
  const double share = kept - static_cast<double>(whole);
  return (1 - share) * around(whole) + share * around(whole + 1);
}

// Everything but masks and values.
int64_t other_bytes(const model::Model& parent) {
  int64_t total = kProvenance + static_cast<int64_t>(io::json_text(model::block_config(parent)).size() +
                                                     model::model_card(parent, model::CardFor::kBrick, 0, {}).size());
  if (parent.tokenizer)
    total += static_cast<int64_t>(text::to_hf_tokenizer_json(*parent.tokenizer).size() +
                                  text::to_hf_tokenizer_config_json(*parent.tokenizer).size());
  return total;
}

// Tensors of a block and what its file says of each.
class TensorBytes {
 public:
  void add(const std::string& name, double bytes, double count = 1) {
    total_ += count * (bytes + static_cast<double>(kHeaderEntry) + static_cast<double>(name.size()));
  }
  int64_t total() const { return std::llround(total_); }

 private:
  double total_ = 0;
};

void add_norms(const model::Model& parent, int64_t layers, TensorBytes& bytes) {
  bytes.add("model.layers.N.input_layernorm.weight", 4.0 * static_cast<double>(parent.config.hidden),
            static_cast<double>(2 * layers + 1));
}

int64_t whole_bytes(const model::Model& model) {
  TensorBytes bytes;
  model::for_each_matrix(model, [&](const std::string& name, const tensor::Matrix& weight) {
    bytes.add(name, static_cast<double>(weight.bytes()));
  });
  add_norms(model, static_cast<int64_t>(model.layers.size()), bytes);
  return bytes.total();
}

int64_t masked_bytes(const model::Model& parent, const prune::PruneConfig& config, const prune::Recipe& recipe) {
  const prune::Pattern pattern = prune::parse_pattern(config.pattern);
  const bool even = recipe.method->even_rows || !pattern.unstructured();
  TensorBytes bytes;
  model::for_each_matrix(parent, [&](const std::string& name, const tensor::Matrix& weight) {
    if (!name.starts_with("model.layers.")) return bytes.add(name, static_cast<double>(weight.bytes()));
    const prune::Storage storage = prune::choose_storage(config.values, weight, recipe.keeps_values(), name);
    const auto rows = static_cast<double>(weight.rows());
    bytes.add(name + ".mask", rows * 8 * static_cast<double>(tensor::mask_words(weight.cols())));
    const double kept = kept_a_row(weight, *recipe.method, pattern, config.sparsity);
    bytes.add(name + ".values", rows * row_bytes(storage, weight.cols(), kept, even));
  });
  add_norms(parent, static_cast<int64_t>(parent.layers.size()), bytes);
  return bytes.total();
}

// Of a structured block's weight, if nothing of it went.
double dense_bytes(const tensor::Matrix& weight, const std::string& values, const std::string& name) {
  if (values == "keep" || weight.is_sparse()) return static_cast<double>(weight.bytes());
  const tensor::DTypeInfo& type = tensor::info(prune::choose_storage(values, weight, true, name).dtype);
  return static_cast<double>(weight.rows() * weight.cols()) * type.block_bytes / static_cast<double>(type.block_values);
}

// Every weight of the layers counts for the same share of what is left.
int64_t cut_bytes(const model::Model& parent, const prune::PruneConfig& config, const prune::ExpectedStructures& left) {
  const double weights_left = left.linear_weights / static_cast<double>(parent.linear_parameters());
  const double layers_left = static_cast<double>(left.layers) / static_cast<double>(parent.layers.size());
  TensorBytes bytes;
  model::for_each_matrix(parent, [&](const std::string& name, const tensor::Matrix& weight) {
    if (!name.starts_with("model.layers.")) return bytes.add(name, static_cast<double>(weight.bytes()));
    bytes.add(name, dense_bytes(weight, config.values, name) * weights_left / layers_left, layers_left);
  });
  add_norms(parent, left.layers, bytes);
  for (const model::Layer& layer : parent.layers) {
    bytes.add("model.layers.N.self_attn.kept_kv_heads", 4.0 * static_cast<double>(layer.shape.kv_heads), layers_left);
    bytes.add("model.layers.N.self_attn.kept_heads", 4.0 * static_cast<double>(layer.shape.heads), layers_left);
    bytes.add("model.layers.N.mlp.kept_neurons", 4.0 * weights_left * static_cast<double>(layer.shape.ffn));
  }
  const double biases = static_cast<double>(left.biases) / static_cast<double>(parent.config.hidden);
  bytes.add("model.layers.N.self_attn.o_proj.bias", 4.0 * static_cast<double>(parent.config.hidden), biases);
  return bytes.total() + kCutLayer * left.layers;
}

// Of a structured method that takes something; else none.
using Left = std::optional<prune::ExpectedStructures>;

Left expect_left(const model::Model& parent, const prune::PruneConfig& config) {
  const prune::Recipe recipe = prune::parse_recipe(config.method);
  if (recipe.structured == nullptr || config.sparsity == 0) return std::nullopt;
  BRICK_ASSERT(!recipe.structured->needs(config).narrows);
  return recipe.structured->expect(parent, config);
}

int64_t weight_bytes(const model::Model& parent, const prune::PruneConfig& config, const Left& left) {
  if (config.sparsity == 0) return whole_bytes(parent);
  return left ? cut_bytes(parent, config, *left) : masked_bytes(parent, config, prune::parse_recipe(config.method));
}

int64_t nonzeros_left(const model::Model& parent, const prune::PruneConfig& config, const Left& left) {
  if (config.sparsity == 0) return parent.nonzeros();
  double kept = static_cast<double>(parent.parameters() - parent.linear_parameters());
  if (left) {
    const int64_t norms_gone = 2 * parent.config.hidden * (static_cast<int64_t>(parent.layers.size()) - left->layers);
    // Of a masked parent the dropped weights go, too.
    const double density =
        (static_cast<double>(parent.nonzeros()) - kept) / static_cast<double>(parent.linear_parameters());
    return std::llround(kept + density * left->linear_weights) + left->biases - norms_gone;
  }
  const prune::Recipe recipe = prune::parse_recipe(config.method);
  const prune::Pattern pattern = prune::parse_pattern(config.pattern);
  for (const model::Layer& layer : parent.layers)
    for (const tensor::Matrix& weight : layer.projections)
      kept += static_cast<double>(weight.rows()) * kept_a_row(weight, *recipe.method, pattern, config.sparsity);
  return std::llround(kept);
}

std::vector<double> candidates(const prune::Pattern& pattern) {
  if (!pattern.unstructured()) return {0, pattern.sparsity()};
  std::vector<double> out;
  for (int i = 0; i <= kMostSteps; ++i) out.push_back(static_cast<double>(i) / kSteps);
  return out;
}

std::string amount_text(const Target& target, const Choice& choice, const model::Model& parent) {
  switch (target.kind) {
    case Target::Kind::kBytes:
      return fmt::format("{:.4g} MB", static_cast<double>(choice.bytes) / 1e6);
    case Target::Kind::kDecode:
      return fmt::format("{:.2f} times the model's decoding speed", choice.speedup.value_or(0));
    case Target::Kind::kParameters:
      break;
  }
  return fmt::format("{:.4g} % of the parameters",
                     100 * static_cast<double>(choice.nonzeros) / static_cast<double>(parent.parameters()));
}

// How far from the target: 0 or less where it is reached.
double distance(const Target& target, const Choice& choice, const model::Model& parent) {
  switch (target.kind) {
    case Target::Kind::kBytes:
      return static_cast<double>(choice.bytes) - target.amount;
    case Target::Kind::kDecode:
      return target.amount - choice.speedup.value_or(0);
    case Target::Kind::kParameters:
      break;
  }
  return static_cast<double>(choice.nonzeros) / static_cast<double>(parent.parameters()) - target.amount;
}

std::string describe(const Choice& choice, bool names_pattern) {
  if (choice.sparsity == 0) return "the model as it is";
  return fmt::format("{}sparsity {:g} with {} values", names_pattern ? choice.pattern + ", " : "", choice.sparsity,
                     choice.values);
}

// Whose speeds the profile has: groups that it was not measured with count as unstructured.
std::string measured_pattern(const prune::PruneConfig& config, const DecodeProfile& profile) {
  if (prune::parse_recipe(config.method).structured != nullptr) return kStructured;
  return profile.has(config.values, config.pattern) ? config.pattern : kUnstructured;
}

// The share of the linear weights that a block lacks; whole structures may be more or less than asked for.
double share_gone(const model::Model& parent, const prune::PruneConfig& config, const Left& left) {
  return left ? 1 - left->linear_weights / static_cast<double>(parent.linear_parameters()) : config.sparsity;
}

// "; structured blocks reach it ..." where blocks of another pattern do; the simplest such pattern.
std::string other_way(const Target& target, const std::vector<std::string>& values, const std::string& tried,
                      const DecodeProfile& profile) {
  const std::string mask = tried == kStructured ? "--method sparsegpt " : "";
  for (const auto& [pattern, options] :
       {std::pair<std::string, std::string>{kUnstructured, mask + "--pattern unstructured"},
        {"2:4", mask + "--pattern 2:4"},
        {kStructured, "--method llm-pruner --pattern unstructured"}})
    for (const std::string& stored : values)
      for (const double sparsity : candidates(prune::parse_pattern(pattern == kStructured ? kUnstructured : pattern)))
        if (pattern != tried && profile.speedup(stored, sparsity, pattern).value_or(0) >= target.amount)
          return fmt::format("; {} blocks reach it at sparsity {:g} with {} values: {}", pattern, sparsity, stored,
                             options);
  return {};
}

// Freest first: of those that need the same sparsity, the first is taken.
std::vector<std::string> patterns_to_try(const model::Model& parent, const prune::PruneConfig& config,
                                         const DecodeProfile* profile) {
  if (config.pattern != kAutoPattern) return {config.pattern};
  std::vector<std::string> patterns{kUnstructured};
  if (prune::parse_recipe(config.method).owl) return patterns;
  const bool known = profile == nullptr || profile->has(config.values, "2:4");
  if (known && comes_in_groups_of(4, parent)) patterns.emplace_back("2:4");
  return patterns;
}

// Of config's pattern and values, the least sparsity that reaches the target. `nearest` follows the nearest of those
// that do not, of several calls.
std::optional<Choice> least(const Target& target, const model::Model& parent, prune::PruneConfig config,
                            const DecodeProfile* profile, int64_t rest, std::optional<Choice>& nearest) {
  const std::string measured = profile != nullptr ? measured_pattern(config, *profile) : std::string();
  bool below_unmeasured = false;
  for (const double sparsity : candidates(prune::parse_pattern(config.pattern))) {
    config.sparsity = sparsity;
    const Left left = expect_left(parent, config);
    Choice choice{sparsity,
                  config.values,
                  config.pattern,
                  rest + weight_bytes(parent, config, left),
                  nonzeros_left(parent, config, left),
                  {},
                  below_unmeasured,
                  {}};
    if (target.kind == Target::Kind::kDecode) {
      choice.speedup =
          sparsity == 0 ? 1.0 : profile->speedup(config.values, share_gone(parent, config, left), measured);
      below_unmeasured = !choice.speedup.has_value();
      if (below_unmeasured) continue;
    }
    if (distance(target, choice, parent) <= 0) return choice;
    if (!nearest || distance(target, choice, parent) < distance(target, *nearest, parent)) nearest = choice;
  }
  return std::nullopt;
}

// "; flap reaches it ..." where masks do not: theirs has a bit for every weight, and groups have one sparsity.
std::string structured_way(const Target& target, const model::Model& parent, prune::PruneConfig config, int64_t rest) {
  if (prune::parse_recipe(config.method).structured != nullptr) return {};
  config.method = "flap";
  config.pattern = kUnstructured;
  try {
    prune::check_structures(prune::parse_recipe(config.method).structured->needs(config), parent, config);
  } catch (const Error&) {
    return {};  // such a parent has no such blocks
  }
  std::optional<Choice> nearest;
  const std::optional<Choice> found = least(target, parent, config, nullptr, rest, nearest);
  return found ? fmt::format("; flap reaches it at sparsity {:g} with {} values", found->sparsity, found->values)
               : std::string();
}

// " (2:4: 0.5, ...)", of patterns that were not taken.
std::string others(const std::vector<std::string>& patterns, const std::vector<std::optional<Choice>>& found,
                   const Choice& taken) {
  std::string list;
  for (size_t i = 0; i < patterns.size(); ++i)
    if (patterns[i] != taken.pattern)
      list += fmt::format("{}{}: {}", list.empty() ? "" : ", ", patterns[i],
                          found[i] ? fmt::format("{:g}", found[i]->sparsity) : "out of reach");
  return list.empty() || taken.sparsity == 0 ? "" : " (" + list + ")";
}

}  // namespace

Target parse_target(const std::string& given) {
  const std::string text = given.substr(std::min(given.find_first_not_of(' '), given.size()));
  Target target{Target::Kind::kBytes, 0, given};
  const std::string unit = without_spaces(std::from_chars(text.data(), text.data() + text.size(), target.amount).ptr);
  constexpr std::array<std::pair<std::string_view, double>, 5> kUnits{
      {{"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"MiB", 1 << 20}, {"GiB", 1 << 30}}};
  const auto found = std::find_if(kUnits.begin(), kUnits.end(), [&](const auto& u) { return u.first == unit; });
  bool known = true;
  if (found != kUnits.end())
    target.amount *= found->second;
  else if (unit == "xdecode")
    target.kind = Target::Kind::kDecode;
  else if (unit == "%parameters")
    target = {Target::Kind::kParameters, target.amount / 100, given};
  else
    known = false;
  if (!known || !(target.amount > 0) || !std::isfinite(target.amount))
    fail(ErrorCode::kInvalidInput, "target '{}': expected one like \"40 MB\", \"2x decode\" or \"60% parameters\"",
         given);
  return target;
}

int64_t predicted_nonzeros(const model::Model& parent, const prune::PruneConfig& config) {
  return nonzeros_left(parent, config, expect_left(parent, config));
}

int64_t predicted_bytes(const model::Model& parent, const prune::PruneConfig& config) {
  return other_bytes(parent) + weight_bytes(parent, config, expect_left(parent, config));
}

void check_has_targets(const Target& target, const prune::PruneConfig& config) {
  const prune::Recipe recipe = prune::parse_recipe(config.method);
  if (recipe.structured == nullptr) return;
  if (recipe.mixed())
    fail(ErrorCode::kUnsupported, "target {}: {} has none; prune twice, {} by --sparsity and its block by the target",
         target.text, config.method, recipe.structured->name);
  if (recipe.structured->needs(config).narrows)
    fail(ErrorCode::kUnsupported, "target {}: {} has no targets where it narrows the residual stream: give --sparsity",
         target.text, config.method);
  if (config.pattern == kAutoPattern)
    fail(ErrorCode::kInvalidInput, "{}: pattern {} leaves no choice of structures; leave --pattern out", config.method,
         kAutoPattern);
}

Choice choose_sparsity(const Target& target, const model::Model& parent, const prune::PruneConfig& config,
                       bool values_free, const DecodeProfile* profile) {
  BRICK_ASSERT(profile != nullptr || target.kind != Target::Kind::kDecode);
  check_has_targets(target, config);
  std::vector<std::string> values{config.values};
  if (values_free && config.values != "q4" && target.kind != Target::Kind::kParameters) values.emplace_back("q4");
  const std::vector<std::string> patterns = patterns_to_try(parent, config, profile);
  prune::PruneConfig one = config;
  one.pattern = patterns.front();
  const std::string measured = profile != nullptr ? measured_pattern(one, *profile) : std::string();
  if (target.kind == Target::Kind::kDecode && patterns.size() == 1 && !profile->has(config.values, measured))
    fail(ErrorCode::kInvalidInput,
         "target {}: the profile has no {} blocks with {} values; without --profile they are measured", target.text,
         measured, config.values);
  const bool names_pattern = config.pattern == kAutoPattern;
  const int64_t rest = other_bytes(parent);
  std::optional<Choice> nearest;
  for (const std::string& stored : values) {
    one.values = stored;
    std::vector<std::optional<Choice>> found;
    for (const std::string& pattern : patterns) {
      one.pattern = pattern;
      found.push_back(least(target, parent, one, profile, rest, nearest));
    }
    const auto best = std::min_element(found.begin(), found.end(), [](const auto& a, const auto& b) {
      return a && (!b || a->sparsity < b->sparsity);
    });
    if (!*best) continue;
    Choice choice = **best;
    choice.reason = fmt::format("target {}: {}, {} by {}; the least{} that reaches it{}", target.text,
                                describe(choice, names_pattern), amount_text(target, choice, parent),
                                target.kind == Target::Kind::kDecode ? "the profile" : "prediction",
                                choice.least_measured ? " measured" : "", others(patterns, found, choice));
    return choice;
  }
  one.values = config.values;
  fail(ErrorCode::kInvalidInput, "target {}: out of reach by {}; the nearest is {}, {}{}", target.text, config.method,
       amount_text(target, *nearest, parent), describe(*nearest, names_pattern),
       target.kind == Target::Kind::kDecode ? other_way(target, values, measured, *profile)
                                            : structured_way(target, parent, one, rest));
}

}  // namespace brick::pipeline
