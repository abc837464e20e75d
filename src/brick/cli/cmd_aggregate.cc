#include "brick/base/error.h"
#include "brick/cli/command.h"
#include "brick/pipeline/aggregate_job.h"

namespace brick::cli {
namespace {

// What is wrong with a --client; empty: nothing.
std::string complaint(const std::string& client) {
  try {
    pipeline::parse_client(client);
    return "";
  } catch (const Error& e) {
    return e.what();
  }
}

}  // namespace

void add_aggregate(CLI::App& app, Globals& globals) {
  struct Options {
    pipeline::AggregateJob job;
    std::vector<std::string> clients;
  };
  const auto options = std::make_shared<Options>();
  pipeline::AggregateJob& job = options->job;
  CLI::App* command =
      add_command(app, globals, "aggregate", "one round's aggregation of client adapters",
                  "brick aggregate --base model.gguf --client a,block-50,90 --client b,block-75,60 --rule hete-tau "
                  "--tau 0.3 --out global");
  command->add_option("--base", job.base, "the whole model")->required();
  command->add_option("--global", job.global, "global adapter that the clients started from");
  command->add_option("--client", options->clients, "ADAPTER,BLOCK,RECORDS; BLOCK empty for the whole model")
      ->required()
      ->allow_extra_args(false)
      ->check(complaint);
  add_fields(command, job.config, "tau");  // which may be a word here
  command->get_option("--rule")->required()->default_str("");
  command->add_option("--tau", job.tau, "hete-tau: 0 to 1, or auto")->capture_default_str();
  command->add_option("--validation", job.validation, "the server's records, for tau auto");
  command->add_option("--length", job.length, "most tokens a validation record")->capture_default_str();
  command->add_option("--template", job.chat_template, "chat template (default: the model's own)");
  command->add_option("--tokenizer", globals.settings.tokenizer_file, "tokenizer file instead of the model's own");
  command->add_option("--out", job.out, "folder of the new global adapter")->required();
  add_force(command, globals);
  command->callback([=, &globals] {
    globals.run = [=, &globals] {
      for (const std::string& client : options->clients) options->job.clients.push_back(pipeline::parse_client(client));
      const auto sink = make_terminal_sink(globals.json);
      print_result(globals, pipeline::aggregate(options->job, globals.settings, *sink));
    };
  });
}

}  // namespace brick::cli
