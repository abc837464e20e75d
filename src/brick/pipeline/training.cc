#include "brick/pipeline/training.h"

#include <filesystem>
#include <fstream>
#include <utility>

#include "brick/base/error.h"
#include "brick/io/atomic_output.h"
#include "brick/io/json_file.h"
#include "brick/io/text_file.h"
#include "brick/pipeline/log_file.h"
#include "brick/train/checkpoint.h"

namespace brick::pipeline {
namespace {

nlohmann::json step_json(const train::StepRecord& step) {
  return {{"step", step.step}, {"loss", step.loss},           {"tokens", step.tokens},
          {"lr", step.lr},     {"grad_norm", step.grad_norm}, {"seconds", step.seconds}};
}

void announce(const model::Model& model, const data::EncodedRecords& records, const train::TuneConfig& config,
              const train::TuneOptions& options, ProgressSink& sink) {
  const train::MemoryPlan& plan = *options.plan;
  sink.note(
      fmt::format("{} records, {} tokens, {} of them trained on; about {} MB, {} of them the model: {} tokens at a "
                  "time, activations {}",
                  records.sequences.size(), data::count_tokens(records.sequences),
                  data::count_supervised(records.sequences), plan.bytes() >> 20, plan.model_bytes >> 20,
                  plan.part_tokens, plan.activations == model::Activations::kKeep ? "kept" : "recomputed"));
  tell_of_length(records, config.length, sink);
  if (config.masked && model::mask_hash(model).empty())
    sink.note("masked: this model has no mask, so the adapter is a plain one");
  if (config.rslora && options.init != nullptr && !options.init->config.rslora)
    sink.warn("rslora: the scale is that of the adapter to continue from, alpha / rank");
}

// Leaves the lines of the steps before `step`: the others are done again, one that a kill tore among them.
void rewind_log(const std::filesystem::path& path, int64_t step) {
  if (!std::filesystem::is_regular_file(path)) return;
  const std::string text = io::read_text(path);
  const std::string_view whole = std::string_view(text).substr(0, text.rfind('\n') + 1);
  size_t kept = 0;
  bool before = true;
  io::for_each_line_in(whole, [&](int64_t number, std::string_view line) {
    const std::string where = fmt::format("{}: line {}", path.string(), number);
    const nlohmann::json record = io::parse_json(line, where);
    if (!record.is_object() || !record.value("step", nlohmann::json()).is_number_integer())
      fail(ErrorCode::kCorrupt, "{}: is no step of a log that --log writes", where);
    before = before && record["step"].get<int64_t>() < step;
    if (before) kept = text.find('\n', static_cast<size_t>(line.data() - text.data())) + 1;
  });
  std::filesystem::resize_file(path, kept);
}

}  // namespace

std::filesystem::path checkpoint_of(const TrainingFiles& files) { return io::beside(files.out, ".checkpoint"); }

train::TuneResult run_training(const model::Model& model, const data::EncodedRecords& records,
                               const train::TuneConfig& config, const TrainingFiles& files, train::TuneOptions options,
                               const RunSettings& settings, kernels::Context& context, ProgressSink& sink) {
  if (!files.log.empty()) io::check_is_elsewhere(files.out, files.log, "the log");
  if (settings.force || files.resume) check_is_log(files.log, "step");
  options.seed = settings.seed;
  options.checkpoint = checkpoint_of(files);
  options.save_every = files.save_every;
  options.resume = files.resume;
  train::check_is_checkpoint(options.checkpoint);
  options.run_identity = settings.compute;
  if (files.save_every > 0 || files.resume) options.run_identity += model::weights_hash(model) + model::cut_hash(model);
  if (!files.resume && std::filesystem::exists(options.checkpoint)) {
    if (!settings.force)
      fail(ErrorCode::kExists, "{} is left of an unfinished run: continue it with --resume or discard it with --force",
           options.checkpoint.string());
    train::remove_checkpoint(options.checkpoint);
  }
  if (!files.resume && !settings.force && std::filesystem::is_regular_file(files.log))
    fail(ErrorCode::kExists, "{} is there already: continue it with --resume or replace it with --force", files.log);
  options.plan = train::plan_memory(model, records.sequences, config, options, context.compute());
  announce(model, records, config, options, sink);
  std::ofstream log;
  if (!files.log.empty()) {
    log.open(files.log, files.resume ? std::ios::app : std::ios::trunc);
    if (!log) fail(ErrorCode::kIo, "{}: cannot be written", files.log);
    options.on_step = [&, fits = !files.resume](const train::StepRecord& step) mutable {
      if (!std::exchange(fits, true)) rewind_log(files.log, step.step);
      log << step_json(step).dump() << std::endl;
      if (!log) fail(ErrorCode::kIo, "{}: cannot be written", files.log);
    };
  }
  return train::tune(model, records.sequences, config, options, context, sink);
}

void tell_of_length(const data::EncodedRecords& records, int64_t length, ProgressSink& sink) {
  if (records.cut > 0) sink.note(fmt::format("{} records longer than {} tokens were cut", records.cut, length));
  if (records.without_target > 0)
    sink.warn(
        fmt::format("{} records have no answer within {} tokens and were left out", records.without_target, length));
}

nlohmann::json training_json(const train::TuneResult& result, const kernels::Context& context) {
  return {{"loss_first", result.loss_first},
          {"loss_last", result.loss_last},
          {"steps", result.steps},
          {"tokens", result.tokens},
          {"supervised_tokens", result.supervised_tokens},
          {"tokens_per_second", static_cast<double>(result.tokens) / result.seconds},
          {"seconds", result.seconds},
          {"planned_mb", static_cast<double>(result.planned_bytes) / (1 << 20)},
          {"compute", kernels::name(context.compute())},
          {"parameters", result.adapter.parameters()},
          {"masked", result.adapter.config.masked}};
}

}  // namespace brick::pipeline
