#include "brick/report/page_words.h"

#include <cmath>

#include "brick/report/page_data.h"

namespace brick::report {
namespace {

using nlohmann::json;

constexpr int kLossDecimals = 3, kPerplexityDecimals = 2;

const char* moved(double first, double last, int decimals) {
  if (fixed(first, decimals) == fixed(last, decimals)) return "stayed at";
  return last < first ? "fell" : "rose";
}

Html from_to(const Ends& ends, int decimals) {
  const char* verb = moved(ends.first, ends.last, decimals);
  if (std::string_view(verb) == "stayed at") return html("{} {}", verb, figure(fixed(ends.last, decimals)));
  return html("{} from {} to <strong>{}</strong>", verb, figure(fixed(ends.first, decimals)),
              figure(fixed(ends.last, decimals)));
}

Html joined(const std::vector<Html>& parts) {
  constexpr size_t kMost = 6;
  Html out;
  const size_t shown = parts.size() > kMost + 1 ? kMost : parts.size();
  for (size_t i = 0; i < shown; ++i) {
    if (i > 0) out += Html{i + 1 == parts.size() ? " and " : ", "};
    out += parts[i];
  }
  if (shown < parts.size()) out += html(" and {} more (see the table)", parts.size() - shown);
  return out;
}

Html what_ran(const json& run) {
  const auto offices = static_cast<int64_t>(list(run, "clients").size());
  const std::string model = text(at(run, "model"), "name");
  Html out = html("{} tuned {}", plural(offices, "office", "offices"),
                  model.empty() ? html("a model’s blocks") : html("blocks of {}", name_html(model)));
  if (const auto rounds = number(run, "rounds"))
    out += html(" in {}", plural(static_cast<int64_t>(*rounds), "round", "rounds"));
  if (const auto seconds = number(run, "seconds")) {
    out += html("; one machine simulated it all in {}", figure(duration(*seconds)));
    const auto arms = number(at(run, "seconds_by_stage"), "arms");
    if (arms && *arms > 0) out += html(", {} of that for baselines", figure(duration(*arms)));
  }
  out += Html{"."};
  const auto up = number(run, "bytes_up"), down = number(run, "bytes_down");
  if (up && down)
    out += html(" Adapters came to {} sent up by the offices and {} sent down to them.", figure(bytes(*up)),
                figure(bytes(*down)));
  return out;
}

Html against_alone(const json& run) {
  const VerdictCounts counts = count_verdicts(run);
  if (counts.all() == 0) return {};
  if (counts.unknown == counts.all())
    return Html{"How LEGO compares with tuning each block alone was not measured with an interval."};
  std::vector<std::string> parts;
  const auto add = [&](int64_t n, const std::string& what) {
    if (n > 0) parts.push_back(fmt::format("{} at {}", what, n));
  };
  add(counts.better, "better");
  add(counts.unclear, "not clearly different");
  add(counts.worse, "worse");
  add(counts.unknown, "without an interval");
  return html("On an office’s own block and held-out records, LEGO against tuning that block alone is {} of {}.",
              enumerated(parts), plural(counts.all(), "office", "offices"));
}

// Sentences on one kind of paired comparison: "LEGO is worse than <reference> at clinic (+0.03, ...)".
void add_losses(const json& run, Comparison (*compared)(const json&), std::string_view subject,
                std::string_view reference, std::vector<Html>& sentences) {
  std::vector<Html> clear, unclear, unknown;
  for (const json& client : list(run, "clients")) {
    const Comparison comparison = compared(client);
    if (comparison.verdict() != Verdict::kWorse && !comparison.mean_is_worse()) continue;
    const Html name = html("<b>{}</b>", name_html(name_of(client)));
    const Html mean = comparison.mean ? figure(difference(*comparison.mean)) : Html{kMissing};
    if (!comparison.has_interval()) {
      unknown.push_back(html("{} ({})", name, mean));
      continue;
    }
    auto& kind = comparison.verdict() == Verdict::kWorse ? clear : unclear;
    kind.push_back(html("{} ({}; 95 % interval {} to {})", name, mean, figure(difference(*comparison.low)),
                        figure(difference(*comparison.high))));
  }
  if (!clear.empty())
    sentences.push_back(html("<strong>{} is worse</strong> than {} at {}.", subject, reference, joined(clear)));
  if (!unclear.empty())
    sentences.push_back(html("{} is worse on average than {} at {}; the interval includes zero, so this may be chance.",
                             subject, reference, joined(unclear)));
  if (!unknown.empty())
    sentences.push_back(
        html("{} is worse on average than {} at {}; no interval was measured.", subject, reference, joined(unknown)));
}

void add_better_arms(const json& run, std::vector<Html>& sentences) {
  std::optional<double> lego;
  for (const json& arm : list(run, "arms"))
    if (text(arm, "name") == "lego") lego = number(arm, "loss");
  if (!lego) return;
  std::vector<Html> better;
  for (const json& arm : list(run, "arms"))
    if (const auto loss = number(arm, "loss"); loss && *loss < *lego && text(arm, "name") != "lego")
      better.push_back(html("<b>{}</b> ({})", name_html(text(arm, "name")), figure(fixed(*loss, kLossDecimals))));
  if (!better.empty())
    sentences.push_back(html("Lower loss than the whole model with LEGO ({}): {}; means without an interval.",
                             figure(fixed(*lego, kLossDecimals)), joined(better)));
}

}  // namespace

VerdictCounts count_verdicts(const json& run) {
  VerdictCounts counts;
  for (const json& client : list(run, "clients")) {
    switch (lego_minus_local(client).verdict()) {
      case Verdict::kBetter:
        ++counts.better;
        break;
      case Verdict::kUnclear:
        ++counts.unclear;
        break;
      case Verdict::kWorse:
        ++counts.worse;
        break;
      case Verdict::kUnknown:
        ++counts.unknown;
    }
  }
  return counts;
}

Html general_text(const json& run) {
  const json& llm = at(run, "llm");
  const auto perplexity = ends(list(llm, "perplexity_by_round"));
  if (!perplexity) return {};
  const std::string source = text(llm, "text");
  Html out = html("The whole model’s perplexity on {} {}", source.empty() ? html("general text") : name_html(source),
                  from_to(*perplexity, kPerplexityDecimals));
  const double change = perplexity->last / perplexity->first - 1;
  if (perplexity->first > 0 && fixed(perplexity->first, 2) != fixed(perplexity->last, 2))
    out += html(" ({}{})", Html{change < 0 ? "" : "+"}, figure(percent(change)));
  return out += Html{"; lower is better."};
}

std::vector<Html> headline(const json& run) {
  std::vector<Html> paragraphs{what_ran(run)};
  Html brought;
  if (const auto loss = ends(list(at(run, "llm"), "loss_by_round")))
    brought = html("Over all held-out answers the whole model’s loss {} nats a token.", from_to(*loss, kLossDecimals));
  else
    brought = Html{"The whole model’s loss before and after was not measured."};
  if (const Html general = general_text(run); !general.markup.empty()) brought += html(" {}", general);
  paragraphs.push_back(brought);
  if (const Html alone = against_alone(run); !alone.markup.empty()) paragraphs.push_back(alone);
  return paragraphs;
}

std::vector<Html> against_lego(const json& run) {
  std::vector<Html> sentences;
  add_losses(run, lego_minus_local, "LEGO", "the same block tuned alone", sentences);
  add_losses(run, lego_minus_untuned, "LEGO", "the block before tuning", sentences);
  add_losses(run, llm_minus_untuned, "The whole model after LEGO", "before", sentences);
  const json& llm = at(run, "llm");
  if (const auto loss = ends(list(llm, "loss_by_round")); loss && loss->last > loss->first)
    sentences.push_back(html("<strong>The whole model’s loss rose</strong> from {} to {}.",
                             figure(fixed(loss->first, kLossDecimals)), figure(fixed(loss->last, kLossDecimals))));
  if (const auto perplexity = ends(list(llm, "perplexity_by_round"));
      perplexity && perplexity->last > perplexity->first)
    sentences.push_back(html("On general text the whole model got worse: perplexity {} before, {} after.",
                             figure(fixed(perplexity->first, kPerplexityDecimals)),
                             figure(fixed(perplexity->last, kPerplexityDecimals))));
  add_better_arms(run, sentences);
  return sentences;
}

}  // namespace brick::report
