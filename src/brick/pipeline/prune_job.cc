#include "brick/pipeline/prune_job.h"

#include <fstream>
#include <set>

#include "brick/base/error.h"
#include "brick/base/process.h"
#include "brick/data/windows.h"
#include "brick/io/atomic_output.h"
#include "brick/model/save.h"
#include "brick/pipeline/about_file.h"
#include "brick/pipeline/artifacts.h"
#include "brick/pipeline/budget.h"
#include "brick/prune/registry.h"
#include "brick/prune/structured.h"

namespace brick::pipeline {
namespace {

struct Pruned {
  std::vector<model::Model> blocks;
  std::vector<prune::PruneReport> reports;
};

// Share of the parent's linear weights that the block does not have.
double linear_sparsity(const model::Model& parent, const model::Model& block) {
  const int64_t kept = block.nonzeros() - (block.parameters() - block.linear_parameters());
  return 1.0 - static_cast<double>(kept) / static_cast<double>(parent.linear_parameters());
}

nlohmann::json block_json(const model::Model& parent, const model::Model& block, const prune::PruneReport& report,
                          const std::string& path, double seconds) {
  nlohmann::json out = {{"method", block.block.method.empty() ? "none" : block.block.method},
                        {"sparsity", block.block.sparsity},
                        {"pattern", block.block.pattern},
                        {"nonzeros", block.nonzeros()},
                        {"parameters", block.parameters()},
                        {"linear_sparsity", linear_sparsity(parent, block)},
                        {"bytes", bytes_on_disk(path)},
                        {"path", path},
                        {"seconds", seconds}};
  if (!report.layer_sparsities.empty()) out["layer_sparsities"] = report.layer_sparsities;
  if (!report.stream_errors.empty()) out["stream_errors"] = report.stream_errors;
  return out;
}

bool needs_tokenizer(const PruneJob& job) { return !job.calibration.empty() && !job.calibration.ends_with(".npy"); }

// The model with its tokenizer if it has one, since blocks carry it along.
Workbench load_parent(const PruneJob& job, const RunSettings& settings, ProgressSink& sink) {
  try {
    return Workbench(job.model, settings, true);
  } catch (const Error& e) {
    if (needs_tokenizer(job) || !settings.tokenizer_file.empty()) throw;
    Workbench bench(job.model, settings, false);
    if (e.code() != ErrorCode::kNotFound) sink.warn(fmt::format("the block has no tokenizer: {}", e.what()));
    return bench;
  }
}

Pruned run(const PruneJob& job, const Workbench& bench, const RunSettings& settings, ProgressSink& sink) {
  const Calibration calibration = load_calibration(job, bench);
  kernels::Context context(kernels::choose_compute(settings.compute));
  Pruned out;
  out.blocks =
      prune::prune_family(bench.model(), calibration.windows, job.sparsities, job.config, context, sink, &out.reports);
  return out;
}

// The job with the sparsity, and if need be values and pattern, that its target asks for.
PruneJob with_choice(PruneJob job, const Choice& choice) {
  job.sparsities = {choice.sparsity};
  job.config.values = choice.values;
  job.config.pattern = choice.pattern;
  return job;
}

void check_options(const PruneJob& job) {
  if (job.config.pattern == kAutoPattern && job.target.empty())
    fail(ErrorCode::kInvalidInput, "pattern {} is chosen by a target: give prune's --target, or a pattern",
         kAutoPattern);
  if (job.config.structured_sparsity != 0 && !prune::parse_recipe(job.config.method).mixed())
    fail(ErrorCode::kInvalidInput, "{} has one sparsity; structured_sparsity is of methods like flap+wanda",
         job.config.method);
}

void check_calibration(const PruneJob& job) {
  if (job.calibration.empty() && prune::needs_calibration(job.config))
    fail(ErrorCode::kInvalidInput, "{} needs a calibration text: give --calibration", job.config.method);
}

// What would be refused anyway, before anything is measured.
void check_target(const Target& target, const PruneJob& job, const model::Model& parent) {
  check_calibration(job);
  check_has_targets(target, job.config);
  if (const prune::Recipe recipe = prune::parse_recipe(job.config.method); recipe.structured != nullptr)
    prune::check_structures(recipe.structured->needs(job.config), parent, job.config);
}

Choice choose(const Target& target, const PruneJob& job, const model::Model& parent, const RunSettings& settings,
              ProgressSink& sink) {
  check_target(target, job, parent);
  std::optional<DecodeProfile> profile;
  if (target.kind == Target::Kind::kDecode) {
    std::vector<std::string> values{job.config.values};
    if (job.values_free) values.emplace_back("q4");
    profile = job.profile.empty() ? measure_decoding(parent, values, settings, sink)
                                  : read_decode_profile(job.profile, parent, settings);
  }
  return choose_sparsity(target, parent, job.config, job.values_free, profile ? &*profile : nullptr);
}

nlohmann::json target_json(const Target& target, const Choice& choice, const model::Model& parent,
                           const model::Model& block, const std::string& path, ProgressSink& sink) {
  constexpr double kSlack = 1.01;  // what prediction promises
  const auto bytes = static_cast<double>(bytes_on_disk(path));
  const double share = static_cast<double>(block.nonzeros()) / static_cast<double>(parent.parameters());
  const bool reached = target.kind == Target::Kind::kBytes        ? bytes <= kSlack * target.amount
                       : target.kind == Target::Kind::kParameters ? share <= kSlack * target.amount
                                                                  : true;
  if (!reached)
    sink.warn(fmt::format("target {} was missed: the block has {:.0f} bytes and keeps {:.4g} % of the parameters",
                          target.text, bytes, 100 * share));
  nlohmann::json out = {{"asked", target.text},
                        {"reason", choice.reason},
                        {"sparsity", choice.sparsity},
                        {"values", choice.values},
                        {"pattern", block.block.pattern},
                        {"predicted_bytes", choice.bytes},
                        {"predicted_nonzeros", choice.nonzeros},
                        {"reached", reached}};
  if (choice.speedup) out["predicted_speedup"] = *choice.speedup;
  return out;
}

}  // namespace

std::string sparsity_name(double sparsity) { return fmt::format("{:.6g}", sparsity * 100 + 0.0); }  // no "-0"

Calibration load_calibration(const PruneJob& job, const Workbench& bench) {
  Calibration out;
  check_calibration(job);
  if (job.calibration.empty()) return out;
  if (!job.calibration.ends_with(".npy")) {
    out.ids = bench.text_ids(job.calibration);
    out.windows = about_file(job.calibration, [&] {
      return data::calibration_windows(out.ids, job.length, job.samples, job.calibration_seed);
    });
    return out;
  }
  IdRows rows = read_id_rows(job.calibration, bench.model());
  out.windows = rows.rows();
  out.ids = std::move(rows.ids);  // its memory, and so the windows, stay
  return out;
}

nlohmann::json prune_one(const PruneJob& job, const RunSettings& settings, ProgressSink& sink) {
  check_output(job.out, settings, {job.model, job.calibration, job.profile});
  check_options(job);
  const std::optional<Target> target =
      job.target.empty() ? std::nullopt : std::optional<Target>(parse_target(job.target));
  const Stopwatch watch;
  const Workbench bench = load_parent(job, settings, sink);
  std::optional<Choice> choice;
  if (target) {
    choice = choose(*target, job, bench.model(), settings, sink);
    sink.note(choice->reason);
  }
  const Pruned pruned = run(choice ? with_choice(job, *choice) : job, bench, settings, sink);
  write_block(pruned.blocks.at(0), job.out, settings.force);
  nlohmann::json out = block_json(bench.model(), pruned.blocks.at(0), pruned.reports.at(0), job.out, watch.seconds());
  if (target) out["target"] = target_json(*target, *choice, bench.model(), pruned.blocks.at(0), job.out, sink);
  return out;
}

void check_prune(const PruneJob& job, const RunSettings& settings) {
  check_options(job);
  const Workbench bench = load_parent(job, settings, silent_sink());
  load_calibration(job, bench);
  if (job.target.empty()) {
    prune::check_settings(job.config, job.sparsities);
    return prune::check_parent(bench.model(), job.sparsities, job.config);
  }
  const Target target = parse_target(job.target);
  check_target(target, job, bench.model());
  if (target.kind != Target::Kind::kDecode)
    choose_sparsity(target, bench.model(), job.config, job.values_free, nullptr);
}

nlohmann::json prune_blocks(const PruneJob& job, const RunSettings& settings, ProgressSink& sink) {
  check_output(job.out, settings, {job.model, job.calibration, job.profile});
  check_options(job);
  std::set<std::string> names;
  for (const double sparsity : job.sparsities)
    if (!names.insert(sparsity_name(sparsity)).second)
      fail(ErrorCode::kInvalidInput, "sparsity {} is given twice", sparsity);
  const Stopwatch watch;
  const Workbench bench = load_parent(job, settings, sink);
  const Pruned pruned = run(job, bench, settings, sink);
  io::AtomicFolder output(job.out, settings.force);
  for (size_t i = 0; i < pruned.blocks.size(); ++i) {
    const std::filesystem::path folder = output.path() / sparsity_name(job.sparsities[i]);
    std::filesystem::create_directory(folder);
    model::save_block(pruned.blocks[i], folder.string());
  }
  output.commit();
  nlohmann::json list = nlohmann::json::array();
  for (size_t i = 0; i < pruned.blocks.size(); ++i)
    list.push_back(block_json(bench.model(), pruned.blocks[i], pruned.reports[i],
                              (std::filesystem::path(job.out) / sparsity_name(job.sparsities[i])).string(),
                              watch.seconds()));
  return {{"blocks", list}, {"method", job.config.method}, {"seconds", watch.seconds()}};
}

}  // namespace brick::pipeline
