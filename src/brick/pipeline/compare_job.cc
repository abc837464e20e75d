#include "brick/pipeline/compare_job.h"

#include <fmt/format.h>

#include <set>

#include "brick/base/error.h"
#include "brick/io/atomic_output.h"
#include "brick/io/json_file.h"
#include "brick/io/provenance.h"
#include "brick/model/load.h"
#include "brick/pipeline/artifacts.h"
#include "brick/pipeline/bench_job.h"
#include "brick/pipeline/evaluate_job.h"
#include "brick/pipeline/run_folder.h"
#include "brick/report/comparison.h"

namespace brick::pipeline {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kCacheIdentity = "brick compare, cache 1";

// Takes from the cache what it has, else measures and keeps it.
class Cache {
 public:
  explicit Cache(const std::string& folder) {
    if (folder.empty()) return;
    try {
      folder_.emplace(folder, "", kCacheIdentity, true, false);
    } catch (const Error& e) {
      fail(e.code(), "cache {}: not begun by brick compare; name a new folder ({})", folder, e.what());
    }
  }
  bool is_on() const { return folder_.has_value(); }
  json once(const json& key, const std::function<json()>& work) {
    if (!folder_) return work();
    return folder_->once(key, [&] { return json{{"result", work()}}; }).at("result");
  }

 private:
  std::optional<RunFolder> folder_;
};

bool is_run(const fs::path& path) { return fs::exists(path / "metrics.jsonl"); }

json run_rows(const std::string& path) {
  const fs::path summary = fs::path(path) / "summary.json";
  if (!fs::exists(summary))
    fail(ErrorCode::kInvalidInput, "{}: the run has no end yet; the command that began it goes on with --resume", path);
  json rows = report::rows_of_run(io::read_json_file(summary), path);
  if (rows.empty())
    fail(ErrorCode::kCorrupt, "{}: has no blocks, arms, clients or rows: it is no summary that a run writes",
         summary.string());
  return rows;
}

class Measurement {
 public:
  Measurement(const CompareJob& job, const RunSettings& settings, ProgressSink& sink)
      : job_(job), settings_(settings), sink_(sink), cache_(job.cache) {
    compute_ = kernels::name(kernels::choose_compute(settings.compute));
    if (cache_.is_on() && !job.text.empty()) text_hash_ = io::hash_file(job.text);
    if (cache_.is_on() && !settings.tokenizer_file.empty()) tokenizer_hash_ = io::hash_file(settings.tokenizer_file);
  }

  json row(const std::string& path) {
    const model::ModelSummary summary = model::summarise(path, false);
    const model::BlockSpec& block = summary.block;
    json row = {{"name", path},
                {"kind", "model"},
                {"method", block.method.empty() ? "none" : block.method},
                {"sparsity", block.sparsity},
                {"parameters", summary.parameters},
                {"nonzeros", summary.nonzeros},
                {"bytes", bytes_on_disk(path)},
                {"values", block.values.empty() ? summary.dtype : block.values}};
    if (!block.pattern.empty()) row["pattern"] = block.pattern;
    if (!block.provenance.empty()) row["provenance"] = block.provenance;
    const std::string hash = cache_.is_on() ? io::hash_path(path) : "";
    if (!job_.text.empty()) row.update(perplexity(path, hash, summary.vocab));
    if (!job_.tasks.tasks.empty()) row.update(accuracy(path, hash));
    if (job_.speed) row.update(speed(path, hash));
    return row;
  }

 private:
  json key(const char* what, const std::string& hash) const {
    return {{"event", what}, {"model", hash}, {"compute", compute_}, {"tool_version", tool_version()}};
  }

  json perplexity(const std::string& path, const std::string& hash, int64_t vocab) {
    json unit = key("perplexity", hash);
    unit.update(
        {{"text", text_hash_}, {"length", job_.length}, {"samples", job_.samples}, {"tokenizer", tokenizer_hash_}});
    const json found = cache_.once(unit, [&] {
      EvaluateJob evaluation;
      evaluation.model = path;
      evaluation.text = job_.text;
      evaluation.length = job_.length;
      evaluation.samples = job_.samples;
      return evaluate(evaluation, settings_, sink_);
    });
    return {{"perplexity", found.at("perplexity")},
            {"tokens", found.at("tokens")},
            {"text", fmt::format("{}, {} tokens of {} in windows of {}", fs::path(job_.text).filename().string(),
                                 found.at("tokens").get<int64_t>(), vocab, job_.length)}};
  }

  json accuracy(const std::string& path, const std::string& hash) {
    const TasksJob& tasks = job_.tasks;
    json unit = key("tasks", hash);
    unit.update({{"tasks", tasks.tasks},
                 {"folder", fs::absolute(tasks.folder).string()},
                 {"limit", tasks.limit},
                 {"shots", tasks.shots},
                 {"tokenizer", tokenizer_hash_}});
    const json found = cache_.once(unit, [&] {
      EvaluateJob evaluation;
      evaluation.model = path;
      evaluation.tasks = tasks;
      evaluation.limit = tasks.limit;
      return evaluate(evaluation, settings_, sink_).at("tasks");
    });
    double sum = 0;
    std::string questions;
    for (const auto& [name, task] : found.items()) {
      sum += task.at("acc").get<double>();
      questions += fmt::format("{}{} ({} questions, {} shots)", questions.empty() ? "" : ", ", name,
                               task.at("n").get<int64_t>(), task.at("num_fewshot").get<int64_t>());
    }
    return {{"accuracy", sum / static_cast<double>(found.size())}, {"questions", questions}, {"tasks", found}};
  }

  json speed(const std::string& path, const std::string& hash) {
    json unit = key("speed", hash);
    unit.update({{"machine", machine()}, {"asked", settings_.compute}});
    const json found = cache_.once(unit, [&] {
      BenchJob timing;
      timing.model = path;
      timing.what = "train,decode";
      return bench(timing, settings_, sink_);
    });
    json out;
    for (const char* name : {"decode_tokens_per_second", "train_tokens_per_second"})
      for (const std::string& member : {std::string(name), std::string(name) + "_spread"})
        out[member] = found.at(member);
    return out;
  }

  const CompareJob& job_;
  const RunSettings& settings_;
  ProgressSink& sink_;
  Cache cache_;
  std::string compute_, text_hash_, tokenizer_hash_;
};

}  // namespace

json compare(const CompareJob& job, const RunSettings& settings, ProgressSink& sink) {
  if (!job.out.empty()) {
    std::vector<fs::path> inputs(job.paths.begin(), job.paths.end());
    inputs.emplace_back(job.text);
    check_output(job.out, settings, std::move(inputs));
  }
  std::set<fs::path> once;
  for (const std::string& path : job.paths) {  // before anything is measured
    if (!fs::exists(path)) fail(ErrorCode::kNotFound, "{}: no such model, block or run", path);
    if (!once.insert(fs::canonical(path)).second) fail(ErrorCode::kInvalidInput, "compare: {} is named twice", path);
  }
  check_tasks(job.tasks);
  json rows = json::array();
  Measurement measurement(job, settings, sink);
  for (const std::string& path : job.paths) {
    if (is_run(path)) {
      for (json& row : run_rows(path)) rows.push_back(std::move(row));
    } else {
      sink.note("measuring " + path);
      rows.push_back(measurement.row(path));
    }
  }
  report::mark_fronts(rows);
  json out{{"rows", rows},
           {"tool_version", tool_version()},
           {"compute", kernels::name(kernels::choose_compute(settings.compute))},
           {"machine", machine()}};
  if (!job.out.empty()) io::write_file_atomic(job.out, report::comparison_page(out), settings.force);
  out["table"] = report::comparison_table(rows);
  if (!job.out.empty()) out["report"] = job.out;
  return out;
}

}  // namespace brick::pipeline
