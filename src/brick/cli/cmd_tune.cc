#include "brick/cli/command.h"
#include "brick/pipeline/tune_job.h"

namespace brick::cli {

void add_tune(CLI::App& app, Globals& globals) {
  const auto job = std::make_shared<pipeline::TuneJob>();
  CLI::App* command = add_command(app, globals, "tune", "LoRA fine-tuning of a model or block",
                                  "brick tune block-50 --data clinic.jsonl --masked --epochs 2 --out clinic-adapter");
  command->add_option("model", job->model, "GGUF file, Hugging Face folder or block")->required();
  command->add_option("--data", job->data, "records to train on")->required();
  command->add_option("--out", job->files.out, "folder of the adapter")->required();
  command->add_option("--validation", job->validation, "records to score at the end");
  command->add_option("--init", job->init, "adapter to continue from");
  add_fields(command, job->config);
  add_training_files(command, globals, job->files);
  command->callback([=, &globals] {
    globals.run = [=, &globals] {
      const auto sink = make_terminal_sink(globals.json);
      print_result(globals, pipeline::tune(*job, globals.settings, *sink));
    };
  });
}

}  // namespace brick::cli
