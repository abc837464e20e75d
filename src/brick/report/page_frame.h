// What every page has: head, policy, navigation, style, scripts, data.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "brick/report/page_html.h"

namespace brick::report {

struct PageParts {
  std::string kind, title, version;                           // plain text; `kind` says what page it is
  std::vector<std::pair<std::string, std::string>> sections;  // id and name of those in `main`, at least one
  Html lead, figures, main;
};

// One self-contained file. `records` is put in it as JSON, `charts` for page.js.
std::string framed(const PageParts& parts, const nlohmann::json& records, const nlohmann::json& charts);

}  // namespace brick::report
