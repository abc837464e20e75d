#include "brick/report/comparison.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <vector>

#include "brick/report/comparison_axes.h"
#include "brick/report/page_data.h"
#include "brick/report/table.h"

namespace brick::report {
namespace {

using nlohmann::json;

constexpr int kWidth = 120;

void set(json& row, const char* key, const json& value) {
  if (number(value)) row[key] = value;
}

json run_row(const std::string& run, const std::string& name, const char* kind, const json& sparsity) {
  json row = {{"name", run + ": " + name}, {"kind", kind}};
  set(row, "sparsity", sparsity);
  return row;
}

// Size and counts of the client's block, which older runs do not name: then of those of its sparsity.
void add_size(json& row, const json& run, const json& client) {
  const std::string name = text(client, "block");
  const auto sparsity = number(client, "sparsity");
  for (const json& block : list(run, "blocks"))
    if (name.empty() ? sparsity && number(block, "sparsity") == sparsity : text(block, "name") == name)
      for (const char* key : {"bytes", "parameters", "nonzeros"}) set(row, key, at(block, key));
}

std::string short_number(double value) { return fixed(value, value < 100 ? 2 : 1); }

void mark_front(json& rows, const Quality& quality, const Axis& axis) {
  std::map<std::string, std::vector<json*>> groups;
  for (json& row : rows)
    if (number(row, quality.key) && number(row, axis.key)) groups[text(row, quality.what)].push_back(&row);
  const auto cost = [&](const json& row) { return (axis.less_is_better ? 1 : -1) * *number(row, axis.key); };
  const auto loss = [&](const json& row) { return (quality.less_is_better ? 1 : -1) * *number(row, quality.key); };
  for (const auto& [_, group] : groups) {
    if (group.size() < 2) continue;
    for (json* row : group) {
      const bool beaten = std::any_of(group.begin(), group.end(), [&](const json* other) {
        return loss(*other) <= loss(*row) && cost(*other) <= cost(*row) &&
               (loss(*other) < loss(*row) || cost(*other) < cost(*row));
      });
      if (!beaten) (*row)["front"].push_back(front_name(quality, axis));
    }
  }
}

}  // namespace

std::string front_name(const Quality& quality, const Axis& axis) { return std::string(quality.prefix) + axis.name; }

bool is_on_front(const json& row, const Quality& quality, const Axis& axis) {
  const json& front = list(row, "front");
  return std::find(front.begin(), front.end(), front_name(quality, axis)) != front.end();
}

std::vector<std::string> fronts(const json& row, const Quality& quality) {
  std::vector<std::string> names;
  for (const Axis& axis : kAxes)
    if (is_on_front(row, quality, axis)) names.emplace_back(axis.name);
  return names;
}

json rows_of_run(const json& run, const std::string& name) {
  const std::string text_of_run = text(at(run, "llm"), "text") + " as " + name + " has it";
  json rows = json::array();
  for (const json& block : list(run, "blocks")) {
    const auto sparsity = number(block, "sparsity");
    json row = run_row(name, sparsity ? "block " + percent(*sparsity) : "block", "block", at(block, "sparsity"));
    if (const std::string method = text(block, "method"); !method.empty()) row["method"] = method;
    for (const char* key : {"bytes", "parameters", "nonzeros", "perplexity"}) set(row, key, at(block, key));
    if (row.contains("perplexity")) row["text"] = text_of_run;
    set(row, "train_tokens_per_second", at(block, "tune_tokens_per_second"));
    rows.push_back(row);
  }
  for (const json& arm : list(run, "arms")) {
    json row = run_row(name, text(arm, "name"), "arm", json());
    set(row, "loss", at(arm, "loss"));
    set(row, "tokens_trained", at(arm, "tokens"));
    if (row.contains("loss")) row["records"] = "all held-out records of " + name;
    rows.push_back(row);
  }
  for (const json& client : list(run, "clients"))
    for (const auto& [what, key] : {std::pair(" alone", "block_local"), {" with LEGO", "block_lego"}}) {
      json row = run_row(name, name_of(client) + what, "client", at(client, "sparsity"));
      add_size(row, run, client);
      set(row, "loss", at(at(client, "loss"), key));
      if (row.contains("loss")) row["records"] = "held-out records of " + name_of(client) + " in " + name;
      rows.push_back(row);
    }
  for (const json& measured : list(run, "rows")) {
    if (!measured.is_object()) continue;
    json row = measured;
    row["name"] = name + ": " + text(measured, "name");
    if (row.contains("text")) row["text"] = text(measured, "text") + " as " + name + " has it";
    rows.push_back(row);
  }
  return rows;
}

void mark_fronts(json& rows) {
  for (json& row : rows)
    if (row.is_object()) row.erase("front");
  for (const Quality& quality : kQualities)
    for (const Axis& axis : kAxes) mark_front(rows, quality, axis);
}

std::string comparison_table(const json& records) {
  const json rows = cleaned(records);
  using Cell = std::function<std::string(const json&)>;
  const auto numeric = [](const char* key, std::string (*format)(double)) -> Cell {
    return [=](const json& row) {
      const auto value = number(row, key);
      return value ? format(*value) : std::string();
    };
  };
  const auto three_decimals = [](double value) { return fixed(value, 3); };
  const bool perplexities =
      std::any_of(rows.begin(), rows.end(), [](const json& row) { return number(row, "perplexity").has_value(); });
  const Quality& quality = kQualities[perplexities ? 0 : 1];  // a line has no room for the fronts of both
  const std::vector<std::pair<Column, Cell>> all = {
      {{"what"}, [](const json& row) { return text(row, "name"); }},
      {{"method"}, [](const json& row) { return text(row, "method"); }},
      {{"removed", Align::kRight}, numeric("sparsity", percent)},
      {{"kept weights", Align::kRight}, numeric("nonzeros", count)},
      {{"on disk", Align::kRight}, numeric("bytes", bytes)},
      {{"perplexity", Align::kRight}, numeric("perplexity", short_number)},
      {{"accuracy", Align::kRight}, numeric("accuracy", three_decimals)},
      {{"loss", Align::kRight}, numeric("loss", three_decimals)},
      {{"decode/s", Align::kRight}, numeric("decode_tokens_per_second", short_number)},
      {{"train/s", Align::kRight}, numeric("train_tokens_per_second", short_number)},
      {{"front"}, [&](const json& row) { return fmt::format("{}", fmt::join(fronts(row, quality), " ")); }}};
  std::vector<Column> columns;
  std::vector<Cell> cells;
  for (const auto& [column, cell] : all) {
    const Cell& made = cell;
    const bool used = std::any_of(rows.begin(), rows.end(), [&](const json& row) { return !made(row).empty(); });
    if (!used && !columns.empty()) continue;
    columns.push_back(column);
    cells.push_back(cell);
  }
  Table table(columns);
  for (const json& row : rows) {
    std::vector<std::string> line;
    for (const Cell& cell : cells) line.push_back(cell(row));
    table.add_row(line);
  }
  return table.text(kWidth);
}

}  // namespace brick::report
