#include "brick/cli/command.h"
#include "brick/pipeline/artifact_jobs.h"

namespace brick::cli {

void add_merge(CLI::App& app, Globals& globals) {
  struct Options {
    std::string model, adapter, values = "bf16", out;
  };
  const auto options = std::make_shared<Options>();
  CLI::App* command = add_command(app, globals, "merge", "an adapter into the weights (a block keeps its mask)",
                                  "brick merge block-50 clinic-adapter --values bf16 --out clinic-model");
  command->add_option("model", options->model, "GGUF file, Hugging Face folder or block")->required();
  command->add_option("adapter", options->adapter, "PEFT folder")->required();
  command->add_option("--values", options->values, "f32, bf16 or keep")
      ->check(CLI::IsMember({"f32", "bf16", "keep"}))
      ->capture_default_str();
  command->add_option("--out", options->out, "folder to write")->required();
  command->add_option("--tokenizer", globals.settings.tokenizer_file, "tokenizer file instead of the model's own");
  add_force(command, globals);
  command->callback([=, &globals] {
    globals.run = [=, &globals] {
      const auto sink = make_terminal_sink(globals.json);
      print_result(globals, pipeline::merge(options->model, options->adapter, options->values, options->out,
                                            globals.settings, *sink));
    };
  });
}

}  // namespace brick::cli
