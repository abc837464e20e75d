#include "brick/cli/command.h"
#include "brick/pipeline/artifact_jobs.h"

namespace brick::cli {

void add_export(CLI::App& app, Globals& globals) {
  const auto request = std::make_shared<pipeline::ExportRequest>();
  CLI::App* command = add_command(app, globals, "export", "for llama.cpp, Ollama and transformers",
                                  "brick export block-50 --format gguf --dtype q8_0 --out block-50.gguf");
  command->add_option("model", request->model, "GGUF file, Hugging Face folder or block")->required();
  CLI::Option* adapter = command->add_option("--adapter", request->adapter, "PEFT folder to merge first");
  command
      ->add_option("--format", request->format,
                   "gguf (a file), hf (a folder), or block: of a model pruned elsewhere, its zeros found")
      ->check(CLI::IsMember({"gguf", "hf", "block"}))
      ->required();
  command
      ->add_option("--dtype", request->dtype,
                   "f32, f16 or bf16; gguf also q8_0, q4_0, q4_1, q4_k (llama.cpp's Q4_K_M) and q6_k")
      ->required();
  command->add_option("--out", request->out, "file or folder to write")->required();
  command->add_flag("--adapter-only", request->adapter_only, "the adapter itself as a GGUF, for llama.cpp's --lora")
      ->needs(adapter);
  command->add_flag("--pad", request->pad,
                    "hf: zeros make layers of unequal width alike, as transformers wants them; more bytes");
  command->add_flag("--modelfile", request->modelfile, "also OUT.Modelfile, for `ollama create NAME -f OUT.Modelfile`");
  command->add_option("--tokenizer", globals.settings.tokenizer_file, "tokenizer file instead of the model's own");
  add_force(command, globals);
  command->callback([=, &globals] {
    globals.run = [=, &globals] {
      const auto sink = make_terminal_sink(globals.json);
      print_result(globals, pipeline::export_model(*request, globals.settings, *sink));
    };
  });
}

}  // namespace brick::cli
