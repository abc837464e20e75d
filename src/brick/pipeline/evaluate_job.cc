#include "brick/pipeline/evaluate_job.h"

#include <cmath>

#include "brick/base/error.h"
#include "brick/base/process.h"
#include "brick/data/windows.h"
#include "brick/eval/language_loss.h"
#include "brick/io/provenance.h"
#include "brick/pipeline/about_file.h"
#include "brick/pipeline/training.h"

namespace brick::pipeline {
namespace {

// What a log of items is of; hashed only where there is one, as models are large.
nlohmann::json identity(const EvaluateJob& job, const RunSettings& settings, const kernels::Context& context) {
  if (job.tasks.log.empty()) return {};
  const auto hash = [](const std::string& path) { return path.empty() ? "" : io::hash_path(path); };
  return {{"model", hash(job.model)},
          {"adapter", hash(job.adapter)},
          {"tokenizer", hash(settings.tokenizer_file)},
          {"compute", kernels::name(context.compute())},
          {"tool_version", tool_version()}};
}

void check_loss(double nll, const std::string& of) {
  if (!std::isfinite(nll))
    fail(ErrorCode::kNumeric, "{}: the loss is not finite: weights of the model or the adapter are damaged", of);
}

}  // namespace

nlohmann::json evaluate(const EvaluateJob& job, const RunSettings& settings, ProgressSink& sink) {
  if (job.text.empty() && job.data.empty() && job.tasks.tasks.empty())
    fail(ErrorCode::kInvalidInput, "nothing to evaluate: give --text, --data or --tasks");
  check_tasks(job.tasks);
  const Stopwatch watch;
  const Workbench bench(job.model, settings);
  const std::optional<model::Adapter> adapter = load_fitting_adapter(job.adapter, bench.model(), sink);
  const model::AdapterUse use{adapter ? &*adapter : nullptr};
  kernels::Context context(kernels::choose_compute(settings.compute));
  nlohmann::json out{{"model", job.model}, {"compute", kernels::name(context.compute())}};
  if (!job.text.empty()) {
    const std::vector<int32_t> ids = bench.text_ids(job.text);
    const auto windows = about_file(job.text, [&] { return data::consecutive_windows(ids, job.length, job.samples); });
    if (const int64_t most = bench.model().config.context; job.length > most)
      sink.warn(
          fmt::format("windows of {} tokens are longer than the {} that the model was made for", job.length, most));
    const eval::TextScore score = eval::score_windows(bench.model(), use, windows, context, sink);
    check_loss(score.nll, job.text);
    out.update({{"perplexity", score.perplexity()}, {"nll", score.nll}, {"tokens", score.tokens}});
  }
  if (!job.data.empty()) {
    train::TuneConfig config;
    config.length = job.length;
    config.chat_template = job.chat_template;
    bench.warn_of_style(job.chat_template, sink);
    const data::EncodedRecords records = bench.records(job.data, config, job.limit);
    tell_of_length(records, config.length, sink);
    const eval::RecordScore score =
        eval::total(eval::score_records(bench.model(), use, records.sequences, context, sink));
    check_loss(score.mean(), job.data);
    const nlohmann::json result{{"perplexity", std::exp(score.mean())},
                                {"nll", score.mean()},
                                {"tokens", score.tokens},
                                {"records", records.sequences.size()},
                                {"cut", records.cut}};
    if (job.text.empty())
      out.update(result);
    else
      out["data"] = result;
  }
  if (!job.tasks.tasks.empty()) {
    TasksJob tasks = job.tasks;
    tasks.limit = job.limit;
    out["tasks"] = evaluate_tasks(tasks, identity(job, settings, context), bench, use, settings, context, sink);
  }
  out["seconds"] = watch.seconds();
  return out;
}

}  // namespace brick::pipeline
