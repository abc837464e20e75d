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

// What a run's events add up to.
struct Simulation::Totals {
  struct OfClient {
    json losses = json::array(), rejected = json::array();  // training losses by round taken; refused updates
    double tokens = 0, seconds = 0;                         // of tuning
    double bytes_up = 0, bytes_down = 0;
    int64_t rounds = 0, lost = 0;
  };
  std::map<std::string, OfClient> clients;  // by name
  std::map<std::string, double> stage_seconds{{"tune", 0.0}, {"aggregate", 0.0}};
  double seconds = 0;
  json taus = json::array();

  explicit Totals(const std::deque<json>& events) {
    for (const json& event : events) add(event);
  }

  void add(const json& event) {
    const std::string kind = event.at("event");
    seconds += field(event, "seconds");
    if (kind == "prune" || kind == "tune" || kind == "aggregate" || kind == "evaluate")
      stage_seconds[kind] += field(event, "seconds");
    if (kind == "arm") stage_seconds["arms"] += field(event, "seconds");
    if (kind == "aggregate" && event.contains("tau")) taus.push_back(event.at("tau"));
    if (!event.contains("client") || kind == "arm") return;
    OfClient& own = clients[event.at("client").get<std::string>()];
    if (kind == "tune") {
      own.losses.push_back(event.at("loss"));
      own.tokens += field(event, "tokens");
      own.seconds += field(event, "seconds");
      own.bytes_down += field(event, "bytes");  // the adapter it started from has the same size
      ++own.rounds;
    } else if (kind == "upload") {
      own.bytes_up += field(event, "bytes");
      own.lost += event.at("lost").get<bool>() ? 1 : 0;
    } else if (kind == "reject") {
      own.rejected.push_back({{"round", event.at("round")}, {"reason", event.at("reason")}});
    }
  }

  const OfClient& of(const std::string& client) const {
    static const OfClient kNothing;
    const auto found = clients.find(client);
    return found == clients.end() ? kNothing : found->second;
  }
};

std::vector<const json*> Simulation::evaluations() const {
  std::vector<const json*> found;
  for (int64_t round = 0; round <= config_.rounds; ++round)
    if (const json* event = folder_.find({{"event", "evaluate"}, {"round", round}})) found.push_back(event);
  return found;
}

const json* Simulation::centralised_arm() const { return folder_.find({{"event", "arm"}, {"arm", "centralised"}}); }

const json* Simulation::fedit_arm() const {
  return folder_.find({{"event", "arm"}, {"arm", "fedit-dense"}, {"round", config_.rounds}, {"stage", "aggregate"}});
}

// `before`, `after`: losses of the client's records in round 0 and at the end.
json Simulation::client_summary(const Client& client, const Totals& totals, const json& before,
                                const json& after) const {
  const std::string& name = client.config->name;
  const Totals::OfClient& own = totals.of(name);
  json loss, by_round{{"block", json::array()}, {"llm", json::array()}, {"train", own.losses}};
  for (const json* evaluation : evaluations()) {
    const json at = evaluation->at("clients").value(name, json::object());
    for (const char* what : {"block", "llm"}) by_round[what].push_back(at.value(what, json()));
  }
  if (!by_round["block"].empty()) {
    loss["block_untuned"] = by_round["block"].front();
    loss["block_lego"] = by_round["block"].back();
    loss["llm_untuned"] = by_round["llm"].front();
    loss["llm_lego"] = by_round["llm"].back();
  }
  if (const json* local = folder_.find({{"event", "arm"}, {"arm", "local"}, {"client", name}}))
    loss["block_local"] = local->value("test_loss", json());
  if (const json* arm = centralised_arm()) loss["llm_centralised"] = arm->at("test").at("clients").value(name, json());
  if (const json* arm = fedit_arm(); arm != nullptr && arm->contains("test"))
    loss["llm_fedit_dense"] = arm->at("test").at("clients").value(name, json());
  const json local_records = read_if_there(folder_.path() / "arms" / "local" / (name + ".evaluation.json"));
  return {{"name", name},
          {"sparsity", client.block->block.sparsity},
          {"block", client.block_name},
          {"rank", client.rank},
          {"records", client.records},
          {"test_records", client.test.sequences.size()},
          {"tokens_trained", static_cast<int64_t>(own.tokens)},
          {"bytes_up", static_cast<int64_t>(own.bytes_up)},
          {"bytes_down", static_cast<int64_t>(own.bytes_down)},
          {"rounds_taken", own.rounds},
          {"uploads_lost", own.lost},
          {"rejected", own.rejected},
          {"loss", loss},
          {"by_round", by_round},
          {"intervals",
           {{"lego_minus_untuned", interval(after.value("block", json()), before.value("block", json()))},
            {"lego_minus_local", interval(after.value("block", json()), local_records)},
            {"llm_lego_minus_untuned", interval(after.value("llm", json()), before.value("llm", json()))}}}};
}

// The whole model first where a client has it, then by their sparsities.
json Simulation::block_summaries(const Totals& totals) const {
  std::map<std::string, std::pair<double, double>> tuned;  // block -> tokens, seconds
  for (const Client& client : clients_) {
    const Totals::OfClient& own = totals.of(client.config->name);
    auto& [tokens, seconds] = tuned[client.block_name];
    tokens += own.tokens;
    seconds += own.seconds;
  }
  const std::vector<const json*> evaluated = evaluations();
  json blocks = json::array();
  for (const auto& [folder, block] : blocks_) blocks.push_back(describe(block, folder));
  std::stable_sort(blocks.begin(), blocks.end(),
                   [](const json& a, const json& b) { return a["sparsity"] < b["sparsity"]; });
  if (tuned.contains("0"))
    blocks.insert(blocks.begin(),
                  json{{"name", "0"},
                       {"sparsity", 0.0},
                       {"method", "none"},
                       {"bytes", bytes_on_disk(config_.model)},
                       {"parameters", bench_.model().parameters()},
                       {"nonzeros", bench_.model().nonzeros()},
                       {"perplexity", evaluated.empty() ? json() : evaluated.front()->value("perplexity", json())}});
  for (json& block : blocks) {
    const std::string name = block["name"];
    const auto [tokens, seconds] = tuned[name];
    if (seconds > 0) block["tune_tokens_per_second"] = tokens / seconds;
    if (!evaluated.empty() && evaluated.front()->at("blocks").contains(name))
      block["perplexity"] = evaluated.front()->at("blocks").at(name);
  }
  return blocks;
}

json Simulation::arm_summaries(const Totals& totals) const {
  json arms = json::array();
  // `seconds` null: not said.
  const auto add = [&](const char* name, const char* what, const json& tokens, const json& seconds, const json& loss) {
    arms.push_back({{"name", name}, {"what", what}, {"tokens", tokens}, {"loss", loss}});
    if (!seconds.is_null()) arms.back()["seconds"] = seconds;
  };
  const std::vector<const json*> evaluated = evaluations();
  if (!evaluated.empty()) add("untuned", "the whole model as it came", 0, {}, evaluated.front()->value("loss", json()));

  double loss_sum = 0, scored = 0, local_tokens = 0, local_seconds = 0, lego_tokens = 0;
  for (const Client& client : clients_) {
    lego_tokens += totals.of(client.config->name).tokens;
    const json* local = folder_.find({{"event", "arm"}, {"arm", "local"}, {"client", client.config->name}});
    if (local == nullptr) continue;
    local_tokens += field(*local, "tokens");
    local_seconds += field(*local, "seconds");
    if (!local->contains("test_loss")) continue;
    const auto tokens = static_cast<double>(data::count_supervised(client.test.sequences));
    loss_sum += local->at("test_loss").get<double>() * tokens;
    scored += tokens;
  }
  if (scored > 0)
    add("local", "each office tunes its own block alone, scored on its own records", static_cast<int64_t>(local_tokens),
        local_seconds, loss_sum / scored);
  if (const json* arm = centralised_arm())
    add("centralised", "the whole model tuned on all records in one place (what privacy forbids)", arm->at("tokens"),
        arm->at("seconds"), arm->at("test").at("loss"));
  if (const json* arm = fedit_arm()) {
    double tokens = 0, seconds = 0;
    for (const json& event : folder_.events())
      if (event.value("arm", "") == "fedit-dense") {
        tokens += field(event, "tokens");
        seconds += field(event, "seconds");
      }
    add("fedit-dense", "FedIT with the whole model at every office", static_cast<int64_t>(tokens), seconds,
        arm->at("test").at("loss"));
  }
  add("lego", "the whole model with LEGO's recombined adapter", static_cast<int64_t>(lego_tokens),
      totals.stage_seconds.at("tune") + totals.stage_seconds.at("aggregate"),
      evaluated.empty() ? json() : evaluated.back()->value("loss", json()));
  return arms;
}

json Simulation::summary() const {
  const Totals totals(folder_.events());
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
           {"llm",
            {{"perplexity_by_round", json::array()},
             {"loss_by_round", json::array()},
             {"text", config_.evaluate.text.filename().string()}}},
           {"clients", json::array()},
           {"blocks", block_summaries(totals)},
           {"arms", arm_summaries(totals)},
           {"tau_chosen", totals.taus},
           {"seconds", totals.seconds},
           {"seconds_by_stage", totals.stage_seconds},
           {"notes", json::array()}};
  if (config_.aggregate.rule == "hete-tau") run["tau"] = config_.tau;
  for (const json* evaluation : evaluations()) {
    run["llm"]["perplexity_by_round"].push_back(evaluation->value("perplexity", json()));
    run["llm"]["loss_by_round"].push_back(evaluation->value("loss", json()));
  }
  const json first = read_if_there(folder_.round(0) / "evaluation.json");
  const json last = read_if_there(folder_.round(config_.rounds) / "evaluation.json");
  const auto of = [](const json& records, const std::string& client) {
    return records.is_object() ? records.value(client, json::object()) : json::object();
  };
  double bytes_up = 0, bytes_down = 0;
  for (const Client& client : clients_) {
    const std::string& name = client.config->name;
    run["clients"].push_back(client_summary(client, totals, of(first, name), of(last, name)));
    bytes_up += totals.of(name).bytes_up;
    bytes_down += totals.of(name).bytes_down;
  }
  run["bytes_up"] = static_cast<int64_t>(bytes_up);
  run["bytes_down"] = static_cast<int64_t>(bytes_down);
  return run;
}

}  // namespace brick::pipeline
