#include "brick/cli/command.h"
#include "brick/pipeline/artifact_jobs.h"

namespace brick::cli {

void add_export(CLI::App& app, Globals& globals) {
  struct Options {
    std::string model, adapter, format, dtype, out;
  };
  const auto options = std::make_shared<Options>();
  CLI::App* command = add_command(app, globals, "export", "for llama.cpp, Ollama and transformers",
                                  "brick export block-50 --format gguf --dtype q8_0 --out block-50.gguf");
  command->add_option("model", options->model, "GGUF file, Hugging Face folder or block")->required();
  command->add_option("--adapter", options->adapter, "PEFT folder to merge first");
  command->add_option("--format", options->format, "gguf (a file) or hf (a folder)")
      ->check(CLI::IsMember({"gguf", "hf"}))
      ->required();
  command->add_option("--dtype", options->dtype, "f32, f16 or bf16; gguf also q8_0, q4_0, q4_1")->required();
  command->add_option("--out", options->out, "file or folder to write")->required();
  command->add_option("--tokenizer", globals.settings.tokenizer_file, "tokenizer file instead of the model's own");
  add_force(command, globals);
  command->callback([=, &globals] {
    globals.run = [=, &globals] {
      const auto sink = make_terminal_sink(globals.json);
      print_result(globals, pipeline::export_model(options->model, options->adapter, options->format, options->dtype,
                                                   options->out, globals.settings, *sink));
    };
  });
}

}  // namespace brick::cli
