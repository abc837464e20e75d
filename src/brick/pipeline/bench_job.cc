#include "brick/pipeline/bench_job.h"

#include <algorithm>

#include "brick/base/error.h"
#include "brick/base/process.h"
#include "brick/data/windows.h"
#include "brick/io/atomic_output.h"
#include "brick/io/json_file.h"
#include "brick/model/decode.h"
#include "brick/pipeline/decode_profile.h"
#include "brick/pipeline/kernel_table_file.h"
#include "brick/prune/prune.h"
#include "brick/train/trainer.h"

namespace brick::pipeline {
namespace {

constexpr int64_t kMostTokens = int64_t{1} << 24;

std::vector<int32_t> random_ids(int64_t count, int64_t vocab, Rng& rng) {
  std::vector<int32_t> ids(static_cast<size_t>(count));
  for (int32_t& id : ids) id = static_cast<int32_t>(rng.below(static_cast<uint64_t>(vocab)));
  return ids;
}

void report(nlohmann::json& out, const std::string& name, int64_t tokens, std::vector<double> seconds) {
  std::sort(seconds.begin(), seconds.end());
  const auto rate = [&](double s) { return static_cast<double>(tokens) / s; };
  out[name] = rate(seconds[seconds.size() / 2]);
  out[name + "_spread"] = {rate(seconds.back()), rate(seconds.front())};
}

std::vector<std::string> timings_of(const std::string& list) {
  std::vector<std::string> timings;
  for (size_t begin = 0; begin <= list.size();) {
    const size_t end = std::min(list.find(',', begin), list.size());
    timings.push_back(list.substr(begin, end - begin));
    begin = end + 1;
    if (const std::string& what = timings.back();
        what != "train" && what != "prefill" && what != "decode" && what != "prune")
      fail(ErrorCode::kInvalidInput, "bench: '{}' is none of train, prefill, decode, prune", what);
  }
  return timings;
}

void bench_training(const model::Model& model, const BenchJob& job, uint64_t seed, kernels::Context& context,
                    ProgressSink& sink, nlohmann::json& out) {
  Rng rng(seed, stream_id({1}));
  std::vector<data::TokenSequence> sequences;
  if (!job.ids.empty()) {
    const IdRows batch = read_id_rows(job.ids, model);
    if (batch.length < 2) fail(ErrorCode::kInvalidInput, "{}: sequences of one id leave nothing to predict", job.ids);
    for (const std::span<const int32_t> row : batch.rows()) sequences.push_back(data::text_sequence(row));
  } else {
    for (int64_t i = 0; i < std::max<int64_t>(1, job.tokens / job.length); ++i)
      sequences.push_back(data::text_sequence(random_ids(job.length, model.config.vocab, rng)));
  }
  train::TuneConfig config;
  config.rank = job.rank;
  config.alpha = 2 * static_cast<double>(job.rank);
  config.steps = job.repeats + 1;
  config.batch_records = static_cast<int64_t>(sequences.size());
  config.schedule = "constant";
  config.warmup = 0;
  config.clip = 0;
  config.memory = job.memory;
  config.masked = job.masked;
  std::vector<double> seconds;
  train::TuneOptions options;
  options.seed = seed;
  options.on_step = [&](const train::StepRecord& step) {
    if (step.step == 1) out["train_loss_first"] = step.loss;
    if (step.step > 1) seconds.push_back(step.seconds);  // the first warms up
    out["train_loss"] = step.loss;
  };
  train::tune(model, sequences, config, options, context, sink);
  report(out, "train_tokens_per_second", data::count_tokens(sequences), seconds);
}

void bench_decoding(const model::Model& model, const BenchJob& job, bool prefill, uint64_t seed,
                    kernels::Context& context, nlohmann::json& out) {
  Rng rng(seed, stream_id({2}));
  constexpr int64_t kPrefill = 512;
  const std::vector<int32_t> prompt = random_ids(prefill ? kPrefill : 16, model.config.vocab, rng);
  std::vector<double> seconds;
  Stopwatch watch;
  const model::Decoder first(model, context, {}, 1);  // weights laid out for it serve the others
  if (!prefill) {
    out["decode_prepare_seconds"] = watch.seconds();
    out["decode_weights_mb"] = static_cast<double>(first.weight_bytes()) / (1 << 20);
  }
  for (int64_t r = 0; r <= job.repeats; ++r) {
    model::Decoder decoder(model, context, {}, kPrefill + job.decode_tokens);
    watch = Stopwatch();
    decoder.feed(prompt);
    if (!prefill) {
      watch = Stopwatch();
      for (int64_t t = 0; t < job.decode_tokens; ++t) decoder.feed(random_ids(1, model.config.vocab, rng));
    }
    if (r > 0) seconds.push_back(watch.seconds());
    if (!prefill) out["decode_resident_mb"] = static_cast<double>(resident_bytes()) / (1 << 20);
  }
  report(out, prefill ? "prefill_tokens_per_second" : "decode_tokens_per_second",
         prefill ? kPrefill : job.decode_tokens, seconds);
}

void bench_pruning(const model::Model& model, uint64_t seed, kernels::Context& context, ProgressSink& sink,
                   nlohmann::json& out) {
  Rng rng(seed, stream_id({3}));
  const std::vector<int32_t> ids = random_ids(8 * 512, model.config.vocab, rng);
  const auto windows = data::calibration_windows(ids, 512, 8, std::nullopt);
  for (const char* method : {"wanda", "sparsegpt"}) {
    prune::PruneConfig config;
    config.method = method;
    config.sparsity = 0.5;
    config.values = "bf16";
    const Stopwatch watch;
    prune::prune(model, windows, config, context, sink);
    out[std::string("prune_seconds_") + method] = watch.seconds();
  }
}

}  // namespace

double decode_speed(const model::Model& model, const RunSettings& settings) {
  kernels::Context context(kernels::choose_compute(settings.compute));
  context.set_rounds_activations(kernels::rounds_activations(settings.compute));
  nlohmann::json out;
  bench_decoding(model, BenchJob(), false, settings.seed, context, out);
  return out.at("decode_tokens_per_second");
}

nlohmann::json bench(const BenchJob& job, const RunSettings& settings, ProgressSink& sink) {
  if (job.repeats < 1 || job.length < 2 || job.tokens < job.length || job.decode_tokens < 1)
    fail(ErrorCode::kInvalidInput,
         "bench: needs repeats, decode-tokens of at least 1 and tokens of at least length, length at least 2");
  if (job.tokens > kMostTokens || job.decode_tokens > kMostTokens)
    fail(ErrorCode::kInvalidInput, "bench: tokens and decode-tokens are at most {}", kMostTokens);
  const std::vector<std::string> timings = timings_of(job.what);
  if (std::ranges::find(timings, "train") == timings.end() && (!job.ids.empty() || job.masked))
    fail(ErrorCode::kInvalidInput, "bench: ids and masked are of train, which is not among what is timed");
  if (!job.calibrate_file.empty()) io::check_output(job.calibrate_file, settings.force, {job.model, job.ids});
  const Workbench bench(job.model, settings, false);
  nlohmann::json out;
  if (job.calibrate) {
    out = to_json(calibrate_kernels(bench.model(), sink));
    out["decode"] = to_json(measure_decoding(bench.model(), {"f32", "bf16", "q4"}, settings, sink));
    if (!job.calibrate_file.empty()) io::write_json_file(job.calibrate_file, out, settings.force);
  }
  kernels::Context context(kernels::choose_compute(settings.compute));
  out.update(machine());
  out.update({{"compute", kernels::name(context.compute())},
              {"weights_mb", static_cast<double>(bench.model().weight_bytes()) / (1 << 20)}});
  for (const std::string& what : timings) {
    if (what == "train")
      bench_training(bench.model(), job, settings.seed, context, sink, out);
    else if (what == "prefill" || what == "decode") {
      context.set_rounds_activations(kernels::rounds_activations(settings.compute));
      bench_decoding(bench.model(), job, what == "prefill", settings.seed, context, out);
      context.set_rounds_activations(false);
    } else {
      bench_pruning(bench.model(), settings.seed, context, sink, out);
    }
  }
  out["peak_rss_mb"] = static_cast<double>(peak_rss_bytes()) / (1 << 20);
  return out;
}

}  // namespace brick::pipeline
