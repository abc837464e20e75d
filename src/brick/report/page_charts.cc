#include "brick/report/page_charts.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "brick/report/page_data.h"

namespace brick::report {
namespace {

using nlohmann::json;

json value_or_null(std::optional<double> value) { return value ? json(*value) : json(); }

// The elements that are numbers, null where they aren't.
json numbers(const json& values) {
  json out = json::array();
  for (const json& value : values) out.push_back(value_or_null(number(value)));
  return out;
}

bool has_line(const json& values) {
  return std::count_if(values.begin(), values.end(), [](const json& v) { return v.is_number(); }) >= 2;
}

json quality(const json& run, const Palette& palette) {
  json out{{"offices", json::array()}, {"slots", json::array()}};
  bool any = false;
  for (const json& client : list(run, "clients")) {
    out["offices"].push_back(name_of(client));
    out["slots"].push_back(palette.slot(number(client, "sparsity")));
    for (const auto& [name, key] :
         {std::pair("before", "block_untuned"), {"alone", "block_local"}, {"lego", "block_lego"}}) {
      const auto loss = number(at(client, "loss"), key);
      any = any || loss;
      out[name].push_back(value_or_null(loss));
    }
  }
  return any ? out : json();
}

json differences(const json& run, const Palette& palette) {
  json out;
  for (const json& client : list(run, "clients")) {
    const Comparison alone = lego_minus_local(client);
    if (!alone.mean || !alone.has_interval()) continue;
    out["offices"].push_back(name_of(client));
    out["slots"].push_back(palette.slot(number(client, "sparsity")));
    out["mean"].push_back(*alone.mean);
    out["low"].push_back(*alone.low);
    out["high"].push_back(*alone.high);
  }
  return out;
}

json rounds(const json& run, const Palette& palette) {
  json lines = json::array();
  std::map<int, int> used;  // slot -> lines of that colour so far, told apart by their dashes
  size_t longest = 0;
  for (const json& client : list(run, "clients")) {
    const json values = numbers(list(at(client, "by_round"), "block"));
    if (!has_line(values)) continue;
    longest = std::max(longest, values.size());
    const int slot = palette.slot(number(client, "sparsity"));
    const auto sparsity = number(client, "sparsity");
    lines.push_back({{"name", name_of(client)},
                     {"block", sparsity ? block_name(*sparsity) : ""},
                     {"slot", slot},
                     {"dash", used[slot]++},
                     {"values", values}});
  }
  return lines.empty() ? json() : json{{"labels", round_names(run, longest)}, {"lines", lines}};
}

json one_line(const json& run, const char* key) {
  const json values = numbers(list(at(run, "llm"), key));
  return has_line(values) ? json{{"labels", round_names(run, values.size())}, {"values", values}} : json();
}

json sizes(const json& run, const Palette& palette) {
  json out;
  const auto add = [&](const std::string& label, int slot, std::optional<double> size) {
    if (!size) return;
    out["labels"].push_back(label);
    out["slots"].push_back(slot);
    out["bytes"].push_back(*size);
    out["texts"].push_back(bytes(*size));
  };
  const json& model = at(run, "model");
  const std::string dtype = text(model, "dtype");
  add(dtype.empty() ? "download" : "download, " + dtype, -1, number(model, "bytes"));
  if (const auto parameters = number(model, "parameters")) add("dense bf16", -1, *parameters * 2);
  for (const json& block : list(run, "blocks"))
    if (const auto sparsity = number(block, "sparsity"); sparsity && *sparsity > 0)
      add("block " + percent(*sparsity), palette.slot(sparsity), number(block, "bytes"));
  return out;
}

}  // namespace

std::vector<std::string> round_names(const json& run, size_t n) {
  const auto rounds = number(run, "rounds");
  const bool is_every = rounds && *rounds + 1 == static_cast<double>(n);
  std::vector<std::string> names;
  for (size_t i = 0; i < n; ++i) names.push_back(is_every ? fmt::format("{}", i) : fmt::format("evaluation {}", i + 1));
  return names;
}

json chart_data(const json& run) {
  const Palette palette(run);
  json out{{"quality", quality(run, palette)},
           {"differences", differences(run, palette)},
           {"rounds", rounds(run, palette)},
           {"llm_loss", one_line(run, "loss_by_round")},
           {"llm_perplexity", one_line(run, "perplexity_by_round")},
           {"sizes", sizes(run, palette)}};
  for (auto entry = out.begin(); entry != out.end();) entry = entry->is_null() ? out.erase(entry) : std::next(entry);
  return out;
}

}  // namespace brick::report
