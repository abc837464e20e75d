// The terminal's table at the end of `brick simulate`.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "brick/report/page.h"
#include "brick/report/page_data.h"
#include "brick/report/page_words.h"
#include "brick/report/table.h"

namespace brick::report {
namespace {

using nlohmann::json;

constexpr int kWidth = 100;

std::string loss(std::optional<double> value) { return value ? fixed(*value, 3) : "-"; }

std::string interval(const Comparison& comparison) {
  if (!comparison.mean) return "-";
  const std::string mean = difference(*comparison.mean);
  return comparison.has_interval()
             ? fmt::format("{} [{}, {}]", mean, difference(*comparison.low), difference(*comparison.high))
             : mean;
}

std::string short_word(Verdict verdict) {
  return verdict == Verdict::kUnclear ? "unclear" : verdict == Verdict::kUnknown ? "-" : word(verdict);
}

// A member's first and last value of the rounds, as far as they are numbers.
std::pair<std::optional<double>, std::optional<double>> first_and_last(const json& values) {
  if (values.empty()) return {};
  return {number(values.front()), values.size() < 2 ? std::nullopt : number(values.back())};
}

std::vector<std::string> whole_model_row(const json& run) {
  double records = 0;
  for (const json& client : list(run, "clients")) records += number(client, "test_records").value_or(0);
  const auto [before, after] = first_and_last(list(at(run, "llm"), "loss_by_round"));
  return {"whole model",
          "",
          records > 0 ? count(records) : "-",
          loss(before),
          "",
          loss(after),
          before && after ? difference(*after - *before) + " to before" : "-"};
}

std::string totals(const json& run) {
  std::string out;
  const auto [before, after] = first_and_last(list(at(run, "llm"), "perplexity_by_round"));
  if (before && after)
    out += fmt::format("perplexity on general text  {} -> {}\n", fixed(*before, 2), fixed(*after, 2));
  const auto up = number(run, "bytes_up"), down = number(run, "bytes_down"), seconds = number(run, "seconds");
  if (up && down) out += fmt::format("adapters  {} up, {} down\n", bytes(*up), bytes(*down));
  if (seconds) out += fmt::format("computing time  {}\n", duration(*seconds));
  if (const VerdictCounts counts = count_verdicts(run); counts.worse > 0)
    out += fmt::format("LEGO is worse than tuning alone at {} of {}\n", counts.worse,
                       plural(counts.all(), "office", "offices"));
  return out;
}

}  // namespace

std::string summary_table(const json& records) {
  const json run = cleaned(records);
  Table table({{"office"},
               {"block", Align::kRight},
               {"records", Align::kRight},
               {"before", Align::kRight},
               {"alone", Align::kRight},
               {"LEGO", Align::kRight},
               {"LEGO - alone, 95 %"},
               {"verdict"}});
  for (const json& client : list(run, "clients")) {
    const json& losses = at(client, "loss");
    const auto sparsity = number(client, "sparsity"), held_out = number(client, "test_records");
    const Comparison alone = lego_minus_local(client);
    table.add_row({name_of(client), sparsity ? percent(*sparsity) : "-", held_out ? count(*held_out) : "-",
                   loss(number(losses, "block_untuned")), loss(number(losses, "block_local")),
                   loss(number(losses, "block_lego")), interval(alone), short_word(alone.verdict())});
  }
  table.add_row(whole_model_row(run));
  return table.text(kWidth) + "\n" + totals(run);
}

}  // namespace brick::report
