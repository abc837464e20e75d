#include "brick/cli/command.h"
#include "brick/pipeline/compare_job.h"

namespace brick::cli {

void add_compare(CLI::App& app, Globals& globals) {
  const auto job = std::make_shared<pipeline::CompareJob>();
  CLI::App* command = add_command(app, globals, "compare", "models, blocks and federations side by side",
                                  "brick compare model.gguf blocks/25 blocks/50 --text test.txt --samples 32 --speed "
                                  "--out comparison.html");
  command->add_option("paths", job->paths, "models and blocks, and folders of brick simulate and shrink")->required();
  command->add_option("--text", job->text, "plain text, for the perplexity of models and blocks");
  command->add_option("--length", job->length, "tokens a window")->capture_default_str();
  command->add_option("--samples", job->samples, "first N windows (0: all)")->capture_default_str();
  add_tasks(command, job->tasks, "multiple-choice tasks, for accuracy, as of brick eval");
  command->add_option("--limit", job->tasks.limit, "first N items of each task (0: all)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_flag("--speed", job->speed,
                    "time decoding and training of models and blocks; takes a minute or more each");
  command->add_option("--out", job->out, "page to write, HTML");
  command->add_option("--cache", job->cache, "folder that keeps measurements, so that nothing is measured twice");
  command->add_option("--tokenizer", globals.settings.tokenizer_file, "tokenizer file instead of the models' own");
  add_force(command, globals);
  command->callback([=, &globals] {
    globals.run = [=, &globals] {
      const auto sink = make_terminal_sink(globals.json);
      const nlohmann::json result = pipeline::compare(*job, globals.settings, *sink);
      if (globals.json) return print_result(globals, result);
      fmt::print("{}", result["table"].get<std::string>());
      if (result.contains("report")) fmt::print("page: {}\n", result["report"].get<std::string>());
    };
  });
}

}  // namespace brick::cli
