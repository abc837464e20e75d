#include "brick/pipeline/tune_job.h"

#include <fstream>

#include "brick/base/error.h"
#include "brick/base/process.h"
#include "brick/eval/language_loss.h"
#include "brick/io/atomic_output.h"
#include "brick/io/json_file.h"
#include "brick/train/trainer.h"

namespace brick::pipeline {
namespace {

nlohmann::json step_json(const train::StepRecord& step) {
  return {{"step", step.step}, {"loss", step.loss},           {"tokens", step.tokens},
          {"lr", step.lr},     {"grad_norm", step.grad_norm}, {"seconds", step.seconds}};
}

void announce(const Workbench& bench, const data::EncodedRecords& records, const TuneJob& job, int64_t rank,
              ProgressSink& sink) {
  train::TuneConfig planned = job.config;
  planned.rank = rank;
  const train::MemoryPlan plan = train::plan_memory(bench.model(), planned, records.sequences);
  sink.note(fmt::format(
      "{} records, {} tokens, {} of them trained on; about {} MB beside the model: {} tokens at a time, activations {}",
      records.sequences.size(), data::count_tokens(records.sequences), data::count_supervised(records.sequences),
      plan.bytes >> 20, plan.part_tokens, plan.activations == model::Activations::kKeep ? "kept" : "recomputed"));
  if (records.cut > 0)
    sink.note(fmt::format("{} records longer than {} tokens were cut", records.cut, job.config.length));
  if (records.without_target > 0)
    sink.warn(fmt::format("{} records have no answer within {} tokens and were left out", records.without_target,
                          job.config.length));
}

}  // namespace

nlohmann::json tune(const TuneJob& job, const RunSettings& settings, ProgressSink& sink) {
  job.config.validate();
  model::parse_targets(job.config.targets);
  io::check_output(job.out, settings.force);
  const Workbench bench(job.model, settings);
  const data::EncodedRecords records = bench.records(job.data, job.config);
  if (job.config.masked && model::mask_hash(bench.model()).empty())
    sink.note("masked: this model has no mask, so the adapter is a plain one");
  const std::optional<model::Adapter> init = load_fitting_adapter(job.init, bench.model(), sink);
  announce(bench, records, job, init ? init->config.rank : job.config.rank, sink);

  train::TuneOptions options;
  options.seed = settings.seed;
  options.init = init ? &*init : nullptr;
  options.checkpoint = job.out + ".checkpoint";
  options.save_every = job.save_every;
  options.resume = job.resume;
  options.run_identity = model::fingerprint(bench.model()) + model::mask_hash(bench.model()) + settings.compute;
  if (!job.resume && std::filesystem::exists(options.checkpoint)) {
    if (!settings.force)
      fail(ErrorCode::kExists, "{} is left of an unfinished run: continue it with --resume or discard it with --force",
           options.checkpoint.string());
    std::filesystem::remove_all(options.checkpoint);
  }
  std::ofstream log;
  if (!job.log.empty()) {
    log.open(job.log, job.resume ? std::ios::app : std::ios::trunc);
    if (!log) fail(ErrorCode::kIo, "{}: cannot be written", job.log);
    options.on_step = [&](const train::StepRecord& step) { log << step_json(step).dump() << std::endl; };
  }

  kernels::Context context(kernels::choose_compute(settings.compute));
  const train::TuneResult result = train::tune(bench.model(), records.sequences, job.config, options, context, sink);
  io::AtomicFolder output(job.out, settings.force);
  model::save_adapter(result.adapter, job.model, output.path().string());
  output.commit();
  if (!result.stopped.empty()) fail(ErrorCode::kNumeric, "{}: {}", job.out, result.stopped);

  nlohmann::json out{{"loss_first", result.loss_first},
                     {"loss_last", result.loss_last},
                     {"steps", result.steps},
                     {"tokens", result.tokens},
                     {"supervised_tokens", result.supervised_tokens},
                     {"tokens_per_second", static_cast<double>(result.tokens) / result.seconds},
                     {"seconds", result.seconds},
                     {"compute", kernels::name(context.compute())},
                     {"parameters", result.adapter.parameters()},
                     {"masked", result.adapter.config.masked}};
  if (!job.validation.empty()) {
    const data::EncodedRecords held_out = bench.records(job.validation, job.config);
    out["validation_loss"] =
        eval::total(eval::score_records(bench.model(), {&result.adapter}, held_out.sequences, context, sink)).mean();
  }
  out["peak_rss_mb"] = static_cast<double>(peak_rss_bytes()) / (1 << 20);
  return out;
}

}  // namespace brick::pipeline
