// Evaluation of the whole model and of each block during a simulation.
#include <fmt/format.h>

#include "brick/io/json_file.h"
#include "brick/pipeline/simulation.h"

namespace brick::pipeline {

nlohmann::json Simulation::score(const model::Model& model, const model::Adapter* adapter, const Client& client,
                                 nlohmann::json& per_record) {
  if (client.test.sequences.empty()) return nullptr;
  const Losses losses = eval::score_records(model, {adapter}, client.test.sequences, context_, sink_);
  per_record = nlohmann::json::array();
  for (const eval::RecordScore& record : losses) per_record.push_back(record.mean());
  const eval::RecordScore all = eval::total(losses);
  return {{"loss", all.mean()}, {"sum", all.sum}, {"tokens", all.tokens}};
}

void Simulation::evaluate_round(int64_t round) {
  const nlohmann::json& event = folder_.once({{"event", "evaluate"}, {"round", round}}, [&] {
    const model::Adapter global = load_global(round);
    const std::vector<model::Adapter> sent = sent_adapters(round);
    nlohmann::json out{{"clients", nlohmann::json::object()}, {"blocks", nlohmann::json::object()}}, records;
    double sum = 0;
    int64_t tokens = 0;
    for (size_t i = 0; i < clients_.size(); ++i) {
      const Client& client = clients_[i];
      nlohmann::json& own = records[client.config->name];
      const nlohmann::json llm = score(bench_.model(), &global, client, own["llm"]);
      if (llm.is_null()) continue;
      const model::Adapter part = on_block(i, sent[i]);
      // The dense client's block is the whole model, but with what it is sent: the same where ranks agree.
      const nlohmann::json block = client.block == &bench_.model() && client.rank == global.config.rank
                                       ? (own["block"] = own["llm"], llm)
                                       : score(*client.block, &part, client, own["block"]);
      out["clients"][client.config->name] = {{"llm", llm["loss"]}, {"block", block["loss"]}};
      sum += llm["sum"].get<double>();
      tokens += llm["tokens"].get<int64_t>();
    }
    if (tokens > 0) out["loss"] = sum / static_cast<double>(tokens);
    out["tokens"] = tokens;
    if (!text_windows_.empty()) {
      out["perplexity"] = eval::score_windows(bench_.model(), {&global}, text_windows_, context_, sink_).perplexity();
      if (round == 0)
        for (const auto& [path, block] : blocks_)
          out["blocks"][path.filename().string()] =
              eval::score_windows(block, {}, text_windows_, context_, sink_).perplexity();
    }
    io::write_json_file(folder_.round(round) / "evaluation.json", records, true);
    return out;
  });
  if (event.contains("loss"))
    sink_.note(fmt::format(
        "round {}  whole model: loss {:.3f} over all held-out records{}", round, event.at("loss").get<double>(),
        event.contains("perplexity") ? fmt::format(", general perplexity {:.2f}", event.at("perplexity").get<double>())
                                     : ""));
}

}  // namespace brick::pipeline
