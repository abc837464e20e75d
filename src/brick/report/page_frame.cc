#include "brick/report/page_frame.h"

#include <nlohmann/json.hpp>

#include "brick/base/error.h"
#include "brick/base/sha256.h"
#include "brick/report/asset.h"

namespace brick::report {
namespace {

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

}  // namespace

std::string framed(const PageParts& parts, const nlohmann::json& records, const nlohmann::json& charts) {
  BRICK_ASSERT(!parts.sections.empty());
  Html nav;
  for (const auto& [id, name] : parts.sections) nav += html("<a href=\"#{}\">{}</a>\n", id, name);
  const std::string scripts = policy_hash(asset::kChartMinJs) + " " + policy_hash(asset::kPageJs);
  return filled(asset::kPageHtml, {{"longest_label", std::to_string(kLongestLabel)},
                                   {"kind", escaped(parts.kind)},
                                   {"title", escaped(parts.title)},
                                   {"version", escaped(parts.version.empty() ? "of unknown version" : parts.version)},
                                   {"first", escaped(parts.sections.front().first)},
                                   {"nav", nav.markup},
                                   {"script_hashes", scripts},
                                   {"style_hash", policy_hash(asset::kPageCss)},
                                   {"css", asset::kPageCss},
                                   {"lead", parts.lead.markup},
                                   {"figures", parts.figures.markup},
                                   {"main", parts.main.markup},
                                   {"records", script_json(records)},
                                   {"charts", script_json(charts)},
                                   {"chart_js", asset::kChartMinJs},
                                   {"js", asset::kPageJs}});
}

}  // namespace brick::report
