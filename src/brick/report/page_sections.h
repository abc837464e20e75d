// The page's sections, each with its heading; tables first, a chart where the run has its numbers.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "brick/report/page_html.h"

namespace brick::report {

// `charts` is chart_data(run).
Html key_figures(const nlohmann::json& run);
Html what_was_run(const nlohmann::json& run);
Html quality_by_office(const nlohmann::json& run, const nlohmann::json& charts);
Html loss_by_round(const nlohmann::json& run, const nlohmann::json& charts);
Html whole_model(const nlohmann::json& run, const nlohmann::json& charts);
Html baselines(const nlohmann::json& run);
Html cost_by_block(const nlohmann::json& run, const nlohmann::json& charts);
Html reproduce(const nlohmann::json& run);

}  // namespace brick::report
