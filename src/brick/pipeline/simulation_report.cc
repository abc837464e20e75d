// What a finished simulation says of itself: the data of its page and table.
#include <algorithm>

#include "brick/io/json_file.h"
#include "brick/pipeline/artifacts.h"
#include "brick/pipeline/simulation.h"
#include "brick/report/statistics.h"

namespace brick::pipeline {
namespace {

using nlohmann::json;

json read_if_there(const std::filesystem::path& path) {
  return std::filesystem::exists(path) ? io::read_json_file(path) : json();
}

json interval(const json& a, const json& b) {
  if (!a.is_array() || !b.is_array() || a.size() != b.size()) return nullptr;
  const auto difference = report::paired_difference(a.get<std::vector<double>>(), b.get<std::vector<double>>());
  if (!difference) return nullptr;
  return {{"mean", difference->mean}, {"low", difference->low}, {"high", difference->high}, {"n", difference->n}};
}

double field(const json& event, const char* name) { return event.contains(name) ? event.at(name).get<double>() : 0; }

std::string base_dtype(const model::Model& model) {
  return std::string(tensor::name(model.layers.front()[model::Proj::kUp].dtype()));
}

}  // namespace

json Simulation::summary() {
  json run{{"title", config_.title.empty() ? "Federation of " + config_.model.filename().string() : config_.title},
           {"tool_version", tool_version()},
           {"compute", kernels::name(context_.compute())},
           {"config", config_.text},
           {"rounds", config_.rounds},
           {"rule", config_.aggregate.rule},
           {"machine", machine()},
           {"model",
            {{"path", config_.model.filename().string()},
             {"name", config_.model.stem().string()},
             {"parameters", bench_.model().parameters()},
             {"bytes", bytes_on_disk(config_.model)},
             {"dtype", base_dtype(bench_.model())}}},
           {"notes", json::array()}};
  if (config_.aggregate.rule == "hete-tau") run["tau"] = config_.tau;

  std::map<std::string, double> stage_seconds;
  double bytes_up = 0, bytes_down = 0, seconds = 0;
  std::map<std::string, json> by_client;
  std::map<std::string, std::pair<double, double>> speed;  // block -> tokens, seconds of tuning
  json taus = json::array();
  for (const Client& client : clients_) by_client[client.config->name] = {{"train", json::array()}};
  for (const json& event : folder_.events()) {
    const std::string kind = event.at("event");
    seconds += field(event, "seconds");
    if (kind == "prune" || kind == "tune" || kind == "aggregate" || kind == "evaluate")
      stage_seconds[kind] += field(event, "seconds");
    if (kind == "arm") stage_seconds["arms"] += field(event, "seconds");
    if (kind == "aggregate" && event.contains("tau")) taus.push_back(event.at("tau"));
    if (!event.contains("client") || kind == "arm") continue;
    json& own = by_client[event.at("client").get<std::string>()];
    if (kind == "tune") {
      own["train"].push_back(event.at("loss"));
      own["tokens"] = own.value("tokens", 0.0) + field(event, "tokens");
      own["rounds"] = own.value("rounds", 0) + 1;
      own["down"] = own.value("down", 0.0) + field(event, "bytes");  // the adapter it started from has the same size
    } else if (kind == "upload") {
      own["up"] = own.value("up", 0.0) + field(event, "bytes");
      own["lost"] = own.value("lost", 0) + (event.at("lost").get<bool>() ? 1 : 0);
    } else if (kind == "reject") {
      own["rejected"].push_back({{"round", event.at("round")}, {"reason", event.at("reason")}});
    }
  }

  const json first_records = read_if_there(folder_.round(0) / "evaluation.json");
  const json last_records = read_if_there(folder_.round(config_.rounds) / "evaluation.json");
  json perplexities = json::array(), llm_losses = json::array();
  std::vector<const json*> evaluations;
  for (int64_t round = 0; round <= config_.rounds; ++round)
    if (const json* e = folder_.find({{"event", "evaluate"}, {"round", round}})) {
      evaluations.push_back(e);
      perplexities.push_back(e->value("perplexity", json()));
      llm_losses.push_back(e->value("loss", json()));
    }
  run["llm"] = {{"perplexity_by_round", perplexities},
                {"loss_by_round", llm_losses},
                {"text", config_.evaluate.text.filename().string()}};

  const json* centralised = folder_.find({{"event", "arm"}, {"arm", "centralised"}});
  const json* fedit =
      folder_.find({{"event", "arm"}, {"arm", "fedit-dense"}, {"round", config_.rounds}, {"stage", "aggregate"}});
  run["clients"] = json::array();
  double local_sum = 0, local_tokens = 0, trained = 0, local_trained = 0, local_seconds = 0;
  for (size_t i = 0; i < clients_.size(); ++i) {
    const Client& client = clients_[i];
    const std::string& name = client.config->name;
    const json& own = by_client[name];
    const json* local = folder_.find({{"event", "arm"}, {"arm", "local"}, {"client", name}});
    json loss, rounds_block = json::array(), rounds_llm = json::array();
    for (const json* e : evaluations) {
      const json at = e->at("clients").value(name, json::object());
      rounds_block.push_back(at.value("block", json()));
      rounds_llm.push_back(at.value("llm", json()));
    }
    if (!rounds_block.empty()) {
      loss["block_untuned"] = rounds_block.front();
      loss["block_lego"] = rounds_block.back();
      loss["llm_untuned"] = rounds_llm.front();
      loss["llm_lego"] = rounds_llm.back();
    }
    const json local_records = read_if_there(folder_.path() / "arms" / "local" / (name + ".evaluation.json"));
    if (local != nullptr) {
      loss["block_local"] = local->value("test_loss", json());
      local_trained += field(*local, "tokens");
      local_seconds += field(*local, "seconds");
      const auto tokens = static_cast<double>(data::count_supervised(client.test.sequences));
      if (local->contains("test_loss")) {
        local_sum += local->at("test_loss").get<double>() * tokens;
        local_tokens += tokens;
      }
    }
    if (centralised != nullptr) loss["llm_centralised"] = centralised->at("test").at("clients").value(name, json());
    if (fedit != nullptr && fedit->contains("test"))
      loss["llm_fedit_dense"] = fedit->at("test").at("clients").value(name, json());
    const json before = first_records.is_object() ? first_records.value(name, json::object()) : json::object();
    const json after = last_records.is_object() ? last_records.value(name, json::object()) : json::object();
    trained += own.value("tokens", 0.0);
    bytes_up += own.value("up", 0.0);
    bytes_down += own.value("down", 0.0);
    run["clients"].push_back(
        {{"name", name},
         {"sparsity", client.block->block.sparsity},
         {"block", client.block_name},
         {"rank", client.rank},
         {"records", client.records},
         {"test_records", client.test.sequences.size()},
         {"tokens_trained", static_cast<int64_t>(own.value("tokens", 0.0))},
         {"bytes_up", static_cast<int64_t>(own.value("up", 0.0))},
         {"bytes_down", static_cast<int64_t>(own.value("down", 0.0))},
         {"rounds_taken", own.value("rounds", 0)},
         {"uploads_lost", own.value("lost", 0)},
         {"rejected", own.value("rejected", json::array())},
         {"loss", loss},
         {"by_round", {{"block", rounds_block}, {"llm", rounds_llm}, {"train", own["train"]}}},
         {"intervals",
          {{"lego_minus_untuned", interval(after.value("block", json()), before.value("block", json()))},
           {"lego_minus_local", interval(after.value("block", json()), local_records)},
           {"llm_lego_minus_untuned", interval(after.value("llm", json()), before.value("llm", json()))}}}});
    auto& [tokens, tune_seconds] = speed[client.block_name];
    for (int64_t round = 1; round <= config_.rounds; ++round)
      if (const json* e = folder_.find({{"event", "tune"}, {"round", round}, {"client", name}})) {
        tokens += field(*e, "tokens");
        tune_seconds += field(*e, "seconds");
      }
  }

  run["blocks"] = json::array();
  const auto add_block = [&](json block) {
    const std::string name = block["name"];
    const auto [tokens, tune_seconds] = speed[name];
    if (tune_seconds > 0) block["tune_tokens_per_second"] = tokens / tune_seconds;
    if (!evaluations.empty() && evaluations.front()->at("blocks").contains(name))
      block["perplexity"] = evaluations.front()->at("blocks").at(name);
    run["blocks"].push_back(block);
  };
  if (speed.contains("0"))
    add_block({{"name", "0"},
               {"sparsity", 0.0},
               {"method", "none"},
               {"bytes", bytes_on_disk(config_.model)},
               {"parameters", bench_.model().parameters()},
               {"nonzeros", bench_.model().nonzeros()},
               {"perplexity", perplexities.empty() ? json() : perplexities[0]}});
  std::vector<json> blocks;
  for (const auto& [folder, block] : blocks_) blocks.push_back(describe(block, folder));
  std::stable_sort(blocks.begin(), blocks.end(),
                   [](const json& a, const json& b) { return a["sparsity"] < b["sparsity"]; });
  for (const json& block : blocks) add_block(block);

  run["arms"] = json::array();
  const auto lego_loss = llm_losses.empty() ? json() : llm_losses.back();
  if (!llm_losses.empty())
    run["arms"].push_back(
        {{"name", "untuned"}, {"what", "the whole model as it came"}, {"tokens", 0}, {"loss", llm_losses.front()}});
  if (local_tokens > 0)
    run["arms"].push_back({{"name", "local"},
                           {"what", "each office tunes its own block alone, scored on its own records"},
                           {"tokens", static_cast<int64_t>(local_trained)},
                           {"seconds", local_seconds},
                           {"loss", local_sum / local_tokens}});
  if (centralised != nullptr)
    run["arms"].push_back({{"name", "centralised"},
                           {"what", "the whole model tuned on all records in one place (what privacy forbids)"},
                           {"tokens", centralised->at("tokens")},
                           {"seconds", centralised->at("seconds")},
                           {"loss", centralised->at("test").at("loss")}});
  if (fedit != nullptr) {
    double tokens = 0, arm_seconds = 0;
    for (const json& event : folder_.events())
      if (event.value("arm", "") == "fedit-dense")
        tokens += field(event, "tokens"), arm_seconds += field(event, "seconds");
    run["arms"].push_back({{"name", "fedit-dense"},
                           {"what", "FedIT with the whole model at every office"},
                           {"tokens", static_cast<int64_t>(tokens)},
                           {"seconds", arm_seconds},
                           {"loss", fedit->at("test").at("loss")}});
  }
  run["arms"].push_back({{"name", "lego"},
                         {"what", "the whole model with LEGO's recombined adapter"},
                         {"tokens", static_cast<int64_t>(trained)},
                         {"seconds", stage_seconds["tune"] + stage_seconds["aggregate"]},
                         {"loss", lego_loss}});
  run["tau_chosen"] = taus;
  run["seconds"] = seconds;
  run["seconds_by_stage"] = stage_seconds;
  run["bytes_up"] = static_cast<int64_t>(bytes_up);
  run["bytes_down"] = static_cast<int64_t>(bytes_down);
  return run;
}

}  // namespace brick::pipeline
