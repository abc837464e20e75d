// What the commands share: global flags, output as table or JSON, the progress bar.
#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "brick/base/log.h"
#include "brick/pipeline/workbench.h"

namespace brick::pipeline {
struct TasksJob;
struct TrainingFiles;
}  // namespace brick::pipeline

namespace brick::cli {

struct Globals {
  pipeline::RunSettings settings;
  bool json = false;
  int threads = 0;            // 0: physical cores
  std::function<void()> run;  // what the chosen command does
};

// A subcommand with the flags that each has. `example` closes its --help.
CLI::App* add_command(CLI::App& app, Globals& globals, const std::string& verb, const std::string& purpose,
                      const std::string& example);

// --force, for commands that write.
void add_force(CLI::App* command, Globals& globals);

// An option of values separated by commas; the word behind it is not one of them.
template <class T>
CLI::Option* add_list(CLI::App* command, const std::string& name, std::vector<T>& values, const std::string& purpose) {
  return command->add_option(name, values, purpose)->delimiter(',')->allow_extra_args(false);
}

// --method, a pruner's composite name.
CLI::Option* add_method(CLI::App* command, std::string& method);

// How much to prune: --sparsity or --target, one of them, and the latter's --profile.
void add_amount(CLI::App* command, double& sparsity, std::string& target, std::string& profile);

// Which multiple-choice tasks: --tasks, which is returned, --tasks-dir and --num-fewshot.
CLI::Option* add_tasks(CLI::App* command, pipeline::TasksJob& tasks, const std::string& purpose);

// What commands that train have beside their configuration: checkpoints, log, tokenizer, --force.
void add_training_files(CLI::App* command, Globals& globals, pipeline::TrainingFiles& files);

// Flags of a configuration from its fields(), but for one: names with dashes, "--no-x" for those that are on by
// default.
template <class Config>
void add_fields(CLI::App* command, Config& config, std::string_view but = {}) {
  config.fields([&](std::string_view field, auto& value, std::string_view help) {
    if (field == but) return;
    std::string flag(field);
    for (char& c : flag)
      if (c == '_') c = '-';
    if constexpr (std::is_same_v<std::decay_t<decltype(value)>, bool>) {
      if (value)
        command->add_flag_callback(
            fmt::format("--no-{}", flag), [&value] { value = false; }, fmt::format("do not {}", help));
      else
        command->add_flag(fmt::format("--{}", flag), value, std::string(help));
    } else {
      command->add_option(fmt::format("--{}", flag), value, std::string(help))->capture_default_str();
    }
  });
}

// To standard error, where it can be written: what cannot be told stops no work.
void say(std::string_view text);

// Wrong usage where an option that takes numbers got an empty word, which the parser would take for 0.
void refuse_empty_numbers(const CLI::App& app);

// What is wrong with a seed's text; empty: nothing.
std::string seed_complaint(const std::string& text);

// Draws a bar with rate and time left on a terminal, for work over two seconds; notes and warnings go to standard
// error.
std::unique_ptr<ProgressSink> make_terminal_sink(bool quiet);

// With --json the object alone on standard output, else its entries as a two-column table: those of an object inside
// as "its.entry", objects of an array as a table of their own below. Longer arrays than 8 are left out.
void print_result(const Globals& globals, const nlohmann::json& result);

// Each command's registration, one file each.
void add_info(CLI::App&, Globals&);
void add_tokenize(CLI::App&, Globals&);
void add_logits(CLI::App&, Globals&);
void add_prune(CLI::App&, Globals&);
void add_blocks(CLI::App&, Globals&);
void add_shrink(CLI::App&, Globals&);
void add_tune(CLI::App&, Globals&);
void add_recover(CLI::App&, Globals&);
void add_aggregate(CLI::App&, Globals&);
void add_merge(CLI::App&, Globals&);
void add_eval(CLI::App&, Globals&);
void add_generate(CLI::App&, Globals&);
void add_chat(CLI::App&, Globals&);
void add_simulate(CLI::App&, Globals&);
void add_compare(CLI::App&, Globals&);
void add_export(CLI::App&, Globals&);
void add_bench(CLI::App&, Globals&);
void add_cpu(CLI::App&, Globals&);
void add_completion(CLI::App&, Globals&);
void add_help(CLI::App&, Globals&);

}  // namespace brick::cli
