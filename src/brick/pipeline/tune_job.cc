#include "brick/pipeline/tune_job.h"

#include "brick/base/error.h"
#include "brick/base/process.h"
#include "brick/eval/language_loss.h"
#include "brick/pipeline/artifacts.h"
#include "brick/train/checkpoint.h"

namespace brick::pipeline {

nlohmann::json tune(const TuneJob& job, const RunSettings& settings, ProgressSink& sink) {
  job.config.validate();
  model::parse_targets(job.config.targets);
  const std::string& path = job.files.out;
  check_output(path, settings, {job.model, job.data, job.validation, other_than(path, job.init)});
  const Workbench bench(job.model, settings);
  bench.warn_of_style(job.config.chat_template, sink);
  const data::EncodedRecords records = bench.records(job.data, job.config);
  data::EncodedRecords held_out;
  if (!job.validation.empty()) held_out = bench.records(job.validation, job.config);
  const std::optional<model::Adapter> init = load_fitting_adapter(job.init, bench.model(), sink);

  kernels::Context context(kernels::choose_compute(settings.compute));
  train::TuneOptions options;
  options.init = init ? &*init : nullptr;
  const train::TuneResult result =
      run_training(bench.model(), records, job.config, job.files, options, settings, context, sink);
  write_adapter(result.adapter, job.model, path, settings.force);
  if (!result.stopped.empty()) fail(ErrorCode::kNumeric, "{}: {}", path, result.stopped);
  train::remove_checkpoint(checkpoint_of(job.files));

  nlohmann::json out = training_json(result, context);
  if (!job.validation.empty())
    out["validation_loss"] =
        eval::total(eval::score_records(bench.model(), {&result.adapter}, held_out.sequences, context, sink)).mean();
  out["peak_rss_mb"] = static_cast<double>(peak_rss_bytes()) / (1 << 20);
  return out;
}

}  // namespace brick::pipeline
