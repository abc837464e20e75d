// The state of `brick simulate`, shared by the files simulation_*.cc.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <span>

#include "brick/eval/language_loss.h"
#include "brick/federate/placement.h"
#include "brick/pipeline/federation_config.h"
#include "brick/pipeline/prune_job.h"
#include "brick/pipeline/run_folder.h"
#include "brick/pipeline/workbench.h"
#include "brick/train/trainer.h"

namespace brick::pipeline {

class Simulation {
 public:
  Simulation(FederationConfig config, const std::string& out, bool resume, const RunSettings& settings,
             ProgressSink& sink);

  void make_blocks();  // blocks/, round 0's global adapter and evaluation
  void run_round(int64_t round);
  void run_arms();
  nlohmann::json summary() const;  // what the page shows (report/page.h)

 private:
  struct Client {
    const FederationConfig::Client* config = nullptr;
    const model::Model* block = nullptr;  // of blocks_, or the whole model; from make_blocks() on, as the next two
    const federate::Placement* placement = nullptr;
    std::string block_name;  // "0" for the whole model, else its folder's
    data::EncodedRecords train, test;
    int64_t rank = 0, records = 0;
  };
  using Losses = std::vector<eval::RecordScore>;  // of one client's test records

  std::vector<Client> read_clients(bool resumes);  // with their given blocks; the others' cuts are checked

  std::map<std::string, std::set<double>> sparsities_to_cut() const;  // by method
  PruneJob prune_job(const std::string& method) const;
  std::span<const std::span<const int32_t>> windows(const PruneJob& job);  // none where its method reads no text
  // Error for what cannot be cut; their text is not read where a run goes on, which may have cut all.
  void check_cuts(bool resumes);
  void cut_blocks(const std::string& method, const std::vector<double>& sparsities);
  // Empty for the whole model.
  std::filesystem::path block_folder(const FederationConfig::Client& client) const;
  std::filesystem::path block_folder(const std::string& method, double sparsity) const;
  const std::string& method_of(const FederationConfig::Client& client) const;
  // Blocks are told by their folders' names.
  void check_name(const FederationConfig::Client& client, const std::filesystem::path& folder) const;
  void load_block(const FederationConfig::Client& client);  // if it has one and it is not loaded yet
  nlohmann::json describe(const model::Model& block, const std::filesystem::path& folder) const;

  model::Adapter load_global(int64_t round) const;
  // What each client is sent after `round`, a structured block's before it is cut to its part (on_block).
  std::vector<model::Adapter> sent_adapters(int64_t round) const;
  model::Adapter on_block(size_t index, const model::Adapter& sent) const;
  void tune_client(int64_t round, size_t index, const model::Adapter& sent);
  void upload(int64_t round, size_t index);
  void aggregate_round(int64_t round, const std::vector<model::Adapter>& sent);
  bool takes_part(int64_t round, size_t index) const;
  bool uploaded(int64_t round, size_t index) const;

  void evaluate_round(int64_t round);
  // Means over records into `event`, one score a record into `file`.
  nlohmann::json score(const model::Model& model, const model::Adapter* adapter, const Client& client,
                       nlohmann::json& per_record);

  void run_local(size_t index);
  void run_centralised();
  void run_fedit_dense();
  nlohmann::json score_all(const model::Model& model, const model::Adapter& adapter, const std::filesystem::path& file);

  // One tuning unit: from `init` (or afresh) into an adapter folder.
  nlohmann::json tune_unit(const model::Model& model, std::span<const data::TokenSequence> sequences,
                           const train::TuneConfig& config, const model::Adapter* init, uint64_t seed,
                           const std::filesystem::path& out);
  double rounds_taken(size_t index) const;

  struct Totals;                                           // of the run's events
  std::vector<const nlohmann::json*> evaluations() const;  // the events, by round
  const nlohmann::json* centralised_arm() const;           // the event; null: none
  const nlohmann::json* fedit_arm() const;                 // of its last round
  nlohmann::json client_summary(const Client& client, const Totals& totals, const nlohmann::json& before,
                                const nlohmann::json& after) const;
  nlohmann::json block_summaries(const Totals& totals) const;
  nlohmann::json arm_summaries(const Totals& totals) const;

  FederationConfig config_;
  RunSettings settings_;
  ProgressSink& sink_;
  Workbench bench_;
  kernels::Context context_;
  std::filesystem::path out_;
  std::optional<Calibration> calibration_;                // of all methods, once one reads it and until all have
  std::map<std::filesystem::path, model::Model> blocks_;  // by their folders
  std::map<const model::Model*, federate::Placement> placements_;
  std::vector<Client> clients_;
  data::EncodedRecords validation_;
  std::vector<int32_t> text_ids_;
  std::vector<std::span<const int32_t>> text_windows_;
  RunFolder folder_;  // last: what is wrong with the inputs shows before an older run in its place is gone
};

}  // namespace brick::pipeline
