#include "brick/cli/command.h"
#include "brick/eval/task.h"
#include "brick/pipeline/evaluate_job.h"

namespace brick::cli {

void add_eval(CLI::App& app, Globals& globals) {
  const auto job = std::make_shared<pipeline::EvaluateJob>();
  CLI::App* command =
      add_command(app, globals, "eval", "perplexity of a text, response loss of records, multiple choice",
                  "brick eval model.gguf --text test.txt --length 512 --samples 32");
  command->add_option("model", job->model, "GGUF file, Hugging Face folder or block")->required();
  command->add_option("--adapter", job->adapter, "PEFT folder");
  command->add_option("--text", job->text, "plain text, for perplexity");
  command->add_option("--data", job->data, "records, for response loss");
  command->add_option("--length", job->length, "tokens a window, most tokens a record")->capture_default_str();
  command->add_option("--samples", job->samples, "first N windows (0: all)")->capture_default_str();
  command->add_option("--limit", job->limit, "first N records, or items of each task (0: all)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  CLI::Option* tasks = add_tasks(command, job->tasks, "multiple-choice tasks: " + eval::known_tasks());
  command->add_option("--log", job->tasks.log, "a line of JSON for each item of the tasks")->needs(tasks);
  command->add_flag("--resume", job->tasks.resume, "take from the log the items that it has");
  add_force(command, globals);
  command->add_option("--template", job->chat_template, "chat template (default: the model's own)");
  command->add_option("--tokenizer", globals.settings.tokenizer_file, "tokenizer file instead of the model's own");
  command->callback([=, &globals] {
    if (job->text.empty() && job->data.empty() && job->tasks.tasks.empty())
      throw CLI::RequiredError("--text, --data or --tasks");
    globals.run = [=, &globals] {
      const auto sink = make_terminal_sink(globals.json);
      nlohmann::json result = pipeline::evaluate(*job, globals.settings, *sink);
      if (!globals.json && result.contains("tasks")) {
        fmt::print("{}", pipeline::tasks_table(result["tasks"]));
        result.erase("tasks");
      }
      print_result(globals, result);
    };
  });
}

}  // namespace brick::cli
