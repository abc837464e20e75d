#include "brick/pipeline/simulation.h"

#include <algorithm>
#include <set>

#include "brick/base/error.h"
#include "brick/base/sha256.h"
#include "brick/data/windows.h"
#include "brick/federate/redistribute.h"
#include "brick/io/atomic_output.h"
#include "brick/io/json_file.h"
#include "brick/io/provenance.h"
#include "brick/io/text_file.h"
#include "brick/model/load.h"
#include "brick/model/restrict_adapter.h"
#include "brick/pipeline/about_file.h"
#include "brick/pipeline/artifacts.h"
#include "brick/pipeline/prune_job.h"
#include "brick/pipeline/simulate.h"
#include "brick/report/page.h"

namespace brick::pipeline {
namespace {

// What a resumed run must share with its beginning for the same bits.
std::string identity(const FederationConfig& config, const RunSettings& settings) {
  Sha256 hash;
  hash.update(fmt::format("{};{};{};", io::compact_json(run_conditions()), settings.compute, config.text));
  std::set<std::filesystem::path> files{config.model, config.blocks.calibration, config.validation,
                                        config.evaluate.text};
  for (const FederationConfig::Client& client : config.clients) files.insert({client.data, client.test, client.block});
  for (const std::filesystem::path& file : files)
    if (!file.empty()) hash.update(io::hash_path(file));
  if (!settings.tokenizer_file.empty()) hash.update(io::hash_path(settings.tokenizer_file));
  return hash.hex();
}

}  // namespace

Simulation::Simulation(FederationConfig config, const std::string& out, bool resume, const RunSettings& settings,
                       ProgressSink& sink)
    : config_(std::move(config)),
      settings_(settings),
      sink_(sink),
      bench_(config_.model.string(), settings),
      context_(kernels::choose_compute(settings.compute)),
      out_(out),
      clients_(read_clients(resume && RunFolder::is_begun(out))),
      validation_(config_.validation.empty() ? data::EncodedRecords{}
                                             : bench_.records(config_.validation, config_.tune)),
      text_ids_(config_.evaluate.text.empty() ? std::vector<int32_t>{} : bench_.text_ids(config_.evaluate.text)),
      text_windows_(config_.evaluate.text.empty()
                        ? std::vector<std::span<const int32_t>>{}
                        : about_file(config_.evaluate.text.string(),
                                     [this] {
                                       return data::consecutive_windows(text_ids_, config_.evaluate.length,
                                                                        config_.evaluate.samples);
                                     })),
      folder_(out, config_.text, identity(config_, settings), resume, settings.force) {}

const std::string& Simulation::method_of(const FederationConfig::Client& client) const {
  return client.method.empty() ? config_.blocks.prune.method : client.method;
}

std::filesystem::path Simulation::block_folder(const std::string& method, double sparsity) const {
  const std::string percent = sparsity_name(sparsity);
  return out_ / "blocks" / (method == config_.blocks.prune.method ? percent : method + "-" + percent);
}

std::filesystem::path Simulation::block_folder(const FederationConfig::Client& client) const {
  if (!client.block.empty() || client.sparsity == 0) return client.block;
  return block_folder(method_of(client), client.sparsity);
}

std::map<std::string, std::set<double>> Simulation::sparsities_to_cut() const {
  std::map<std::string, std::set<double>> wanted;
  for (const FederationConfig::Client& client : config_.clients)
    if (client.block.empty() && client.sparsity > 0) wanted[method_of(client)].insert(client.sparsity);
  return wanted;
}

PruneJob Simulation::prune_job(const std::string& method) const {
  PruneJob job;
  job.calibration = config_.blocks.calibration.string();
  job.samples = config_.blocks.samples;
  job.length = config_.blocks.length;
  job.calibration_seed = config_.blocks.calibration_seed;
  job.config = config_.blocks.prune;
  job.config.method = method;
  job.config.seed = config_.seed;
  job.config.tool_version = tool_version();
  return job;
}

std::span<const std::span<const int32_t>> Simulation::windows(const PruneJob& job) {
  if (!prune::needs_calibration(job.config)) return {};
  if (job.calibration.empty())
    fail(ErrorCode::kInvalidInput, "{} needs a calibration text: calibration under [blocks]", job.config.method);
  if (!calibration_) calibration_ = load_calibration(job, bench_);
  return calibration_->windows;
}

void Simulation::check_cuts(bool resumes) {
  for (const auto& [method, wanted] : sparsities_to_cut()) {
    const std::vector<double> sparsities(wanted.begin(), wanted.end());
    for (size_t i = 1; i < sparsities.size(); ++i)
      if (sparsity_name(sparsities[i]) == sparsity_name(sparsities[i - 1]))
        fail(ErrorCode::kInvalidInput, "sparsities {} and {} would share the name {}: make them one", sparsities[i - 1],
             sparsities[i], sparsity_name(sparsities[i]));
    const PruneJob job = prune_job(method);
    prune::check_parent(bench_.model(), sparsities, job.config);
    if (!resumes) windows(job);
  }
}

void Simulation::cut_blocks(const std::string& method, const std::vector<double>& sparsities) {
  folder_.once({{"event", "prune"}, {"round", 0}, {"method", method}}, [&] {
    const PruneJob job = prune_job(method);
    const std::vector<model::Model> blocks =
        prune::prune_family(bench_.model(), windows(job), sparsities, job.config, context_, sink_, nullptr);
    nlohmann::json made = nlohmann::json::array();
    for (size_t i = 0; i < blocks.size(); ++i) {
      const std::filesystem::path folder = block_folder(method, sparsities[i]);
      write_block(blocks[i], folder, true);
      made.push_back(describe(blocks[i], folder));
      sink_.note(fmt::format("block {:>3}     {} of {} weights kept", folder.filename().string(), blocks[i].nonzeros(),
                             bench_.model().parameters()));
    }
    return nlohmann::json{{"blocks", made}};
  });
}

nlohmann::json Simulation::describe(const model::Model& block, const std::filesystem::path& folder) const {
  return {{"name", folder.filename().string()}, {"sparsity", block.block.sparsity},
          {"method", block.block.method},       {"parameters", bench_.model().parameters()},
          {"nonzeros", block.nonzeros()},       {"bytes", bytes_on_disk(folder)}};
}

void Simulation::check_name(const FederationConfig::Client& client, const std::filesystem::path& folder) const {
  for (const auto& [other, _] : blocks_)
    if (other != folder && other.filename() == folder.filename())
      fail(ErrorCode::kInvalidInput,
           "client {}: block {} has the name of {}, and the report tells blocks by it: rename one", client.name,
           folder.string(), other.string());
}

void Simulation::load_block(const FederationConfig::Client& client) {
  const std::filesystem::path folder = block_folder(client);
  if (folder.empty() || blocks_.contains(folder)) return;
  check_name(client, folder);
  const model::Model& block =
      blocks_.emplace(folder, model::load_model(folder.string(), {.tokenizer = false})).first->second;
  if (model::fingerprint(block) != model::fingerprint(bench_.model()))
    fail(ErrorCode::kMismatch, "client {}: block {} was cut from another model than {}, or {}", client.name,
         folder.string(), config_.model.string(), federate::kOtherStream);
  const federate::Placement& placement = placements_.try_emplace(&block, block, bench_.model()).first->second;
  if (const federate::Rule& rule = *federate::find_rule(config_.aggregate.rule);
      placement.structured() && !rule.takes_structured)
    refuse_structured(rule, client.name, "block " + folder.string());
}

void Simulation::make_blocks() {
  for (const auto& [method, sparsities] : sparsities_to_cut())
    cut_blocks(method, {sparsities.begin(), sparsities.end()});
  calibration_.reset();
  placements_.try_emplace(&bench_.model(), bench_.model(), bench_.model());
  for (Client& client : clients_) {
    load_block(*client.config);
    const std::filesystem::path folder = block_folder(*client.config);
    client.block = folder.empty() ? &bench_.model() : &blocks_.at(folder);
    client.placement = &placements_.at(client.block);
    client.block_name = folder.empty() ? "0" : folder.filename().string();
  }

  folder_.once({{"event", "begin"}, {"round", 0}}, [&] {
    train::TuneConfig config = config_.tune;
    config.masked = false;
    for (const Client& client : clients_) config.rank = std::max(config.rank, client.rank);
    if (config_.aggregate.rank > 0) config.rank = config_.aggregate.rank;
    const model::Adapter adapter =
        model::make_adapter(bench_.model(), train::lora_config(bench_.model(), config), config_.seed);
    write_adapter(adapter, config_.model.string(), folder_.round(0) / "global", true);
    return nlohmann::json{{"rank", config.rank}, {"parameters", adapter.parameters()}};
  });
  evaluate_round(0);
}

std::vector<Simulation::Client> Simulation::read_clients(bool resumes) {
  const auto takes_own = [](const FederationConfig::Client& client) { return client.tune.chat_template.empty(); };
  if (std::ranges::any_of(config_.clients, takes_own)) bench_.warn_of_style("", sink_);
  for (const FederationConfig::Client& client : config_.clients)
    if (!client.block.empty()) load_block(client);
  for (const FederationConfig::Client& client : config_.clients)
    if (client.block.empty() && client.sparsity > 0) check_name(client, block_folder(client));
  check_cuts(resumes);
  std::vector<Client> clients;
  for (const FederationConfig::Client& client_config : config_.clients) {
    Client client;
    client.config = &client_config;
    client.rank = client_config.tune.rank;
    client.train = bench_.records(client_config.data, client_config.tune, client_config.limit);
    if (!client_config.test.empty()) client.test = bench_.records(client_config.test, client_config.tune);
    client.records = static_cast<int64_t>(client.train.sequences.size());
    clients.push_back(std::move(client));
  }
  return clients;
}

model::Adapter Simulation::load_global(int64_t round) const {
  return model::load_adapter((folder_.round(round) / "global").string());
}

std::vector<model::Adapter> Simulation::sent_adapters(int64_t round) const {
  std::vector<int64_t> ranks;
  for (const Client& client : clients_) ranks.push_back(client.rank);
  std::vector<model::Adapter> sent = federate::redistribute(load_global(round), ranks, config_.seed);
  for (size_t i = 0; i < clients_.size(); ++i) {
    const std::string hash = clients_[i].config->tune.masked ? model::mask_hash(*clients_[i].block) : "";
    sent[i].config.masked = !hash.empty();
    sent[i].config.mask_hash = hash;
    sent[i].config.dropout = clients_[i].config->tune.dropout;
  }
  return sent;
}

model::Adapter Simulation::on_block(size_t index, const model::Adapter& sent) const {
  return clients_[index].placement->structured() ? model::restricted(sent, *clients_[index].block) : sent.clone();
}

nlohmann::json simulate(const std::string& config_path, const std::string& out, bool resume,
                        std::optional<uint64_t> seed, const RunSettings& settings, ProgressSink& sink) {
  FederationConfig config = load_federation(config_path, seed);
  const int64_t rounds = config.rounds;
  if (settings.force && !(resume && RunFolder::is_begun(out))) {
    std::vector<std::filesystem::path> inputs{config_path, config.model, config.blocks.calibration, config.validation,
                                              config.evaluate.text};
    for (const FederationConfig::Client& client : config.clients)
      inputs.insert(inputs.end(), {client.data, client.test, client.block});
    check_output(out, settings, std::move(inputs));
  }
  Simulation simulation(std::move(config), out, resume, settings, sink);
  nlohmann::json summary;
  try {
    simulation.make_blocks();
    for (int64_t round = 1; round <= rounds; ++round) simulation.run_round(round);
    simulation.run_arms();
    summary = simulation.summary();
  } catch (const nlohmann::json::exception& e) {
    fail(ErrorCode::kCorrupt, "{}: an event of metrics.jsonl, or an evaluation.json, is not as written: {}", out,
         e.what());
  }
  const std::filesystem::path page = std::filesystem::path(out) / "report.html";
  io::write_file_atomic(page, report::simulation_page(summary));
  io::write_json_file(std::filesystem::path(out) / "summary.json", summary, true);
  nlohmann::json clients = nlohmann::json::array(), arms = nlohmann::json::object();
  for (const nlohmann::json& client : summary["clients"])
    clients.push_back({{"name", client["name"]},
                       {"sparsity", client["sparsity"]},
                       {"loss", client["loss"]},
                       {"intervals", client["intervals"]},
                       {"tokens_trained", client["tokens_trained"]}});
  for (const nlohmann::json& arm : summary["arms"]) arms[arm["name"].get<std::string>()] = arm;
  return {{"rounds", rounds},
          {"final", {{"llm", summary["llm"]}, {"clients", clients}, {"arms", arms}}},
          {"bytes_up", summary["bytes_up"]},
          {"bytes_down", summary["bytes_down"]},
          {"seconds", summary["seconds"]},
          {"table", report::summary_table(summary)},
          {"report", page.string()}};
}

}  // namespace brick::pipeline
