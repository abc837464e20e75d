#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "brick/io/json_file.h"
#include "brick/report/comparison.h"
#include "brick/report/comparison_axes.h"
#include "brick/report/page_data.h"
#include "brick/report/page_frame.h"
#include "brick/report/page_parts.h"

namespace brick::report {
namespace {

using nlohmann::json;

std::string perplexity_text(double value) { return fixed(value, 2); }
std::string loss_text(double value) { return fixed(value, 3); }
std::string speed_text(double value) { return fixed(value, value < 100 ? 1 : 0); }

std::string row_name(const json& row) {
  const std::string name = text(row, "name");
  return name.empty() ? "(without a name)" : name;
}

// The texts that perplexities are of, in the order of the rows.
std::vector<std::string> texts(const json& rows) {
  std::vector<std::string> found;
  for (const json& row : rows)
    if (number(row, "perplexity") && std::find(found.begin(), found.end(), text(row, "text")) == found.end())
      found.push_back(text(row, "text"));
  return found;
}

bool is_of(const json& row, const std::string& text_name) {
  return number(row, "perplexity") && text(row, "text") == text_name;
}

std::string chart_name(const Axis& axis, size_t index) { return fmt::format("{}-{}", axis.name, index); }

// A long path's last components, as many as a chart has room for.
std::string chart_label(std::string name) {
  while (name.size() > 1 && name.back() == '/') name.pop_back();
  if (name.size() <= kLongestLabel) return name;
  size_t slash = name.find('/', name.size() - kLongestLabel + 2);
  if (slash == std::string::npos) slash = name.rfind('/');
  return slash == std::string::npos || slash == 0 ? name : "…" + name.substr(slash);
}

json chart_points(const json& rows, const std::string& text_name, const Axis& axis, const Palette& palette) {
  json points = json::array();
  for (const json& row : rows)
    if (const auto x = number(row, axis.key); x && is_of(row, text_name))
      points.push_back({{"name", row_name(row)},
                        {"label", chart_label(row_name(row))},
                        {"x", *x},
                        {"y", *number(row, "perplexity")},
                        {"slot", palette.slot(number(row, "sparsity"))},
                        {"front", is_on_front(row, axis)}});
  if (points.size() < 2) return nullptr;
  return {{"kind", "tradeoff"}, {"axis", axis.name}, {"less", axis.less_is_better}, {"points", points}};
}

json comparison_charts(const json& rows) {
  const Palette palette(json::object({{"blocks", rows}}));
  json charts = json::object();
  const std::vector<std::string> all = texts(rows);
  for (size_t i = 0; i < all.size(); ++i)
    for (const Axis& axis : kAxes)
      if (json points = chart_points(rows, all[i], axis, palette); !points.is_null())
        charts[chart_name(axis, i)] = std::move(points);
  return charts;
}

Html block_table(const json& rows, const std::string& text_name, const Palette& palette) {
  HtmlTable table("Perplexity of " + (text_name.empty() ? "a text that was not recorded" : text_name),
                  {{"Model or block", TableColumn::kText},
                   {"Method", TableColumn::kText},
                   {"Removed", TableColumn::kText},
                   {"Kept weights"},
                   {"On disk"},
                   {"Perplexity"},
                   {"Decoding, tokens/s"},
                   {"Training, tokens/s"},
                   {"On the front of", TableColumn::kText}},
                  true);
  for (const json& row : rows)
    if (is_of(row, text_name))
      table.add_row({name_html(row_name(row)), text_cell(text(row, "method")),
                     block_cell(palette, number(row, "sparsity")), cell(number(row, "nonzeros"), count),
                     cell(number(row, "bytes"), bytes), cell(number(row, "perplexity"), perplexity_text),
                     cell(number(row, "decode_tokens_per_second"), speed_text),
                     cell(number(row, "train_tokens_per_second"), speed_text), html("{}", enumerated(fronts(row)))});
  return table.str();
}

Html tradeoffs(const json& rows, const json& charts) {
  const Palette palette(json::object({{"blocks", rows}}));
  const std::vector<std::string> all = texts(rows);
  if (all.empty()) return section("tradeoffs", "What quality costs", paragraph(html("No perplexity was measured.")));
  Html inside = paragraph(html(
      "Rows are held against each other only where their perplexity is of the same text. Filled points are on the "
      "Pareto front: no other row is at least as good in both and better in one. Hollow ones are beaten by another "
      "row. Less perplexity is better."));
  for (size_t i = 0; i < all.size(); ++i) {
    for (const Axis& axis : kAxes)
      inside += chart(charts, chart_name(axis, i), std::string(axis.title) + ".",
                      html("{}, {}", axis.title, all[i].empty() ? "a text that was not recorded" : all[i]));
    inside += block_table(rows, all[i], palette);
  }
  return section("tradeoffs", "What quality costs", inside);
}

// Rows of one kind that have no perplexity, or a loss beside it.
Html others(const json& rows) {
  const Palette palette(json::object({{"blocks", rows}}));
  HtmlTable losses("Losses of federations, each on its own held-out records",
                   {{"Arm or client", TableColumn::kText},
                    {"Removed", TableColumn::kText},
                    {"On disk"},
                    {"Loss, nats a token"},
                    {"On", TableColumn::kProse}},
                   true);
  HtmlTable unmeasured("Without a perplexity",
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
      losses.add_row({name_html(row_name(row)),
                      number(row, "sparsity") ? block_cell(palette, number(row, "sparsity")) : Html(),
                      number(row, "bytes") ? cell(number(row, "bytes"), bytes) : Html(),
                      cell(number(row, "loss"), loss_text), text_cell(text(row, "records"))});
    else if (!number(row, "perplexity"))
      unmeasured.add_row({name_html(row_name(row)), text_cell(text(row, "method")),
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
  const std::vector<std::string> all = texts(rows);
  for (const std::string& one : all)
    for (const Axis& axis : kAxes) {
      std::vector<std::string> front, beaten;
      for (const json& row : rows)
        if (is_of(row, one) && number(row, axis.key))
          (is_on_front(row, axis) ? front : beaten).push_back(row_name(row));
      if (front.empty()) continue;
      out += paragraph(html("{} ({}): on the front {} {}{}.", axis.title, one.empty() ? "text not recorded" : one,
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
  const json comparison = json::parse(io::compact_json(records));
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
