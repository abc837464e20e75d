#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "brick/report/comparison.h"
#include "brick/report/comparison_axes.h"
#include "brick/report/page_data.h"
#include "brick/report/page_frame.h"
#include "brick/report/page_parts.h"

namespace brick::report {
namespace {

using nlohmann::json;

std::string speed_text(double value) { return fixed(value, value < 100 ? 1 : 0); }

// What the rows' values are of, in the order of the rows.
std::vector<std::string> groups(const json& rows, const Quality& quality) {
  std::vector<std::string> found;
  for (const json& row : rows)
    if (const std::string what = text(row, quality.what);
        number(row, quality.key) && std::find(found.begin(), found.end(), what) == found.end())
      found.push_back(what);
  return found;
}

bool is_of(const json& row, const Quality& quality, const std::string& what) {
  return number(row, quality.key) && text(row, quality.what) == what;
}

std::string against(const Quality& quality, const Axis& axis) {
  return fmt::format("{} against {}", quality.title, axis.title);
}

std::string known(const Quality& quality, const std::string& what) { return what.empty() ? quality.unknown : what; }

std::string chart_name(const Quality& quality, const Axis& axis, size_t index) {
  return fmt::format("{}-{}", front_name(quality, axis), index);
}

// A long path's last components, as many as a chart has room for.
std::string chart_label(std::string name) {
  while (name.size() > 1 && name.back() == '/') name.pop_back();
  if (name.size() <= kLongestLabel) return name;
  size_t slash = name.find('/', name.size() - kLongestLabel + 2);
  if (slash == std::string::npos) slash = name.rfind('/');
  return slash == std::string::npos || slash == 0 ? name : "…" + name.substr(slash);
}

json chart_points(const json& rows, const Quality& quality, const std::string& what, const Axis& axis,
                  const Palette& palette) {
  json points = json::array();
  for (const json& row : rows)
    if (const auto x = number(row, axis.key); x && is_of(row, quality, what))
      points.push_back({{"name", name_of(row)},
                        {"label", chart_label(name_of(row))},
                        {"x", *x},
                        {"y", *number(row, quality.key)},
                        {"slot", palette.slot(number(row, "sparsity"))},
                        {"front", is_on_front(row, quality, axis)}});
  if (points.size() < 2) return nullptr;
  return {{"kind", "tradeoff"},
          {"axis", axis.name},
          {"quality", quality.key},
          {"less", axis.less_is_better},
          {"points", points}};
}

json comparison_charts(const json& rows) {
  const Palette palette(json::object({{"blocks", rows}}));
  json charts = json::object();
  for (const Quality& quality : kQualities) {
    const std::vector<std::string> all = groups(rows, quality);
    for (size_t i = 0; i < all.size(); ++i)
      for (const Axis& axis : kAxes)
        if (json points = chart_points(rows, quality, all[i], axis, palette); !points.is_null())
          charts[chart_name(quality, axis, i)] = std::move(points);
  }
  return charts;
}

// Names of the tasks that rows of these questions have.
std::vector<std::string> task_names(const json& rows, const Quality& quality, const std::string& what) {
  std::set<std::string> names;
  for (const json& row : rows)
    if (const json& tasks = at(row, "tasks"); is_of(row, quality, what) && tasks.is_object())
      for (const auto& [name, _] : tasks.items()) names.insert(name);
  return {names.begin(), names.end()};
}

Html block_table(const json& rows, const Quality& quality, const std::string& what, const Palette& palette) {
  const std::vector<std::string> tasks =
      quality.is_of_tasks ? task_names(rows, quality, what) : std::vector<std::string>();
  const auto quality_text = [&](double value) { return fixed(value, quality.decimals); };
  std::vector<TableColumn> columns{{"Model or block", TableColumn::kText},
                                   {"Method", TableColumn::kText},
                                   {"Removed", TableColumn::kText},
                                   {"Kept weights"},
                                   {"On disk"},
                                   {quality.title}};
  for (const std::string& task : tasks) columns.push_back({task});
  columns.insert(columns.end(),
                 {{"Decoding, tokens/s"}, {"Training, tokens/s"}, {"On the front of", TableColumn::kText}});
  HtmlTable table(fmt::format("{} of {}", quality.title, known(quality, what)), columns, true);
  for (const json& row : rows) {
    if (!is_of(row, quality, what)) continue;
    std::vector<Html> cells{name_html(name_of(row)),
                            text_cell(text(row, "method")),
                            block_cell(palette, number(row, "sparsity")),
                            cell(number(row, "nonzeros"), count),
                            cell(number(row, "bytes"), bytes),
                            cell(number(row, quality.key), quality_text)};
    for (const std::string& task : tasks)
      cells.push_back(cell(number(at(at(row, "tasks"), task.c_str()), "acc"), quality_text));
    for (const char* speed : {"decode_tokens_per_second", "train_tokens_per_second"})
      cells.push_back(cell(number(row, speed), speed_text));
    cells.push_back(html("{}", enumerated(fronts(row, quality))));
    table.add_row(cells);
  }
  return table.str();
}

Html tradeoffs(const json& rows, const json& charts) {
  const Palette palette(json::object({{"blocks", rows}}));
  Html inside;
  for (const Quality& quality : kQualities) {
    const std::vector<std::string> all = groups(rows, quality);
    for (size_t i = 0; i < all.size(); ++i) {
      for (const Axis& axis : kAxes)
        inside += chart(charts, chart_name(quality, axis, i), against(quality, axis) + ".",
                        html("{}, {}", against(quality, axis), known(quality, all[i])));
      inside += block_table(rows, quality, all[i], palette);
    }
  }
  if (inside.markup.empty())
    return section("tradeoffs", "What quality costs", paragraph(html("Neither perplexity nor accuracy was measured.")));
  Html out = paragraph(html(
      "Rows are held against each other only where their perplexity is of the same text, their accuracy of the same "
      "questions. Filled points are on the Pareto front: no other row is at least as good in both and better in one. "
      "Hollow ones are beaten by another row. Less perplexity is better, and more accuracy, which is the mean over the "
      "tasks of the share of questions that are answered rightly."));
  out += inside;
  return section("tradeoffs", "What quality costs", out);
}

// Rows of one kind that have no perplexity and no accuracy, or a loss beside it.
Html others(const json& rows) {
  const Palette palette(json::object({{"blocks", rows}}));
  HtmlTable losses("Losses of federations, each on its own held-out records",
                   {{"Arm or client", TableColumn::kText},
                    {"Removed", TableColumn::kText},
                    {"On disk"},
                    {"Loss, nats a token"},
                    {"On", TableColumn::kProse}},
                   true);
  HtmlTable unmeasured("Without a perplexity or accuracy",
                       {{"Model or block", TableColumn::kText},
                        {"Method", TableColumn::kText},
                        {"Removed", TableColumn::kText},
                        {"Kept weights"},
                        {"On disk"},
                        {"Decoding, tokens/s"},
                        {"Training, tokens/s"}},
                       true);
  for (const json& row : rows) {
    const std::string kind = text(row, "kind");
    if (kind == "arm" || kind == "client")
      losses.add_row({name_html(name_of(row)),
                      number(row, "sparsity") ? block_cell(palette, number(row, "sparsity")) : Html(),
                      number(row, "bytes") ? cell(number(row, "bytes"), bytes) : Html(), loss_cell(number(row, "loss")),
                      text_cell(text(row, "records"))});
    else if (!number(row, "perplexity") && !number(row, "accuracy"))
      unmeasured.add_row({name_html(name_of(row)), text_cell(text(row, "method")),
                          block_cell(palette, number(row, "sparsity")), cell(number(row, "nonzeros"), count),
                          cell(number(row, "bytes"), bytes), cell(number(row, "decode_tokens_per_second"), speed_text),
                          cell(number(row, "train_tokens_per_second"), speed_text)});
  }
  Html inside;
  for (const HtmlTable* table : {&losses, &unmeasured})
    if (!table->is_empty()) inside += table->str();
  if (inside.markup.empty()) inside = paragraph(html("Nothing else was compared."));
  return section("others", "Federations, and what has no perplexity", inside);
}

Html headline(const json& rows) {
  Html out = paragraph(html("{} side by side.", plural(static_cast<int64_t>(rows.size()), "row", "rows")));
  for (const Quality& quality : kQualities)
    for (const std::string& what : groups(rows, quality))
      for (const Axis& axis : kAxes) {
        std::vector<std::string> front, beaten;
        for (const json& row : rows)
          if (is_of(row, quality, what) && number(row, axis.key))
            (is_on_front(row, quality, axis) ? front : beaten).push_back(name_of(row));
        if (front.empty()) continue;
        out += paragraph(html("{} ({}): on the front {} {}{}.", against(quality, axis), known(quality, what),
                              front.size() == 1 ? "is" : "are", enumerated(front),
                              beaten.empty() ? "" : "; beaten: " + enumerated(beaten)));
      }
  return out;
}

Html machine(const json& comparison) {
  const json& host = at(comparison, "machine");
  const auto threads = number(host, "threads");
  std::vector<std::string> parts;
  for (const char* key : {"cpu", "isa"})
    if (const std::string part = text(host, key); !part.empty()) parts.push_back(part);
  if (threads) parts.push_back(plural(static_cast<int64_t>(*threads), "thread", "threads"));
  if (const std::string compute = text(comparison, "compute"); !compute.empty()) parts.push_back(compute);
  Html inside = paragraph(html("Measured on: {}.", parts.empty() ? "a machine that was not recorded"
                                                                 : fmt::format("{}", fmt::join(parts, ", "))));
  inside +=
      paragraph(html("Speeds of models and blocks are medians of brick bench: decoding one token at a time, training a "
                     "plain adapter of "
                     "rank 8 on 4 sequences of 256 tokens. Those of a federation’s blocks are what tuning took in it, "
                     "on its records and "
                     "its machine. Sizes are what lies on disk, tokenizer included but for a federation’s blocks."));
  return section("machine", "How it was measured", inside);
}

}  // namespace

std::string comparison_page(const json& records) {
  const json comparison = cleaned(records);
  const json& rows = list(comparison, "rows");
  const json charts = comparison_charts(rows);
  Html main = tradeoffs(rows, charts);
  main += others(rows);
  main += machine(comparison);
  return framed(
      {.kind = "comparison of models, blocks and federations",
       .title = "What quality costs",
       .version = text(comparison, "tool_version"),
       .sections = {{"tradeoffs", "Quality and cost"}, {"others", "Federations"}, {"machine", "Measured how"}},
       .lead = headline(rows),
       .figures = {},
       .main = main},
      comparison, charts);
}

}  // namespace brick::report
