// What every page has: head, policy, navigation, style, scripts, data.
#pragma once

#include <cstddef>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "brick/report/page_html.h"

namespace brick::report {

inline constexpr size_t kLongestLabel = 22;  // characters of a name in a chart; page.js shortens longer ones

struct PageParts {
  std::string kind, title, version;                           // plain text; `kind` says what page it is
  std::vector<std::pair<std::string, std::string>> sections;  // id and name of those in `main`, at least one
  Html lead, figures, main;
};

// One self-contained file. `records` is put in it as JSON, `charts` for page.js.
std::string framed(const PageParts& parts, const nlohmann::json& records, const nlohmann::json& charts);

}  // namespace brick::report
