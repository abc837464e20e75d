#include "brick/cli/command.h"
#include "brick/pipeline/shrink_job.h"

namespace brick::cli {

void add_shrink(CLI::App& app, Globals& globals) {
  const auto job = std::make_shared<pipeline::ShrinkJob>();
  CLI::App* command =
      add_command(app, globals, "shrink", "prune, recover, measure and export a model in one go",
                  "brick shrink model.gguf --sparsity 0.5 --calibration general.txt --recover general.txt --minutes 30 "
                  "--eval test.txt --gguf q8_0 --out model-50");
  command->footer(command->get_footer() +
                  "\n\nWhat single methods, training and other formats can be told is told to prune, recover, eval and "
                  "export, one after the other.");
  command->add_option("model", job->model, "GGUF file or Hugging Face folder")->required();
  add_method(command, job->method)->capture_default_str();
  add_amount(command, job->sparsity, job->target, job->profile);
  command->add_option("--structured-sparsity", job->structured_sparsity,
                      "STRUCTURED+METHOD: share of the layers' linear weights that is cut out first");
  command->add_option("--values", job->values,
                      "how kept values are stored: f32, bf16, q4 or keep (default: bf16, or what --target needs)");
  command->add_option("--pattern", job->pattern, "unstructured, n:m (n of every m removed), or, with a target, auto")
      ->capture_default_str();
  command->add_option("--calibration", job->calibration, "plain text, or .npy of ids [N, L]");
  command->add_option("--samples", job->samples, "windows of calibration text")->capture_default_str();
  command->add_option("--length", job->length, "tokens a window, of every text; most tokens a record")
      ->capture_default_str();
  command->add_option("--recover", job->text, "plain text to train on; without this and --data nothing is recovered");
  command->add_option("--data", job->data, "records to train on");
  CLI::Option* steps =
      command->add_option("--steps", job->steps, "steps of recovery (default: one epoch)")->check(CLI::PositiveNumber);
  command->add_option("--minutes", job->minutes, "recover for as long, the teacher's work included")
      ->check(CLI::PositiveNumber)
      ->excludes(steps);
  CLI::Option* text = command->add_option("--eval", job->eval, "plain text, for the perplexity of model and blocks");
  command->add_option("--eval-samples", job->eval_samples, "its first N windows (0: all)")
      ->needs(text)
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  add_list(command, "--gguf", job->gguf, "types to export: f32, f16, bf16, q8_0, q4_0, q4_1, q4_k (Q4_K_M), q6_k");
  command->add_option("--out", job->out, "folder of block, recovered, model-TYPE.gguf and summary.json")->required();
  command->add_flag("--resume", job->resume, "go on after the last finished stage");
  command->add_option("--tokenizer", globals.settings.tokenizer_file, "tokenizer file instead of the model's own");
  add_force(command, globals);
  command->callback([=, &globals] {
    globals.run = [=, &globals] {
      const auto sink = make_terminal_sink(globals.json);
      const nlohmann::json result = pipeline::shrink(*job, globals.settings, *sink);
      if (globals.json) return print_result(globals, result);
      fmt::print("{}", result["table"].get<std::string>());
    };
  });
}

}  // namespace brick::cli
