#include "brick/report/page_parts.h"

#include <nlohmann/json.hpp>
#include <set>

namespace brick::report {

using nlohmann::json;

Html section(std::string_view id, std::string_view heading, const Html& inside) {
  return html("<section aria-labelledby=\"{}\">\n<h2 id=\"{}\">{}</h2>\n{}</section>\n", id, id, heading, inside);
}

Html chart(const json& charts, std::string_view name, std::string_view label, const Html& caption) {
  if (!charts.contains(std::string(name))) return {};
  return html(
      "<figure class=\"chart\" data-chart=\"{}\" hidden>\n<div class=\"plot\"><canvas role=\"img\" "
      "aria-label=\"{} The "
      "numbers are in this section’s tables.\"></canvas></div>\n<figcaption>{}</figcaption>\n</figure>\n",
      name, label, caption);
}

Html cell(std::optional<double> value, const std::function<std::string(double)>& format) {
  return value ? figure(format(*value)) : html("<span class=\"quiet\">{}</span>", kMissing);
}

Html loss_cell(std::optional<double> loss) {
  return cell(loss, [](double value) { return fixed(value, 3); });
}

Html text_cell(const std::string& text) {
  return text.empty() ? html("<span class=\"quiet\">{}</span>", "not recorded") : name_html(text);
}

Html block_cell(const Palette& palette, std::optional<double> sparsity) {
  if (!sparsity) return text_cell("");
  return html("<span class=\"block\"><span class=\"swatch s{}\" aria-hidden=\"true\"></span>{}</span>",
              palette.slot(sparsity), figure(block_name(*sparsity)));
}

Html office_cell(const json& client) { return name_html(name_of(client)); }

Html interval_cell(const Comparison& comparison) {
  if (!comparison.mean) return cell({}, {});
  Html out = figure(difference(*comparison.mean));
  if (comparison.has_interval())
    out += html("<span class=\"interval\">{} to {}</span>", figure(difference(*comparison.low)),
                figure(difference(*comparison.high)));
  else
    out += Html{"<span class=\"interval\">no interval</span>"};
  return out;
}

Html verdict_cell(const Comparison& comparison) {
  static constexpr const char* kClasses[] = {"quiet", "better", "unclear", "worse"};
  const Verdict verdict = comparison.verdict();
  return html("<span class=\"verdict {}\">{}</span>", kClasses[static_cast<int>(verdict)], word(verdict));
}

Html block_legend(const json& run, const Palette& palette) {
  std::set<double> sparsities;
  for (const json& client : list(run, "clients"))
    if (const auto sparsity = number(client, "sparsity")) sparsities.insert(*sparsity);
  Html keys;
  for (const double sparsity : sparsities)
    keys += html("<span class=\"key\"><span class=\"swatch s{}\"></span>{}</span>", palette.slot(sparsity),
                 figure(block_name(sparsity)));
  return html("<span class=\"keys\">{}</span>", keys);
}

}  // namespace brick::report
