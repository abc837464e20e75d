// What a run's records say in sentences. Nothing is said that no number of the run stands behind.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "brick/report/page_html.h"

namespace brick::report {

struct VerdictCounts {
  int64_t better = 0, unclear = 0, worse = 0, unknown = 0;
  int64_t all() const { return better + unclear + worse + unknown; }
};
VerdictCounts count_verdicts(const nlohmann::json& run);  // LEGO against the block tuned alone

// The page's first paragraphs: what ran and for how long; the whole model; LEGO against tuning alone.
std::vector<Html> headline(const nlohmann::json& run);

// One sentence for each comparison that went against LEGO, whether its interval lies above zero or only its
// mean does.
std::vector<Html> against_lego(const nlohmann::json& run);

// How the whole model's perplexity on general text moved; empty if not measured.
Html general_text(const nlohmann::json& run);

}  // namespace brick::report
