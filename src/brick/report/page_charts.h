// The numbers of the page's charts; page.js only draws them.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace brick::report {

// One member a chart for which the run has data: "quality", "differences", "rounds", "llm_loss",
// "llm_perplexity", "sizes". Slots are colours as in Palette, -1 for what is no block.
nlohmann::json chart_data(const nlohmann::json& run);

// Names of n evaluated rounds: "0".."R" where every round was evaluated.
std::vector<std::string> round_names(const nlohmann::json& run, size_t n);

}  // namespace brick::report
