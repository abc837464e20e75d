#include <fmt/format.h>

#include "brick/cli/command.h"
#include "brick/pipeline/simulate.h"

namespace brick::cli {

void add_simulate(CLI::App& app, Globals& globals) {
  struct Options {
    std::string config, out;
    bool resume = false;
  };
  const auto options = std::make_shared<Options>();
  CLI::App* command =
      add_command(app, globals, "simulate", "all of LEGO in one process: prune, tune, aggregate, evaluate",
                  "brick simulate federation.toml --out run");
  command->add_option("config", options->config, "the federation's TOML file")->required();
  command->add_option("--out", options->out, "run folder")->required();
  command->add_flag("--resume", options->resume, "continue an interrupted run");
  command->add_option("--tokenizer", globals.settings.tokenizer_file, "tokenizer file instead of the model's own");
  add_force(command, globals);
  command->callback([=, &globals] {
    globals.run = [=, &globals] {
      const auto sink = make_terminal_sink(globals.json);
      const auto seed = command->count("--seed") > 0 ? std::optional(globals.settings.seed) : std::nullopt;
      const nlohmann::json result =
          pipeline::simulate(options->config, options->out, options->resume, seed, globals.settings, *sink);
      if (globals.json) return print_result(globals, result);
      fmt::print("{}", result["table"].get<std::string>());
      fmt::print("page: {}\n", result["report"].get<std::string>());
    };
  });
}

}  // namespace brick::cli
