#include "brick/pipeline/recover_job.h"

#include <cmath>

#include "brick/base/error.h"
#include "brick/base/process.h"
#include "brick/data/windows.h"
#include "brick/io/atomic_output.h"
#include "brick/io/json_file.h"
#include "brick/io/provenance.h"
#include "brick/model/load.h"
#include "brick/model/merge.h"
#include "brick/pipeline/about_file.h"
#include "brick/pipeline/artifacts.h"
#include "brick/train/checkpoint.h"

namespace brick::pipeline {
namespace {

data::EncodedRecords training_data(const RecoverJob& job, const Workbench& bench) {
  data::EncodedRecords out;
  if (!job.data.empty()) out = bench.records(job.data, job.config);
  if (job.text.empty()) return out;
  const std::vector<int32_t> ids = bench.text_ids(job.text);
  const auto windows = about_file(job.text, [&] { return data::consecutive_windows(ids, job.config.length); });
  for (const std::span<const int32_t> window : windows) out.sequences.push_back(data::text_sequence(window));
  return out;
}

model::Model load_teacher(const RecoverJob& job, const model::Model& block, const RunSettings& settings) {
  model::Model teacher = model::load_model(job.teacher, {.tokenizer = true, .tokenizer_file = settings.tokenizer_file});
  if (teacher.config.vocab != block.config.vocab)
    fail(ErrorCode::kMismatch, "the teacher {} has a vocabulary of {}, the block {} one of {}", job.teacher,
         teacher.config.vocab, job.block, block.config.vocab);
  if (teacher.tokenizer->tokens != block.tokenizer->tokens)
    fail(ErrorCode::kMismatch, "the teacher {} has another tokenizer than the block {}", job.teacher, job.block);
  if (job.recover.hidden_weight > 0 && teacher.config.hidden != block.config.hidden)
    fail(ErrorCode::kMismatch,
         "hidden_weight = {}: the teacher {} is {} wide, the block {} {}: their hidden states have no difference",
         job.recover.hidden_weight, job.teacher, teacher.config.hidden, job.block, block.config.hidden);
  return teacher;
}

std::string values_of(const RecoverJob& job, const model::Model& block) {
  if (!job.values.empty()) return job.values;
  return block.block.values == "q4" ? "keep" : "bf16";
}

// Of the files that are trained on. A pipe was read already.
nlohmann::json data_hashes(const RecoverJob& job) {
  nlohmann::json hashes = nlohmann::json::object();
  for (const auto& [name, path] : {std::pair("text", job.text), std::pair("data", job.data)})
    if (std::filesystem::is_regular_file(path)) hashes[name] = io::hash_file(path);
  return hashes;
}

// What the merged block says about where it comes from: the block's own words are in it.
std::string provenance(const RecoverJob& job, const std::string& values, const nlohmann::json& parent,
                       const std::string& teacher_hash, const nlohmann::json& hashes, const train::TuneResult& result,
                       uint64_t seed) {
  nlohmann::json config;
  const auto add = [&](std::string_view name, const auto& value, std::string_view) {
    config[std::string(name)] = value;
  };
  train::TuneConfig(job.config).fields(add);
  RecoverConfig(job.recover).fields(add);
  config["values"] = values;
  config["steps"] = result.steps;
  if (!teacher_hash.empty()) config["teacher"] = teacher_hash;
  config.update(hashes);
  nlohmann::json all = {{"recover", std::move(config)}};
  if (!parent.is_null()) all["block"] = parent;
  return nlohmann::json(io::Provenance{tool_version(), io::hash_path(job.block), io::compact_json(all), seed}).dump();
}

}  // namespace

train::TuneConfig recovery_defaults() {
  train::TuneConfig config;
  config.rank = 32;
  config.alpha = 64;
  config.masked = true;
  // Steps and rate: experiments/README.md, recovery.
  config.lr = 2e-3;
  config.batch_tokens = 512;
  return config;
}

nlohmann::json recover(const RecoverJob& job, const RunSettings& settings, ProgressSink& sink) {
  job.config.validate();
  model::parse_targets(job.config.targets);
  if (job.text.empty() && job.data.empty())
    fail(ErrorCode::kInvalidInput, "nothing to train on: give --text, --data or both");
  if (!(std::isfinite(job.minutes) && job.minutes >= 0))
    fail(ErrorCode::kInvalidInput, "minutes = {}: expected a positive number, or 0 for none", job.minutes);
  const bool teaches = train::needs_teacher(job.recover.objective);
  if (teaches && job.teacher.empty())
    fail(ErrorCode::kInvalidInput, "{} needs a teacher: give --teacher", job.recover.objective);
  const std::string& path = job.files.out;
  check_output(path, settings, {job.block, job.teacher, job.text, job.data});
  if (!job.cache.empty()) io::check_is_elsewhere(path, job.cache, "the cache");
  const Workbench bench(job.block, settings);
  if (!job.data.empty()) bench.warn_of_style(job.config.chat_template, sink);
  nlohmann::json parent;  // what the block's provenance says
  if (const std::string& said = bench.model().block.provenance; !said.empty())
    parent = io::parse_json(said, job.block + ": provenance");
  const data::EncodedRecords records = training_data(job, bench);
  const nlohmann::json hashes = data_hashes(job);

  kernels::Context context(kernels::choose_compute(settings.compute));
  const std::filesystem::path cache =
      job.cache.empty() ? io::beside(path, ".teacher") : std::filesystem::path(job.cache);
  const bool owns_cache = job.cache.empty() && (job.files.resume || !std::filesystem::exists(cache));
  std::optional<model::Model> teacher_model;
  std::optional<train::Teacher> teacher;
  std::string teacher_hash;
  if (teaches) {
    teacher_model = load_teacher(job, bench.model(), settings);
    teacher_hash = io::hash_path(job.teacher);
    teacher.emplace(*teacher_model,
                    train::TeacherOptions{job.recover.top_tokens, cache, teacher_hash, tool_version(),
                                          job.recover.hidden_weight > 0},
                    context);
  }
  const std::unique_ptr<train::Objective> objective =
      train::make_objective(job.recover.objective, {.teacher = teacher ? &*teacher : nullptr,
                                                    .share = job.recover.distill,
                                                    .hidden_weight = job.recover.hidden_weight});
  train::TuneOptions options;
  options.objective = objective.get();
  options.minutes = job.minutes;
  const train::TuneResult result =
      run_training(bench.model(), records, job.config, job.files, options, settings, context, sink);
  if (teacher) teacher->save();
  if (!result.stopped.empty()) fail(ErrorCode::kNumeric, "{}: {}", path, result.stopped);

  const std::string values = values_of(job, bench.model());
  model::Model merged = model::merge(bench.model(), result.adapter, values);
  merged.block.provenance = provenance(job, values, parent, teacher_hash, hashes, result, settings.seed);
  write_block(merged, path, settings.force);
  train::remove_checkpoint(checkpoint_of(job.files));
  if (teacher && owns_cache) std::filesystem::remove_all(cache);

  nlohmann::json out = training_json(result, context);
  out["nonzeros"] = merged.nonzeros();
  out["bytes"] = bytes_on_disk(path);
  out["teacher_tokens"] = teacher ? teacher->computed_tokens() : 0;
  out["teacher_seconds"] = teacher ? teacher->seconds() : 0.0;
  out["peak_rss_mb"] = static_cast<double>(peak_rss_bytes()) / (1 << 20);
  return out;
}

}  // namespace brick::pipeline
