#include "brick/pipeline/decode_profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "brick/base/cpu.h"
#include "brick/base/error.h"
#include "brick/base/parallel.h"
#include "brick/io/json_file.h"
#include "brick/pipeline/bench_job.h"
#include "brick/prune/prune.h"
#include "brick/prune/registry.h"
#include "brick/tensor/dtype.h"

namespace brick::pipeline {
namespace {

using nlohmann::json;

constexpr std::array kSparsities{0.25, 0.5, 0.75, 0.9};
constexpr std::array kStructuredSparsities{0.25, 0.5, 0.75};
constexpr const char *kUnstructured = DecodeProfile::kUnstructured, *kStructured = DecodeProfile::kStructured;

// Blocks that need no text.
std::vector<prune::PruneConfig> blocks_to_measure(const model::Model& model, const std::string& values) {
  std::vector<prune::PruneConfig> blocks;
  const auto add = [&](const char* method, double sparsity, const char* pattern) {
    prune::PruneConfig& config = blocks.emplace_back();
    config.method = method;
    config.sparsity = sparsity;
    config.pattern = pattern;
    config.values = values;
  };
  for (const double sparsity : kSparsities) add("magnitude", sparsity, kUnstructured);
  if (comes_in_groups_of(4, model)) add("magnitude", 0.5, "2:4");
  // Dense rows of 4-bit values come in whole blocks.
  if (values == "q4" && !comes_in_groups_of(tensor::kQuantBlock, model)) return blocks;
  for (const double sparsity : kStructuredSparsities) {
    add("llm-pruner", sparsity, kUnstructured);
    blocks.back().mode = "layer";
  }
  return blocks;
}

template <class T>
T member(const json& object, const char* key, bool (json::*is_type)() const noexcept) {
  const auto found = object.find(key);
  if (found == object.end() || !((*found).*is_type)()) fail(ErrorCode::kCorrupt, "'{}' is missing or wrong", key);
  return found->get<T>();
}

std::string text(const json& object, const char* key) { return member<std::string>(object, key, &json::is_string); }

double speed(const json& object, const char* key) {
  const auto value = member<double>(object, key, &json::is_number);
  if (!(value > 0) || !std::isfinite(value)) fail(ErrorCode::kCorrupt, "'{}' is {}", key, value);
  return value;
}

DecodeProfile profile_of(const json& file) {
  if (!file.is_object() || !file.contains("decode") || !file["decode"].is_object())
    fail(ErrorCode::kCorrupt, "'decode' is missing or no object");
  const json& object = file["decode"];
  DecodeProfile profile;
  profile.model = text(object, "model");
  profile.isa = text(object, "isa");
  profile.compute = text(object, "compute");
  profile.threads = member<int64_t>(object, "threads", &json::is_number_integer);
  profile.dense_tokens_per_second = speed(object, "dense_tokens_per_second");
  for (const json& point : member<json>(object, "points", &json::is_array)) {
    if (!point.is_object()) fail(ErrorCode::kCorrupt, "'points' has {}", point.dump());
    const auto sparsity = member<double>(point, "sparsity", &json::is_number);
    if (!(sparsity > 0 && sparsity < 1)) fail(ErrorCode::kCorrupt, "'sparsity' of a point is {}", sparsity);
    profile.points.push_back({text(point, "values"), sparsity, speed(point, "tokens_per_second"),
                              point.contains("pattern") ? text(point, "pattern") : kUnstructured});
  }
  return profile;
}

void check_same(const char* what, const std::string& measured, const std::string& now) {
  if (measured != now) fail(ErrorCode::kMismatch, "measured for {} {}, not for {}", what, measured, now);
}

}  // namespace

std::optional<double> DecodeProfile::speedup(const std::string& values, double sparsity,
                                             const std::string& pattern) const {
  const Point *below = nullptr, *above = nullptr;  // nearest on either side
  for (const Point& point : points) {
    if (point.values != values || point.pattern != pattern) continue;
    if (point.sparsity <= sparsity && (below == nullptr || point.sparsity > below->sparsity)) below = &point;
    if (point.sparsity >= sparsity && (above == nullptr || point.sparsity < above->sparsity)) above = &point;
  }
  if (below == nullptr || above == nullptr) return std::nullopt;
  const double between = above->sparsity - below->sparsity;
  const double share = between > 0 ? (sparsity - below->sparsity) / between : 0;
  const double seconds = (1 - share) / below->tokens_per_second + share / above->tokens_per_second;
  return 1 / (seconds * dense_tokens_per_second);
}

bool DecodeProfile::has(const std::string& values, const std::string& pattern) const {
  return std::any_of(points.begin(), points.end(),
                     [&](const Point& point) { return point.values == values && point.pattern == pattern; });
}

bool comes_in_groups_of(int64_t group, const model::Model& model) {
  for (const model::Layer& layer : model.layers)
    for (const tensor::Matrix& weight : layer.projections)
      if (weight.cols() % group != 0) return false;
  return true;
}

DecodeProfile measure_decoding(const model::Model& model, const std::vector<std::string>& values,
                               const RunSettings& settings, ProgressSink& sink) {
  DecodeProfile profile{model::fingerprint(model),
                        std::string(name(active_isa())),
                        settings.compute,
                        threads(),
                        decode_speed(model, settings),
                        {}};
  sink.note(fmt::format("decoding: {:.1f} tokens/s as the model is", profile.dense_tokens_per_second));
  kernels::Context context(kernels::choose_compute(settings.compute));
  for (const std::string& stored : values)
    for (const prune::PruneConfig& config : blocks_to_measure(model, stored)) {
      prune::PruneReport report;
      const model::Model block = prune::prune(model, {}, config, context, silent_sink(), &report);
      if (report.sparsity == 0) continue;  // too few layers to leave some out
      const bool structured = prune::parse_recipe(config.method).structured != nullptr;
      profile.points.push_back({stored, structured ? report.sparsity : config.sparsity, decode_speed(block, settings),
                                structured ? kStructured : config.pattern});
      sink.note(fmt::format("decoding: {:.1f} tokens/s with {:.0f} % removed, {}, {} values",
                            profile.points.back().tokens_per_second, 100 * profile.points.back().sparsity,
                            profile.points.back().pattern, stored));
    }
  return profile;
}

json to_json(const DecodeProfile& profile) {
  json points = json::array();
  for (const DecodeProfile::Point& point : profile.points)
    points.push_back({{"values", point.values},
                      {"sparsity", point.sparsity},
                      {"tokens_per_second", point.tokens_per_second},
                      {"pattern", point.pattern}});
  return {{"model", profile.model},
          {"isa", profile.isa},
          {"compute", profile.compute},
          {"threads", profile.threads},
          {"dense_tokens_per_second", profile.dense_tokens_per_second},
          {"points", points}};
}

DecodeProfile read_decode_profile(const std::string& path, const model::Model& model, const RunSettings& settings) {
  const json file = io::read_json_file(path);
  try {
    DecodeProfile profile = profile_of(file);
    check_same("model", profile.model.substr(0, 12), model::fingerprint(model).substr(0, 12));
    check_same("isa", profile.isa, std::string(name(active_isa())));
    check_same("compute", profile.compute, settings.compute);
    check_same("threads", std::to_string(profile.threads), std::to_string(threads()));
    return profile;
  } catch (const Error& error) {
    fail(error.code(), "{}: decoding profile: {}; make one with brick bench MODEL --calibrate FILE", path,
         error.what());
  }
}

}  // namespace brick::pipeline
