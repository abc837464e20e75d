// The rounds of a simulation: tune, upload, aggregate.
#include <list>

#include "brick/base/error.h"
#include "brick/federate/check_update.h"
#include "brick/pipeline/aggregate_job.h"
#include "brick/pipeline/artifacts.h"
#include "brick/pipeline/simulation.h"
#include "brick/train/checkpoint.h"

namespace brick::pipeline {
namespace {

enum Draw : uint64_t { kParticipation = 1, kUpload = 2, kTraining = 3 };

bool draw(uint64_t seed, Draw what, int64_t round, size_t client, double probability) {
  Rng rng(seed, stream_id({what, static_cast<uint64_t>(round), client}));
  return rng.uniform() < probability;
}

constexpr int64_t kCheckpointSteps = 25;

}  // namespace

bool Simulation::takes_part(int64_t round, size_t index) const {
  return draw(config_.seed, kParticipation, round, index, clients_[index].config->participation);
}

bool Simulation::uploaded(int64_t round, size_t index) const {
  return takes_part(round, index) && !draw(config_.seed, kUpload, round, index, clients_[index].config->dropout);
}

double Simulation::rounds_taken(size_t index) const {
  int64_t count = 0;
  for (int64_t round = 1; round <= config_.rounds; ++round) count += takes_part(round, index) ? 1 : 0;
  return static_cast<double>(count);
}

nlohmann::json Simulation::tune_unit(const model::Model& model, std::span<const data::TokenSequence> sequences,
                                     const train::TuneConfig& config, const model::Adapter* init, uint64_t seed,
                                     const std::filesystem::path& out) {
  train::TuneOptions options;
  options.seed = seed;
  options.init = init;
  options.checkpoint = out.string() + ".checkpoint";
  options.save_every = kCheckpointSteps;
  options.resume = true;
  options.run_identity = model::mask_hash(model) + model::cut_hash(model);
  const train::TuneResult result = train::tune(model, sequences, config, options, context_, sink_);
  if (!result.stopped.empty()) sink_.warn(result.stopped);
  write_adapter(result.adapter, config_.model.string(), out, true);
  train::remove_checkpoint(options.checkpoint);
  return {{"loss_first", result.loss_first},
          {"loss", result.loss_last},
          {"step", result.steps},
          {"tokens", result.tokens},
          {"supervised_tokens", result.supervised_tokens},
          {"seconds", result.seconds},
          {"bytes", bytes_on_disk(out / "adapter_model.safetensors")},
          {"stopped", result.stopped}};
}

void Simulation::tune_client(int64_t round, size_t index, const model::Adapter& sent) {
  const Client& client = clients_[index];
  const std::string& name = client.config->name;
  const nlohmann::json& event = folder_.once({{"event", "tune"}, {"round", round}, {"client", name}}, [&] {
    const model::Adapter part = on_block(index, sent);
    return tune_unit(*client.block, client.train.sequences, client.config->tune, &part,
                     stream_id({config_.seed, kTraining, static_cast<uint64_t>(round), index}),
                     folder_.round(round) / "clients" / name);
  });
  sink_.note(fmt::format("round {}  {:<14} block {:>3}  {} steps, {} tokens  loss {:.3f} -> {:.3f}  {:.0f} tokens/s",
                         round, name, client.block_name, event.at("step").get<int64_t>(),
                         event.at("tokens").get<int64_t>(), event.at("loss_first").get<double>(),
                         event.at("loss").get<double>(),
                         event.at("tokens").get<double>() / event.at("seconds").get<double>()));
}

void Simulation::upload(int64_t round, size_t index) {
  const std::string& name = clients_[index].config->name;
  folder_.once({{"event", "upload"}, {"round", round}, {"client", name}}, [&] {
    const bool arrived = uploaded(round, index);
    if (!arrived) sink_.note(fmt::format("round {}  {:<14} the upload was lost", round, name));
    const int64_t bytes = bytes_on_disk(folder_.round(round) / "clients" / name / "adapter_model.safetensors");
    return nlohmann::json{{"lost", !arrived}, {"bytes", arrived ? bytes : 0}};
  });
}

void Simulation::aggregate_round(int64_t round, const std::vector<model::Adapter>& sent) {
  const nlohmann::json& event = folder_.once({{"event", "aggregate"}, {"round", round}}, [&] {
    const model::Adapter global = load_global(round - 1);
    std::list<model::AdapterFile> files;
    std::vector<federate::ClientUpdate> updates;
    nlohmann::json rejected = nlohmann::json::array();
    for (size_t i = 0; i < clients_.size(); ++i) {
      if (!uploaded(round, i)) continue;
      federate::ClientUpdate update;
      update.name = clients_[i].config->name;
      try {
        update.file = &files.emplace_back((folder_.round(round) / "clients" / update.name).string());
      } catch (const Error& e) {
        rejected.push_back({{"client", update.name}, {"reason", e.what()}});
        continue;
      }
      update.sent = &sent[i];
      clients_[i].placement->describe(update);
      update.base_fingerprint = update.config().base_fingerprint;
      update.records = static_cast<double>(clients_[i].records);
      updates.push_back(std::move(update));
    }
    std::vector<federate::ClientUpdate> accepted;
    if (!updates.empty()) {
      try {
        const federate::Review review = federate::review(updates, federate::reference_of(bench_.model(), &global));
        accepted = review.accepted;
        for (size_t i = 0; i < updates.size(); ++i)
          if (review.reasons[i]) rejected.push_back({{"client", updates[i].name}, {"reason", *review.reasons[i]}});
      } catch (const Error& e) {  // no client is acceptable: the round changes nothing
        for (const federate::ClientUpdate& update : updates)
          rejected.push_back({{"client", update.name}, {"reason", e.what()}});
      }
    }
    double tau = -1;
    std::function<double(const model::Adapter&)> validation_loss;
    if (!config_.validation.empty())
      validation_loss = [&](const model::Adapter& adapter) {
        return eval::total(eval::score_records(bench_.model(), {&adapter}, validation_.sequences, context_, sink_))
            .mean();
      };
    federate::AggregateConfig rule = config_.aggregate;
    if (rule.rank == 0) rule.rank = rule.rule == "fedit" ? 0 : global.config.rank;
    const model::Adapter result =
        accepted.empty() ? global.clone()
                         : aggregate_updates(&global, accepted, rule, config_.tau, config_.seed, validation_loss, &tau);
    write_adapter(result, config_.model.string(), folder_.round(round) / "global", true);
    nlohmann::json out{{"rule", rule.rule},
                       {"clients", accepted.size()},
                       {"rejected", rejected},
                       {"rank", result.config.rank},
                       {"bytes", bytes_on_disk(folder_.round(round) / "global" / "adapter_model.safetensors")}};
    if (tau >= 0) out["tau"] = tau;
    return out;
  });
  for (const nlohmann::json& entry : event.at("rejected")) {
    sink_.warn(fmt::format("round {}: {} rejected: {}", round, entry.at("client").get<std::string>(),
                           entry.at("reason").get<std::string>()));
    folder_.once({{"event", "reject"}, {"round", round}, {"client", entry.at("client")}}, [&] {
      return nlohmann::json{{"reason", entry.at("reason")}};
    });
  }
  sink_.note(fmt::format("round {}  {} aggregated {} clients in {:.1f} s", round, event.at("rule").get<std::string>(),
                         event.at("clients").get<int64_t>(), event.at("seconds").get<double>()));
}

void Simulation::run_round(int64_t round) {
  const std::vector<model::Adapter> sent = sent_adapters(round - 1);
  for (size_t i = 0; i < clients_.size(); ++i) {
    if (!takes_part(round, i)) continue;
    tune_client(round, i, sent[i]);
    upload(round, i);
  }
  aggregate_round(round, sent);
  if (round % config_.evaluate.every == 0 || round == config_.rounds) evaluate_round(round);
}

}  // namespace brick::pipeline
