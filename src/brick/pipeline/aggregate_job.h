// `brick aggregate`: one round's aggregation from files.
#pragma once

#include <vector>

#include "brick/federate/rules.h"
#include "brick/pipeline/workbench.h"

namespace brick::pipeline {

// TAU: a number or "auto", chosen by the loss of the aggregated model on `validation`.
struct AggregateJob {
  struct Client {
    std::string adapter, block;  // block empty: the base itself
    double records = 0;
  };
  std::string base, global, out, validation, tau = "auto", chat_template;
  std::vector<Client> clients;
  federate::AggregateConfig config;
  int64_t length = 512;
};

// "ADAPTER,BLOCK,N" as the command line has it; BLOCK may be empty.
AggregateJob::Client parse_client(const std::string& text);

// {"rule", "rank", "tau"?, "seconds", "clients", "rejected": [{"client", "reason"}]}
nlohmann::json aggregate(const AggregateJob& job, const RunSettings& settings, ProgressSink& sink);

// The rule's result; with tau "auto" (hete-tau only) the best candidate by `validation_loss`, written to *tau.
model::Adapter aggregate_updates(const model::Adapter* global, std::span<const federate::ClientUpdate> updates,
                                 federate::AggregateConfig config, const std::string& tau, uint64_t seed,
                                 const std::function<double(const model::Adapter&)>& validation_loss, double* tau_used);

}  // namespace brick::pipeline
