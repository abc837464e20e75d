#include "brick/report/page.h"

#include <nlohmann/json.hpp>

#include "brick/base/sha256.h"
#include "brick/io/json_file.h"
#include "brick/report/asset.h"
#include "brick/report/page_charts.h"
#include "brick/report/page_data.h"
#include "brick/report/page_html.h"
#include "brick/report/page_sections.h"
#include "brick/report/page_words.h"

namespace brick::report {
namespace {

using nlohmann::json;

// A source of Content-Security-Policy: only an element with exactly this text may run, so that even markup
// that slipped through the escaping could not.
std::string policy_hash(std::string_view element) {
  static constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const std::string hex = Sha256().update(element).hex();
  std::string base64;
  // 32 bytes are 256 bits: 42 digits of 6 bits, one with the last 4 and two zeros, one "=".
  uint32_t bits = 0;
  int held = 0;
  for (const char c : hex) {
    bits = bits << 4 | static_cast<uint32_t>(c <= '9' ? c - '0' : c - 'a' + 10);
    held += 4;
    if (held >= 6) {
      held -= 6;
      base64 += kDigits[bits >> held & 63];
    }
  }
  base64 += kDigits[bits << (6 - held) & 63];
  return "'sha256-" + base64 + "='";
}

Html against_box(const json& run) {
  Html sentences;
  for (const Html& sentence : against_lego(run)) sentences += paragraph(sentence);
  if (sentences.markup.empty()) return {};
  return html(
      "<aside class=\"against\" aria-labelledby=\"against\">\n<h2 id=\"against\">Where LEGO "
      "loses</h2>\n{}</aside>\n",
      sentences);
}

}  // namespace

std::string simulation_page(const json& records) {
  // Once through text: bytes that are not UTF-8 become U+FFFD, what is no number becomes null.
  const json run = json::parse(io::compact_json(records));
  const json charts = chart_data(run);
  Html lead, main = what_was_run(run);
  for (const Html& part : headline(run)) lead += paragraph(part);
  main += quality_by_office(run, charts);
  main += loss_by_round(run, charts);
  main += whole_model(run, charts);
  main += baselines(run);
  main += cost_by_block(run, charts);
  main += reproduce(run);

  const std::string title = text(run, "title"), version = text(run, "tool_version");
  const std::string heading = escaped(title.empty() ? "A federation" : title);
  const std::string scripts = policy_hash(asset::kChartMinJs) + " " + policy_hash(asset::kPageJs);
  return filled(asset::kPageHtml, {{"title", heading},
                                   {"version", escaped(version.empty() ? "of unknown version" : version)},
                                   {"script_hashes", scripts},
                                   {"style_hash", policy_hash(asset::kPageCss)},
                                   {"css", asset::kPageCss},
                                   {"lead", lead.markup},
                                   {"against", against_box(run).markup},
                                   {"figures", key_figures(run).markup},
                                   {"main", main.markup},
                                   {"run", script_json(run)},
                                   {"charts", script_json(charts)},
                                   {"chart_js", asset::kChartMinJs},
                                   {"js", asset::kPageJs}});
}

}  // namespace brick::report
