#include "brick/report/page.h"

#include <nlohmann/json.hpp>

#include "brick/report/page_charts.h"
#include "brick/report/page_data.h"
#include "brick/report/page_frame.h"
#include "brick/report/page_sections.h"
#include "brick/report/page_words.h"

namespace brick::report {
namespace {

using nlohmann::json;

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
  const json run = cleaned(records);
  const json charts = chart_data(run);
  Html lead, main = what_was_run(run);
  for (const Html& part : headline(run)) lead += paragraph(part);
  main += quality_by_office(run, charts);
  main += loss_by_round(run, charts);
  main += whole_model(run, charts);
  main += baselines(run);
  main += cost_by_block(run, charts);
  main += reproduce(run);

  const std::string title = text(run, "title");
  Html figures = key_figures(run);
  figures += against_box(run);
  return framed({.kind = "report of a simulated federation",
                 .title = title.empty() ? "A federation" : title,
                 .version = text(run, "tool_version"),
                 .sections = {{"run", "What was run"},
                              {"quality", "Quality"},
                              {"rounds", "Rounds"},
                              {"model", "Whole model"},
                              {"baselines", "Baselines"},
                              {"cost", "Cost"},
                              {"reproduce", "Reproduce"}},
                 .lead = lead,
                 .figures = figures,
                 .main = main},
                run, charts);
}

}  // namespace brick::report
