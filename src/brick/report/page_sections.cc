#include "brick/report/page_sections.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "brick/report/page_charts.h"
#include "brick/report/page_data.h"
#include "brick/report/page_parts.h"
#include "brick/report/page_words.h"

namespace brick::report {
namespace {

using nlohmann::json;

std::string seconds_text(double value) { return duration(value); }
std::string count_text(double value) { return count(value); }
std::string bytes_text(double value) { return bytes(value); }
std::string perplexity_text(double value) { return fixed(value, 2); }

// <dt>/<dd> pairs, those without a value left out.
class Facts {
 public:
  void add(std::string_view name, const Html& value) {
    if (!value.markup.empty()) rows_ += html("<div><dt>{}</dt><dd>{}</dd></div>\n", name, value);
  }
  Html str(std::string_view kind) const { return html("<dl class=\"{}\">\n{}</dl>\n", kind, rows_); }

 private:
  Html rows_;
};

Html parts_of(const std::vector<Html>& parts, std::string_view separator = ", ") {
  Html out;
  for (const Html& part : parts) {
    if (part.markup.empty()) continue;
    if (!out.markup.empty()) out += html("{}", separator);
    out += part;
  }
  return out;
}

Html name_or_nothing(const std::string& name) { return name.empty() ? Html() : name_html(name); }

Html model_fact(const json& model) {
  const auto parameters = number(model, "parameters"), size = number(model, "bytes");
  const std::string name = text(model, "name"), path = text(model, "path");
  const bool is_named_so = path.starts_with(name);  // the file's name says the model's
  return parts_of({is_named_so ? Html() : name_or_nothing(name), path.empty() ? Html() : html("<code>{}</code>", path),
                   parameters ? html("{} parameters", figure(count(*parameters))) : Html(),
                   name_or_nothing(text(model, "dtype")), size ? html("{} on disk", figure(bytes(*size))) : Html()});
}

Html tau_fact(const json& run) {
  std::vector<std::string> chosen;
  for (const json& tau : list(run, "tau_chosen"))
    if (const auto value = number(tau)) chosen.push_back(fmt::format("{:g}", *value));
  const std::string set = text(run, "tau");
  return parts_of({name_or_nothing(set), chosen.empty() ? Html() : html("used by round: {}", enumerated(chosen))},
                  "; ");
}

Html stages_fact(const json& run) {
  static constexpr std::pair<const char*, const char*> kStages[] = {{"prune", "pruning"},
                                                                    {"tune", "tuning"},
                                                                    {"aggregate", "aggregating"},
                                                                    {"evaluate", "evaluating"},
                                                                    {"arms", "baselines"}};
  std::vector<Html> parts;
  for (const auto& [key, name] : kStages)
    if (const auto seconds = number(at(run, "seconds_by_stage"), key))
      parts.push_back(html("{} {}", name, figure(duration(*seconds))));
  return parts_of(parts);
}

Html refused_updates(const json& run) {
  Html items;
  for (const json& client : list(run, "clients"))
    for (const json& refused : list(client, "rejected")) {
      const auto round = number(refused, "round");
      items += html("<li>{}{}: {}</li>\n", office_cell(client), round ? html(", round {}", count(*round)) : Html(),
                    text_cell(text(refused, "reason")));
    }
  return items.markup.empty() ? items : html("<h3>Refused updates</h3>\n<ul>\n{}</ul>\n", items);
}

Html notes(const json& run) {
  Html items;
  for (const json& note : list(run, "notes"))
    if (note.is_string()) items += html("<li>{}</li>\n", note.get<std::string>());
  return items.markup.empty() ? items : html("<h3>Notes</h3>\n<ul>\n{}</ul>\n", items);
}

}  // namespace

Html key_figures(const json& run) {
  Facts facts;
  const auto arrow = [](const Ends& e, int decimals) {
    return html("{} <span class=\"to\">to</span> {}", figure(fixed(e.first, decimals)),
                figure(fixed(e.last, decimals)));
  };
  if (const auto loss = ends(list(at(run, "llm"), "loss_by_round"))) facts.add("Whole model, loss", arrow(*loss, 3));
  if (const auto perplexity = ends(list(at(run, "llm"), "perplexity_by_round")))
    facts.add("Perplexity, general text", arrow(*perplexity, 2));
  if (const VerdictCounts counts = count_verdicts(run); counts.all() > counts.unknown)
    facts.add("LEGO against alone",
              html("{} better, {} unclear, {} worse", counts.better, counts.unclear, counts.worse));
  if (const auto up = number(run, "bytes_up")) facts.add("Adapters sent up", figure(bytes(*up)));
  return facts.str("figures");
}

Html what_was_run(const json& run) {
  const json& machine = at(run, "machine");
  const auto threads = number(machine, "threads"), rounds = number(run, "rounds"), seconds = number(run, "seconds");
  Facts facts;
  facts.add("Model", model_fact(at(run, "model")));
  facts.add("Rounds", rounds ? figure(count(*rounds)) : Html());
  facts.add("Aggregation rule", name_or_nothing(text(run, "rule")));
  facts.add("Tau", tau_fact(run));
  facts.add("Machine",
            parts_of({name_or_nothing(text(machine, "cpu")), name_or_nothing(text(machine, "isa")),
                      threads ? html("{}", plural(static_cast<int64_t>(*threads), "thread", "threads")) : Html()}));
  facts.add("Arithmetic", name_or_nothing(text(run, "compute")));
  facts.add("Computing time", seconds ? figure(duration(*seconds)) : Html());
  facts.add("of which", stages_fact(run));

  const Palette palette(run);
  HtmlTable offices("Offices and what they did",
                    {{"Office", TableColumn::kText},
                     {"Block", TableColumn::kText},
                     {"LoRA rank"},
                     {"Records"},
                     {"Held out"},
                     {"Tokens trained"},
                     {"Rounds"},
                     {"Uploads lost"},
                     {"Refused"}},
                    true);
  for (const json& client : list(run, "clients"))
    offices.add_row({office_cell(client), block_cell(palette, number(client, "sparsity")),
                     cell(number(client, "rank"), count_text), cell(number(client, "records"), count_text),
                     cell(number(client, "test_records"), count_text),
                     cell(number(client, "tokens_trained"), count_text),
                     cell(number(client, "rounds_taken"), count_text), cell(number(client, "uploads_lost"), count_text),
                     figure(count(static_cast<double>(list(client, "rejected").size())))});
  Html inside = facts.str("facts");
  inside +=
      paragraph(Html{"A block’s percentage is its sparsity: the share taken out of the matrices that are pruned. How "
                     "many of all weights were kept stands under Cost. Held-out records were kept from training; all "
                     "losses on this page, but for those called training loss, are theirs."});
  if (!offices.is_empty()) inside += offices.str();
  inside += refused_updates(run);
  inside += notes(run);
  return section("run", "What was run", inside);
}

Html quality_by_office(const json& run, const json& charts) {
  const Palette palette(run);
  HtmlTable table("Loss on each office’s held-out answers, nats a token; lower is better",
                  {{"Office", TableColumn::kText},
                   {"Block", TableColumn::kText},
                   {"Before"},
                   {"Alone"},
                   {"LEGO"},
                   {"LEGO − alone, 95 % interval", TableColumn::kInterval},
                   {"Verdict", TableColumn::kText},
                   {"Whole model before"},
                   {"Whole model, LEGO"}},
                  true);
  for (const json& client : list(run, "clients")) {
    const json& loss = at(client, "loss");
    const Comparison alone = lego_minus_local(client);
    table.add_row({office_cell(client), block_cell(palette, number(client, "sparsity")),
                   loss_cell(number(loss, "block_untuned")), loss_cell(number(loss, "block_local")),
                   loss_cell(number(loss, "block_lego")), interval_cell(alone), verdict_cell(alone),
                   loss_cell(number(loss, "llm_untuned")), loss_cell(number(loss, "llm_lego"))});
  }
  if (table.is_empty()) return section("quality", "Quality by office", paragraph(Html{"Not measured."}));
  Html inside =
      paragraph(Html{"<b>Before</b> is the office’s block as it was cut; <b>alone</b> the same block tuned "
                     "by that office only; <b>LEGO</b> the same block with the adapter it was last sent."});
  inside += table.str();
  inside += html("<p class=\"note\">{}</p>\n",
                 "Losses are means over answer tokens. Differences are means over records, each record "
                 "counting the same, with paired 95 % intervals; so they need not equal the difference of "
                 "the two columns. “Better” and “worse” mean that the interval excludes zero.");
  inside += chart(charts, "quality", "Bars: each office’s loss before, alone and with LEGO.",
                  html("Loss by office; lower is better. <span class=\"keys\"><span class=\"key\"><span "
                       "class=\"swatch before\"></span>before</span><span class=\"key\"><span class=\"swatch "
                       "alone\"></span>alone</span><span class=\"key\"><span class=\"swatch "
                       "lego\"></span>LEGO</span></span>{}",
                       block_legend(run, palette)));
  inside += chart(charts, "differences", "Intervals of LEGO minus alone by office, against zero.",
                  html("LEGO minus alone with its 95 % interval. Left of the line LEGO is better, right of it worse."));
  return section("quality", "Quality by office", inside);
}

Html loss_by_round(const json& run, const json& charts) {
  const Palette palette(run);
  size_t rounds = 0, trained = 0;
  for (const json& client : list(run, "clients")) {
    rounds = std::max(rounds, list(at(client, "by_round"), "block").size());
    trained = std::max(trained, list(at(client, "by_round"), "train").size());
  }
  if (rounds == 0) return section("rounds", "Loss by round and block", paragraph(Html{"Not measured."}));

  const auto by_round = [&](const char* caption, const char* key, const std::vector<std::string>& names) {
    std::vector<TableColumn> columns{{"Office", TableColumn::kText}, {"Block", TableColumn::kText}};
    for (const std::string& name : names) columns.push_back({name});
    HtmlTable table(caption, columns, false);
    for (const json& client : list(run, "clients")) {
      const json& values = list(at(client, "by_round"), key);
      std::vector<Html> cells{office_cell(client), block_cell(palette, number(client, "sparsity"))};
      for (size_t i = 0; i < names.size(); ++i)
        cells.push_back(i < values.size() && number(values[i]) ? loss_cell(number(values[i])) : Html{"–"});
      table.add_row(cells);
    }
    return table.str();
  };

  Html inside = chart(charts, "rounds", "Lines: each office’s loss by round.",
                      Html{"Held-out loss of each office’s block with the adapter it is sent after that "
                           "round; 0 is before tuning."});
  inside += by_round("Loss of each block after each round, nats a token", "block", round_names(run, rounds));
  if (trained > 0) {
    std::vector<std::string> names;
    for (size_t i = 0; i < trained; ++i) names.push_back(fmt::format("{}", i + 1));
    inside += html("<details><summary>Training loss at the end of each tuning</summary>\n{}</details>\n",
                   by_round("Training loss by round taken, nats a token", "train", names));
  }
  return section("rounds", "Loss by round and block", inside);
}

Html whole_model(const json& run, const json& charts) {
  const json &llm = at(run, "llm"), &losses = list(llm, "loss_by_round"),
             &perplexities = list(llm, "perplexity_by_round");
  const size_t rounds = std::max(losses.size(), perplexities.size());
  Html inside;
  if (const Html general = general_text(run); !general.markup.empty())
    inside += paragraph(
        html("{} That text is nobody’s records: it shows what of the model’s general ability was kept.", general));
  else
    inside += paragraph(Html{"What the whole model kept of its ability on general text was not measured."});
  const Html by_loss = chart(charts, "llm_loss", "Line: the whole model’s loss by round.",
                             Html{"Loss by round, mean over all held-out answer tokens"});
  const Html by_perplexity = chart(charts, "llm_perplexity", "Line: the whole model’s perplexity by round.",
                                   Html{"Perplexity on general text by round"});
  if (!by_loss.markup.empty() || !by_perplexity.markup.empty())
    inside += html("<div class=\"pair\">\n{}{}</div>\n", by_loss, by_perplexity);

  HtmlTable by_round("The whole model with LEGO’s adapter by round",
                     {{"Round", TableColumn::kText}, {"Loss"}, {"Perplexity"}}, false);
  const std::vector<std::string> names = round_names(run, rounds);
  for (size_t i = 0; i < rounds; ++i)
    by_round.add_row({html("{}", names[i]), loss_cell(i < losses.size() ? number(losses[i]) : std::nullopt),
                      cell(i < perplexities.size() ? number(perplexities[i]) : std::nullopt, perplexity_text)});
  if (!by_round.is_empty()) inside += by_round.str();

  HtmlTable by_office("The whole model on each office’s held-out answers, nats a token",
                      {{"Office", TableColumn::kText},
                       {"Before"},
                       {"LEGO"},
                       {"LEGO − before, 95 % interval", TableColumn::kInterval},
                       {"Verdict", TableColumn::kText},
                       {"FedIT, whole model everywhere"},
                       {"All records in one place"}},
                      true);
  for (const json& client : list(run, "clients")) {
    const json& loss = at(client, "loss");
    const Comparison tuned = llm_minus_untuned(client);
    by_office.add_row({office_cell(client), loss_cell(number(loss, "llm_untuned")), loss_cell(number(loss, "llm_lego")),
                       interval_cell(tuned), verdict_cell(tuned), loss_cell(number(loss, "llm_fedit_dense")),
                       loss_cell(number(loss, "llm_centralised"))});
  }
  if (!by_office.is_empty()) inside += by_office.str();
  return section("model", "The whole model", inside);
}

Html baselines(const json& run) {
  const json& arms = list(run, "arms");
  std::optional<double> lego, least, most;
  bool has_blocks = false;
  for (const json& arm : arms) {
    if (text(arm, "name") == "lego") lego = number(arm, "loss");
    has_blocks = has_blocks || text(arm, "name") == "local";
    if (const auto tokens = number(arm, "tokens"); tokens && *tokens > 0) {
      least = std::min(least.value_or(*tokens), *tokens);
      most = std::max(most.value_or(*tokens), *tokens);
    }
  }
  HtmlTable table("What else the same records would give",
                  {{"Arm", TableColumn::kText},
                   {"What it is", TableColumn::kProse},
                   {"Tokens trained"},
                   {"Time"},
                   {"Loss"},
                   {"Against LEGO"}},
                  true);
  for (const json& arm : arms) {
    const bool is_lego = text(arm, "name") == "lego";
    const auto loss = number(arm, "loss");
    const Html against = is_lego ? Html{"–"} : loss && lego ? figure(difference(*loss - *lego)) : cell({}, {});
    const std::string_view row_class = is_lego ? "own" : "";
    const auto tokens = number(arm, "tokens");
    const Html time =
        tokens && *tokens == 0 && !number(arm, "seconds") ? Html{"–"} : cell(number(arm, "seconds"), seconds_text);
    table.add_row({text_cell(text(arm, "name")), text_cell(text(arm, "what")), cell(tokens, count_text), time,
                   loss_cell(loss), against},
                  row_class);
  }
  if (table.is_empty()) return section("baselines", "Baselines", paragraph(Html{"No baseline was measured."}));
  Html inside =
      paragraph(Html{"Mean loss over all offices’ held-out answer tokens; lower is better. A positive number in the "
                     "last column means that LEGO’s loss is lower. These are means without intervals, from one seed."});
  constexpr double kSameTokens = 1.05;
  if (least && most && *most > *least * kSameTokens)
    inside += paragraph(html("The arms did not train on equal numbers of tokens: {} to {}.", figure(count(*least)),
                             figure(count(*most))));
  if (has_blocks)
    inside += paragraph(Html{"“local” is scored on the offices’ blocks, the other arms on the whole model."});
  inside += table.str();
  return section("baselines", "Baselines", inside);
}

Html cost_by_block(const json& run, const json& charts) {
  const Palette palette(run);
  const json& model = at(run, "model");
  const auto download = number(model, "bytes");
  HtmlTable table("What each block takes",
                  {{"Block", TableColumn::kText},
                   {"Method", TableColumn::kText},
                   {"Weights kept"},
                   {"On disk"},
                   {"of the download"},
                   {"of dense bf16"},
                   {"Perplexity before tuning"},
                   {"Tokens/s, tuning"},
                   {"Sent up"},
                   {"Sent down"}},
                  true);
  std::vector<std::string> larger;
  for (const json& block : list(run, "blocks")) {
    const auto sparsity = number(block, "sparsity"), size = number(block, "bytes"),
               nonzeros = number(block, "nonzeros"), parameters = number(block, "parameters");
    const auto ratio = [](std::optional<double> part, std::optional<double> whole) {
      return part && whole && *whole > 0 ? std::optional(*part / *whole) : std::nullopt;
    };
    const auto dense = parameters ? std::optional(*parameters * 2) : std::nullopt;
    std::optional<double> up, down;
    for (const json& client : list(run, "clients"))
      if (text(client, "block") == text(block, "name") && number(client, "sparsity") == sparsity) {
        if (const auto sent = number(client, "bytes_up")) up = up.value_or(0) + *sent;
        if (const auto sent = number(client, "bytes_down")) down = down.value_or(0) + *sent;
      }
    if (sparsity && *sparsity > 0 && size && download && *size > *download) larger.push_back(percent(*sparsity));
    table.add_row(
        {block_cell(palette, sparsity), text_cell(text(block, "method")), cell(ratio(nonzeros, parameters), percent),
         cell(size, bytes_text), cell(ratio(size, download), percent), cell(ratio(size, dense), percent),
         cell(number(block, "perplexity"), perplexity_text), cell(number(block, "tune_tokens_per_second"), count_text),
         cell(up, bytes_text), cell(down, bytes_text)});
  }
  if (table.is_empty()) return section("cost", "Cost by block", paragraph(Html{"Not measured."}));
  Html inside;
  const auto parameters = number(model, "parameters");
  const std::string dtype = text(model, "dtype");
  if (download)
    inside += paragraph(html("The download is {}{}{}.", figure(bytes(*download)),
                             dtype.empty() ? Html() : html(" ({})", dtype),
                             parameters ? html("; all {} weights as dense bf16 would be {}", figure(count(*parameters)),
                                               figure(bytes(*parameters * 2)))
                                        : Html()));
  if (!larger.empty())
    inside += html(
        "<p><strong>Stored, {} of {} {} larger than the download.</strong> A block’s weights are no longer "
        "in the download’s format.</p>\n",
        larger.size() == 1 ? "the block" : "the blocks", enumerated(larger), larger.size() == 1 ? "is" : "are");
  inside += table.str();
  inside += html("<p class=\"note\">{}</p>\n",
                 "“Sent” sums over the block’s offices and all rounds; MB are millions of bytes. Weights "
                 "kept count all of the model’s, those that are never pruned included.");
  inside += chart(charts, "sizes", "Bars: bytes on disk of the download, of dense bf16 and of each block.",
                  Html{"Size on disk"});
  return section("cost", "Cost by block", inside);
}

Html reproduce(const json& run) {
  const std::string config = text(run, "config");
  if (config.empty()) return section("reproduce", "Reproduce", paragraph(Html{"The configuration was not recorded."}));
  std::vector<Html> seeds;
  for (size_t begin = 0; begin < config.size();) {
    const size_t end = std::min(config.find('\n', begin), config.size());
    const std::string_view line = std::string_view(config).substr(begin, end - begin);
    const size_t first = line.find_first_not_of(" \t"), equals = line.find('=');
    if (first != std::string_view::npos && equals != std::string_view::npos && line[first] != '#') {
      const std::string_view key = line.substr(first, line.find_last_not_of(" \t", equals - 1) + 1 - first);
      if (key == "seed" || key.ends_with("_seed")) seeds.push_back(html("<code>{}</code>", line.substr(first)));
    }
    begin = end + 1;
  }
  const std::string command = text(run, "command");
  Html inside = paragraph(
      html("Save the configuration below as <code>federation.toml</code> beside the data that it names, and run"));
  inside +=
      html("<pre><code>{}</code></pre>\n", command.empty() ? "brick simulate federation.toml --out run" : command);
  inside += seeds.empty() ? paragraph(Html{"The configuration sets no seed; the default was used."})
                          : paragraph(html("Seeds: {}.", parts_of(seeds)));
  inside +=
      paragraph(Html{"Losses are meant to repeat bit for bit on the same machine, build and number of "
                     "threads; times differ."});
  inside += html(
      "<details><summary>Configuration as it was run</summary>\n<pre "
      "tabindex=\"0\"><code>{}</code></pre>\n</details>\n",
      config);
  return section("reproduce", "Reproduce", inside);
}

}  // namespace brick::report
