#include "brick/pipeline/aggregate_job.h"

#include <charconv>
#include <filesystem>
#include <functional>
#include <list>
#include <map>
#include <set>
#include <system_error>

#include "brick/base/error.h"
#include "brick/base/process.h"
#include "brick/eval/language_loss.h"
#include "brick/federate/check_update.h"
#include "brick/federate/choose_tau.h"
#include "brick/federate/placement.h"
#include "brick/federate/redistribute.h"
#include "brick/model/load.h"
#include "brick/pipeline/artifacts.h"

namespace brick::pipeline {
namespace {

double parse_number(const std::string& text, const std::string& what) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    fail(ErrorCode::kInvalidInput, "{} '{}': expected a number", what, text);
  return value;
}

void check_rule(const AggregateJob& job) {
  federate::AggregateConfig config = job.config;
  if (job.tau != "auto") config.tau = parse_number(job.tau, "tau");
  federate::check_config(config);
}

// What clients of one block share.
struct Block {
  model::Model model;
  federate::Placement placement;
  std::string fingerprint;

  Block(const std::string& path, const model::Model& base)
      : model(model::load_model(path, {.tokenizer = false})),
        placement(model, base),
        fingerprint(model::fingerprint(model)) {}
};

// What the updates look at: files, each read a matrix at a time, and what the clients share.
struct Clients {
  std::list<model::AdapterFile> files;
  std::map<std::string, Block> blocks;
  std::map<int64_t, model::Adapter> sent;  // by rank
};

// Throws where the client's files are no adapter or no block of the base.
federate::ClientUpdate open_client(const AggregateJob::Client& client, const model::Model& base,
                                   const model::Adapter* global, uint64_t seed, Clients& clients) {
  model::AdapterFile file(client.adapter);
  federate::ClientUpdate update;
  update.name = client.adapter;
  update.records = client.records;
  update.base_fingerprint = file.config().base_fingerprint;
  if (!client.block.empty()) {
    const auto found = clients.blocks.find(client.block);
    const Block& block = found != clients.blocks.end()
                             ? found->second
                             : clients.blocks.try_emplace(client.block, client.block, base).first->second;
    block.placement.describe(update);
    if (update.base_fingerprint.empty()) update.base_fingerprint = block.fingerprint;
  }
  if (const int64_t rank = file.config().rank; global != nullptr && rank != global->config.rank) {
    if (!clients.sent.contains(rank)) clients.sent.emplace(rank, federate::truncate(*global, rank, seed));
    update.sent = &clients.sent.at(rank);
  }
  update.file = &clients.files.emplace_back(std::move(file));
  return update;
}

// The same adapter twice may be meant, its records in two parts; more likely a name is wrong.
void warn_of_twins(const std::vector<AggregateJob::Client>& clients, ProgressSink& sink) {
  std::set<std::filesystem::path> seen;
  std::error_code error;
  for (const AggregateJob::Client& client : clients)
    if (!seen.insert(std::filesystem::weakly_canonical(std::filesystem::path(client.adapter) / "", error)).second)
      sink.warn(fmt::format("client {} is given more than once and counts each time", client.adapter));
}

}  // namespace

AggregateJob::Client parse_client(const std::string& text) {
  const size_t last = text.rfind(','), first = last == std::string::npos ? last : text.rfind(',', last - 1);
  if (first == std::string::npos || last == 0)
    fail(ErrorCode::kInvalidInput, "client '{}': expected ADAPTER,BLOCK,RECORDS", text);
  return {text.substr(0, first), text.substr(first + 1, last - first - 1),
          parse_number(text.substr(last + 1), "records of client " + text.substr(0, first))};
}

model::Adapter aggregate_updates(const model::Adapter* global, std::span<const federate::ClientUpdate> updates,
                                 federate::AggregateConfig config, const std::string& tau, uint64_t seed,
                                 const std::function<double(const model::Adapter&)>& validation_loss,
                                 double* tau_used) {
  if (config.rule != "hete-tau") return federate::aggregate(global, updates, config, seed);
  if (tau != "auto") {
    *tau_used = config.tau = parse_number(tau, "tau");
    return federate::aggregate(global, updates, config, seed);
  }
  if (!validation_loss)
    fail(ErrorCode::kInvalidInput, "tau = auto needs the server's validation records (--validation), or give a number");
  federate::TauChoice choice = federate::choose_tau(
      federate::kTauCandidates,
      [&](double candidate) {
        config.tau = candidate;
        return federate::aggregate(global, updates, config, seed);
      },
      validation_loss);
  *tau_used = choice.tau;
  return std::move(choice.adapter);
}

nlohmann::json aggregate(const AggregateJob& job, const RunSettings& settings, ProgressSink& sink) {
  if (job.clients.empty()) fail(ErrorCode::kInvalidInput, "no clients: give --client ADAPTER,BLOCK,RECORDS");
  check_rule(job);
  std::vector<std::filesystem::path> inputs{job.base, other_than(job.out, job.global), job.validation};
  for (const AggregateJob::Client& client : job.clients) inputs.insert(inputs.end(), {client.adapter, client.block});
  check_output(job.out, settings, std::move(inputs));
  const Stopwatch watch;
  const Workbench base(job.base, settings, !job.validation.empty());
  const std::optional<model::Adapter> global = load_fitting_adapter(job.global, base.model(), sink);

  warn_of_twins(job.clients, sink);

  // A file that cannot be read rejects its client, not the round.
  Clients clients;
  std::vector<federate::ClientUpdate> updates;
  nlohmann::json rejected = nlohmann::json::array();
  for (const AggregateJob::Client& client : job.clients) {
    try {
      updates.push_back(open_client(client, base.model(), global ? &*global : nullptr, settings.seed, clients));
    } catch (const Error& e) {
      rejected.push_back({{"client", client.adapter}, {"reason", e.what()}});
    }
  }
  if (updates.empty())
    fail(ErrorCode::kInvalidInput, "no client is acceptable: {}", rejected[0]["reason"].get<std::string>());
  const federate::Review review =
      federate::review(updates, federate::reference_of(base.model(), global ? &*global : nullptr));
  for (size_t i = 0; i < updates.size(); ++i)
    if (review.reasons[i]) rejected.push_back({{"client", updates[i].name}, {"reason", *review.reasons[i]}});
  for (const auto& entry : rejected)
    sink.warn(
        fmt::format("client {} rejected: {}", entry["client"].get<std::string>(), entry["reason"].get<std::string>()));

  kernels::Context context(kernels::choose_compute(settings.compute));
  std::function<double(const model::Adapter&)> validation_loss;
  data::EncodedRecords validation;
  if (!job.validation.empty()) {
    train::TuneConfig config;
    config.length = job.length;
    config.chat_template = job.chat_template;
    base.warn_of_style(job.chat_template, sink);
    validation = base.records(job.validation, config);
    validation_loss = [&](const model::Adapter& adapter) {
      return eval::total(eval::score_records(base.model(), {&adapter}, validation.sequences, context, sink)).mean();
    };
  }
  double tau = -1;
  const model::Adapter result = aggregate_updates(global ? &*global : nullptr, review.accepted, job.config, job.tau,
                                                  settings.seed, validation_loss, &tau);
  write_adapter(result, job.base, job.out, settings.force);
  nlohmann::json out{{"rule", job.config.rule},
                     {"rank", result.config.rank},
                     {"clients", review.accepted.size()},
                     {"rejected", rejected},
                     {"seconds", watch.seconds()}};
  if (tau >= 0) out["tau"] = tau;
  return out;
}

}  // namespace brick::pipeline
