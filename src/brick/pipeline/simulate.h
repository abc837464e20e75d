// `brick simulate`: all of LEGO (arXiv 2410.18287) in one process. The server prunes the model into blocks, each client
// tunes its block with LoRA from what it was sent, the server aggregates, and so on for R rounds; baselines and
// evaluations run beside. A killed run continues with `resume` and ends in the same bits (run_folder.h).
#pragma once

#include <optional>

#include "brick/pipeline/workbench.h"

namespace brick::pipeline {

// {"rounds", "final": {"llm", "clients": […], "arms": {name: …}}, "bytes_up", "bytes_down", "seconds", "table",
// "report"}; writes the run folder with metrics.jsonl, rounds/, blocks/ and report.html. `seed`, if any, takes the
// place of the configuration's.
nlohmann::json simulate(const std::string& config_path, const std::string& out, bool resume,
                        std::optional<uint64_t> seed, const RunSettings& settings, ProgressSink& sink);

}  // namespace brick::pipeline
