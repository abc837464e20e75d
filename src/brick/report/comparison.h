// Models, blocks and finished federations side by side: rows, one terminal table, one offline page.
//
// A row is an object; what was not measured is absent:
//   "name", "kind" ("model", "block", "arm" or "client"; the last three of a federation's run)
//   "method", "pattern", "values", "sparsity" (share asked to be removed), "parameters", "nonzeros", "bytes" (on disk)
//   "perplexity" and "text", which says of what; "loss" (nats a token) and "records", likewise
//   "accuracy", the mean over "tasks" {name: {"acc", …}}, as of brick eval, and "questions", which says of which
//   "decode_tokens_per_second", "train_tokens_per_second", of the machine that the row was measured on
//   "front": of "bytes", "decode" and "train" those on whose Pareto front with perplexity the row is, of
//   "accuracy-bytes", … likewise with accuracy
// Every string is treated as hostile, and nothing here throws for what a row or run says.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace brick::report {

// Rows of a finished run: its blocks (perplexity before tuning, speed of tuning), its arms and its clients, the latter
// tuned alone and with LEGO. `run` is what simulation_page() takes, or what brick shrink summarises, which has "rows"
// of its own; `name` stands before each row's.
nlohmann::json rows_of_run(const nlohmann::json& run, const std::string& name);

// Sets "front" of each row that has a perplexity: no other row with a perplexity of the same text has both no more
// perplexity and no more bytes (no less speed), one of them strictly; with accuracy and questions likewise. Rows alone
// in what they measure get none.
void mark_fronts(nlohmann::json& rows);

// A line a row, of at most 120 columns; columns that no row has are left out. Fronts are those of accuracy only where
// no row has a perplexity.
std::string comparison_table(const nlohmann::json& rows);

// `comparison`: "rows" (marked), "tool_version", "compute", "machine" {"cpu", "isa", "threads"}. One self-contained
// file as simulation_page().
std::string comparison_page(const nlohmann::json& comparison);

}  // namespace brick::report
