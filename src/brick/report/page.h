// A finished federation in words, tables and charts: one offline HTML page, one terminal table.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace brick::report {

// `run` is what pipeline/simulation_report.cc writes; any key may be absent or null and is then left out of
// the page or called "not measured". Losses are mean negative log-likelihoods an answer token, in nats;
// intervals are 95 %, paired over records. Every string of `run` is treated as hostile: escaped in HTML, and
// in the data of the charts. Never throws for what `run` says.

// One self-contained file: style, script, Chart.js and data inlined, no reference to anything elsewhere. The
// tables are in the HTML; only the charts need JavaScript.
std::string simulation_page(const nlohmann::json& run);

// A row an office, the whole model's row, then totals; lines of at most 100 columns.
std::string summary_table(const nlohmann::json& run);

}  // namespace brick::report
