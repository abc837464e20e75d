#include "brick/cli/command.h"
#include "brick/pipeline/prune_job.h"

namespace brick::cli {
namespace {

struct PruneOptions {
  pipeline::PruneJob job;
  double sparsity = 0.5;
  uint64_t calibration_seed = 0;
};

CLI::App* add_pruning(CLI::App& app, Globals& globals, const std::string& verb, const std::string& purpose,
                      const std::string& example, PruneOptions& o) {
  CLI::App* command = add_command(app, globals, verb, purpose, example);
  command->add_option("model", o.job.model, "GGUF file or Hugging Face folder")->required();
  add_method(command, o.job.config.method)->required();
  command->add_option("--calibration", o.job.calibration, "plain text, or .npy of ids [N, L]");
  command->add_option("--samples", o.job.samples, "windows of calibration text")->capture_default_str();
  command->add_option("--length", o.job.length, "tokens a window")->capture_default_str();
  command->add_option("--calibration-seed", o.calibration_seed, "take random windows instead of the first")
      ->check(seed_complaint);
  add_fields(command, o.job.config);
  command->add_option("--out", o.job.out, "folder to write")->required();
  command->add_option("--tokenizer", globals.settings.tokenizer_file, "tokenizer file instead of the model's own");
  add_force(command, globals);
  return command;
}

void finish(const CLI::App* command, PruneOptions& o, const Globals& globals) {
  o.job.config.seed = globals.settings.seed;
  o.job.config.tool_version = pipeline::tool_version();
  if (command->count("--calibration-seed") > 0) o.job.calibration_seed = o.calibration_seed;
}

}  // namespace

void add_prune(CLI::App& app, Globals& globals) {
  const auto options = std::make_shared<PruneOptions>();
  CLI::App* command = add_pruning(
      app, globals, "prune", "a smaller block of a model",
      "brick prune model.gguf --method sparsegpt --sparsity 0.5 --calibration text.txt --out block-50", *options);
  add_amount(command, options->sparsity, options->job.target, options->job.profile);
  command->callback([=, &globals] {
    globals.run = [=, &globals] {
      finish(command, *options, globals);
      options->job.sparsities = {options->sparsity};
      options->job.values_free = command->count("--values") == 0;
      const auto sink = make_terminal_sink(globals.json);
      print_result(globals, pipeline::prune_one(options->job, globals.settings, *sink));
    };
  });
}

void add_blocks(CLI::App& app, Globals& globals) {
  const auto options = std::make_shared<PruneOptions>();
  CLI::App* command = add_pruning(
      app, globals, "blocks", "a family of blocks from one calibration",
      "brick blocks model.gguf --method sparsegpt --sparsities 0,.25,.5,.75 --calibration text.txt --out blocks",
      *options);
  add_list(command, "--sparsities", options->job.sparsities, "shares to remove, separated by commas")->required();
  command->callback([=, &globals] {
    globals.run = [=, &globals] {
      finish(command, *options, globals);
      const auto sink = make_terminal_sink(globals.json);
      print_result(globals, pipeline::prune_blocks(options->job, globals.settings, *sink));
    };
  });
}

}  // namespace brick::cli
