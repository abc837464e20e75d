#include "brick/pipeline/shrink_job.h"

#include <functional>

#include "brick/base/error.h"
#include "brick/base/process.h"
#include "brick/data/records.h"
#include "brick/data/windows.h"
#include "brick/io/json_file.h"
#include "brick/io/provenance.h"
#include "brick/pipeline/about_file.h"
#include "brick/pipeline/artifact_jobs.h"
#include "brick/pipeline/compare_job.h"
#include "brick/pipeline/prune_job.h"
#include "brick/pipeline/recover_job.h"
#include "brick/pipeline/run_folder.h"
#include "brick/report/comparison.h"
#include "brick/report/table.h"

namespace brick::pipeline {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int64_t kSaveEvery = 25;  // steps of recovery between checkpoints

bool recovers(const ShrinkJob& job) { return !job.text.empty() || !job.data.empty(); }

PruneJob prune_job(const ShrinkJob& job, const std::string& out, uint64_t seed) {
  PruneJob made;
  made.model = job.model;
  made.out = out;
  made.calibration = job.calibration;
  made.samples = job.samples;
  made.length = job.length;
  made.sparsities = {job.sparsity};
  made.target = job.target;
  made.profile = job.profile;
  made.config.method = job.method;
  made.config.structured_sparsity = job.structured_sparsity;
  made.values_free = job.values.empty();
  if (!job.values.empty()) made.config.values = job.values;
  made.config.pattern = job.pattern;
  made.config.seed = seed;
  made.config.tool_version = tool_version();
  return made;
}

RecoverJob recover_job(const ShrinkJob& job, const std::string& block, const std::string& values,
                       const std::string& out) {
  RecoverJob made;
  made.block = block;
  made.teacher = job.model;
  made.text = job.text;
  made.data = job.data;
  made.minutes = job.minutes;
  made.values = values == "f32" || values == "bf16" ? values : "keep";
  made.config.steps = job.steps;
  made.config.length = job.length;
  made.files.out = out;
  made.files.save_every = kSaveEvery;
  made.files.resume = job.resume;
  return made;
}

CompareJob compare_job(const ShrinkJob& job, const std::string& path) {
  CompareJob made;
  made.paths = {path};
  made.text = job.eval;
  made.length = job.length;
  made.samples = job.eval_samples;
  return made;
}

ExportRequest export_request(const std::string& model, const std::string& type, const std::string& out) {
  ExportRequest made;
  made.model = model;
  made.format = "gguf";
  made.dtype = type;
  made.out = out;
  return made;
}

// What would otherwise be noticed by a late stage.
void check(const ShrinkJob& job) {
  if (!recovers(job) && (job.steps > 0 || job.minutes > 0))
    fail(ErrorCode::kInvalidInput, "steps or minutes, but nothing to recover on: give --recover, --data or both");
  if (recovers(job)) recover_job(job, "", "", "").config.validate();
  if (!job.data.empty()) data::load_records(job.data);
  for (const std::string& type : job.gguf) export_dtype(export_request("", type, ""));
}

// What otherwise a stage would notice, when an older run in its place is gone.
void check_stages(const ShrinkJob& job, const RunSettings& settings) {
  check_prune(prune_job(job, "", settings.seed), settings);
  const Workbench bench(job.model, settings, !job.text.empty() || !job.data.empty() || !job.eval.empty());
  for (const auto& [text, samples] : {std::pair(job.text, int64_t{0}), std::pair(job.eval, job.eval_samples)}) {
    if (text.empty()) continue;
    const std::vector<int32_t> ids = bench.text_ids(text);
    about_file(text, [&, most = samples] { return data::consecutive_windows(ids, job.length, most); });
  }
  if (!job.data.empty()) bench.records(job.data, recover_job(job, "", "", "").config);
}

// As run, paths replaced by `of_file` of them.
json configuration(const ShrinkJob& job, const RunSettings& settings, std::string (*of_file)(const fs::path&)) {
  json out = {{"method", job.method},        {"samples", job.samples},
              {"length", job.length},        {"steps", job.steps},
              {"minutes", job.minutes},      {"gguf", job.gguf},
              {"seed", settings.seed},       {"eval_samples", job.eval_samples},
              {"compute", settings.compute}, {"values", job.values},
              {"target", job.target}};
  if (job.target.empty()) out["sparsity"] = job.sparsity;
  if (job.pattern != "unstructured") out["pattern"] = job.pattern;
  if (job.structured_sparsity != 0) out["structured_sparsity"] = job.structured_sparsity;
  for (const auto& [name, path] :
       {std::pair("model", job.model), std::pair("calibration", job.calibration), std::pair("profile", job.profile),
        std::pair("recover", job.text), std::pair("data", job.data), std::pair("eval", job.eval),
        std::pair("tokenizer", settings.tokenizer_file)})
    if (!path.empty()) out[name] = of_file(path);
  return out;
}

std::string config_text(const ShrinkJob& job, const RunSettings& settings) {
  std::string text;
  const json config = configuration(job, settings, [](const fs::path& path) { return path.string(); });
  for (const auto& [key, value] : config.items()) text += fmt::format("{} = {}\n", key, io::compact_json(value));
  return text;
}

// What a resumed run must share with its beginning for the same bits.
std::string identity(const ShrinkJob& job, const RunSettings& settings) {
  json all = configuration(job, settings, io::hash_path);
  all.update(run_conditions());
  return io::compact_json(all);
}

std::string stages_table(const json& stages) {
  report::Table table({{"stage"}, {"seconds", report::Align::kRight}});
  for (const json& stage : stages)
    table.add_row({stage.at("stage").get<std::string>(), fmt::format("{:.1f}", stage.at("seconds").get<double>())});
  return table.text();
}

}  // namespace

json shrink(const ShrinkJob& job, const RunSettings& settings, ProgressSink& sink) {
  check(job);
  const fs::path out = job.out;
  const bool is_new = !fs::exists(out);
  if (!is_new && settings.force && !(job.resume && RunFolder::is_begun(out))) {
    check_output(out, settings, {job.model, job.calibration, job.profile, job.text, job.data, job.eval});
    check_stages(job, settings);
  }
  RunFolder folder(out, config_text(job, settings), identity(job, settings), job.resume, settings.force);
  RunSettings inside = settings;
  inside.force = true;  // over what a killed session left of a stage

  json rows = json::array(), stages = json::array();
  double seconds = 0;
  const auto stage = [&](const std::string& name, const std::function<json()>& work) -> const json& {
    try {
      const json& event = folder.once({{"event", name}}, [&] {
        const Stopwatch watch;
        const json result = work();
        const double took = result.value("seconds", watch.seconds());  // a resumed recovery says that of all sessions
        sink.note(fmt::format("{}: {:.1f} s", name, took));
        return json{{"result", result}, {"seconds", took}};
      });
      stages.push_back(json{{"stage", name}, {"seconds", event.at("seconds")}});
      seconds += event.at("seconds").get<double>();
      return event.at("result");
    } catch (const Error& e) {
      if (!folder.events().empty())
        fail(e.code(), "{}: {}; what is finished stays in {}", name, e.what(), out.string());
      if (is_new) fs::remove_all(out);
      throw;
    }
  };
  const auto measure = [&](const std::string& name, const std::string& path) {
    json row = stage("measure " + name, [&] { return compare(compare_job(job, path), inside, sink).at("rows").at(0); });
    row["name"] = name;
    rows.push_back(std::move(row));
  };

  const std::string block = (out / "block").string(), recovered = (out / "recovered").string();
  json summary = {{"model", job.model}, {"tool_version", tool_version()}};
  summary["prune"] = stage("prune", [&] { return prune_one(prune_job(job, block, settings.seed), inside, sink); });
  measure("dense", job.model);
  measure("block", block);
  if (recovers(job)) {
    const std::string values = rows.back().at("values");
    summary["recover"] =
        stage("recover", [&] { return recover(recover_job(job, block, values, recovered), inside, sink); });
    measure("recovered", recovered);
  }
  for (const std::string& type : job.gguf) {
    const std::string file = "model-" + type + ".gguf";
    const ExportRequest request = export_request(recovers(job) ? recovered : block, type, (out / file).string());
    const json& made = stage("export " + type, [&] { return export_model(request, inside, sink); });
    rows.push_back({{"name", file}, {"kind", "model"}, {"values", type}, {"bytes", made.at("bytes")}});
  }
  summary.update({{"rows", rows}, {"stages", stages}, {"seconds", seconds}});
  io::write_json_file(out / "summary.json", summary, true);
  summary["table"] = report::comparison_table(rows) + "\n" + stages_table(stages);
  return summary;
}

}  // namespace brick::pipeline
