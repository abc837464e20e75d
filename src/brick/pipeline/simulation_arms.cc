// Baselines of a simulation at equal numbers of trained tokens: what each client reaches alone, what all data in one
// place would, and FedIT (Zhang et al. 2023) with the whole model at every client.
#include <algorithm>

#include "brick/base/error.h"
#include "brick/federate/rules.h"
#include "brick/io/json_file.h"
#include "brick/pipeline/artifacts.h"
#include "brick/pipeline/simulation.h"

namespace brick::pipeline {
namespace {

enum Arm : uint64_t { kLocal = 11, kCentralised = 12, kFeditDense = 13 };

train::TuneConfig repeated(train::TuneConfig config, double times) {
  config.epochs *= times;
  config.steps = static_cast<int64_t>(static_cast<double>(config.steps) * times);
  return config;
}

train::TuneConfig plain(train::TuneConfig config) {
  config.masked = false;
  return config;
}

// Null where there are no held-out records.
std::string shown(const nlohmann::json& loss) {
  return loss.is_number() ? fmt::format("{:.3f}", loss.get<double>()) : "not measured";
}

}  // namespace

nlohmann::json Simulation::score_all(const model::Model& model, const model::Adapter& adapter,
                                     const std::filesystem::path& file) {
  nlohmann::json clients = nlohmann::json::object(), records;
  double sum = 0;
  int64_t tokens = 0;
  for (const Client& client : clients_) {
    const nlohmann::json own = score(model, &adapter, client, records[client.config->name]["llm"]);
    if (own.is_null()) continue;
    clients[client.config->name] = own["loss"];
    sum += own["sum"].get<double>();
    tokens += own["tokens"].get<int64_t>();
  }
  io::write_json_file(file, records, true);
  return {{"clients", clients},
          {"loss", tokens > 0 ? nlohmann::json(sum / static_cast<double>(tokens)) : nlohmann::json()}};
}

void Simulation::run_local(size_t index) {
  const Client& client = clients_[index];
  const std::string& name = client.config->name;
  const double rounds = rounds_taken(index);
  if (rounds == 0) return;
  const std::filesystem::path out = folder_.path() / "arms" / "local" / name;
  const nlohmann::json& event = folder_.once({{"event", "arm"}, {"arm", "local"}, {"client", name}}, [&] {
    nlohmann::json result = tune_unit(*client.block, client.train.sequences, repeated(client.config->tune, rounds),
                                      nullptr, stream_id({config_.seed, kLocal, index}), out);
    const model::Adapter adapter = model::load_adapter(out.string());
    result["round"] = config_.rounds;
    nlohmann::json records;
    const nlohmann::json own = score(*client.block, &adapter, client, records);
    if (!own.is_null()) {
      result["test_loss"] = own["loss"];
      io::write_json_file(out.string() + ".evaluation.json", records, true);
    }
    return result;
  });
  sink_.note(fmt::format("alone    {:<14} {} steps, held-out loss {}", name, event.at("step").get<int64_t>(),
                         shown(event.value("test_loss", nlohmann::json()))));
}

void Simulation::run_centralised() {
  const std::filesystem::path out = folder_.path() / "arms" / "centralised";
  const nlohmann::json& event = folder_.once({{"event", "arm"}, {"arm", "centralised"}}, [&] {
    std::vector<data::TokenSequence> all;
    double trained = 0;
    for (size_t i = 0; i < clients_.size(); ++i) {
      const auto& sequences = clients_[i].train.sequences;
      all.insert(all.end(), sequences.begin(), sequences.end());
      for (int64_t round = 1; round <= config_.rounds; ++round)
        if (const nlohmann::json* e =
                folder_.find({{"event", "tune"}, {"round", round}, {"client", clients_[i].config->name}}))
          trained += e->at("tokens").get<double>();
    }
    train::TuneConfig config = plain(config_.tune);
    config.steps = 0;
    config.epochs = std::max(trained, 1.0) / static_cast<double>(data::count_tokens(all));
    nlohmann::json result =
        tune_unit(bench_.model(), all, config, nullptr, stream_id({config_.seed, kCentralised}), out);
    const model::Adapter adapter = model::load_adapter(out.string());
    result["round"] = config_.rounds;
    result["test"] = score_all(bench_.model(), adapter, out.string() + ".evaluation.json");
    return result;
  });
  sink_.note(fmt::format("all data in one place: {} steps, held-out loss {}", event.at("step").get<int64_t>(),
                         shown(event.at("test").at("loss"))));
}

void Simulation::run_fedit_dense() {
  const std::filesystem::path root = folder_.path() / "arms" / "fedit-dense";
  const auto global_at = [&](int64_t round) { return root / fmt::format("{:03}", round) / "global"; };
  for (int64_t round = 1; round <= config_.rounds; ++round) {
    const model::Adapter global =
        round == 1
            ? model::make_adapter(bench_.model(), train::lora_config(bench_.model(), plain(config_.tune)), config_.seed)
            : model::load_adapter(global_at(round - 1).string());
    std::vector<model::Adapter> adapters(clients_.size());
    std::vector<federate::ClientUpdate> updates;
    for (size_t i = 0; i < clients_.size(); ++i) {
      if (!takes_part(round, i)) continue;
      const std::string& name = clients_[i].config->name;
      const std::filesystem::path out = root / fmt::format("{:03}", round) / "clients" / name;
      folder_.once({{"event", "arm"}, {"arm", "fedit-dense"}, {"round", round}, {"client", name}}, [&] {
        return tune_unit(bench_.model(), clients_[i].train.sequences, plain(clients_[i].config->tune), &global,
                         stream_id({config_.seed, kFeditDense, static_cast<uint64_t>(round), i}), out);
      });
      if (!uploaded(round, i)) continue;
      adapters[i] = model::load_adapter(out.string());
      federate::ClientUpdate update;
      update.name = name;
      update.adapter = &adapters[i];
      update.records = static_cast<double>(clients_[i].records);
      updates.push_back(std::move(update));
    }
    const nlohmann::json key{{"event", "arm"}, {"arm", "fedit-dense"}, {"round", round}, {"stage", "aggregate"}};
    const nlohmann::json& event = folder_.once(key, [&] {
      federate::AggregateConfig rule;
      rule.rule = "fedit";
      const model::Adapter next =
          updates.empty() ? global.clone() : federate::aggregate(&global, updates, rule, config_.seed);
      write_adapter(next, config_.model.string(), global_at(round), true);
      nlohmann::json out = nlohmann::json::object();
      if (round == config_.rounds) out["test"] = score_all(bench_.model(), next, root / "evaluation.json");
      return out;
    });
    if (round == config_.rounds)
      sink_.note(fmt::format("FedIT with the whole model at every client: held-out loss {}",
                             shown(event.at("test").at("loss"))));
  }
}

void Simulation::run_arms() {
  for (const std::string& arm : config_.evaluate.arms) {
    if (arm == "local")
      for (size_t i = 0; i < clients_.size(); ++i) run_local(i);
    else if (arm == "centralised")
      run_centralised();
    else if (arm == "fedit-dense")
      run_fedit_dense();
    // "untuned" is round 0's evaluation.
  }
}

}  // namespace brick::pipeline
