#include "brick/cli/command.h"
#include "brick/pipeline/recover_job.h"

namespace brick::cli {

void add_recover(CLI::App& app, Globals& globals) {
  const auto job = std::make_shared<pipeline::RecoverJob>();
  CLI::App* command = add_command(
      app, globals, "recover", "train a block to be like its teacher again: LoRA with distillation, merged",
      "brick recover block-50 --teacher model.gguf --text general.txt --minutes 30 --out block-50-recovered");
  command->add_option("block", job->block, "block, GGUF file or Hugging Face folder")->required();
  command->add_option("--teacher", job->teacher, "the dense model, or another one of the same vocabulary");
  command->add_option("--text", job->text, "plain text to train on, in windows of --length");
  command->add_option("--data", job->data, "records to train on");
  CLI::Option* minutes = command->add_option("--minutes", job->minutes,
                                             "train for as long, the teacher's work included, instead of epochs");
  command->add_option("--out", job->files.out, "folder of the recovered block")->required();
  command
      ->add_option(
          "--values", job->values,
          "how merged weights are stored: f32, bf16 or keep (default: keep for a block of q4 values, else bf16)")
      ->check(CLI::IsMember({"f32", "bf16", "keep"}));
  command->add_option("--cache", job->cache,
                      "folder of the teacher's logits, to keep and share (default: beside --out, removed at the end "
                      "unless it was there)");
  add_fields(command, job->recover);
  add_fields(command, job->config);
  for (const char* planned : {"--steps", "--epochs"}) minutes->excludes(command->get_option(planned));
  add_training_files(command, globals, job->files);
  command->callback([=, &globals] {
    if (job->text.empty() && job->data.empty()) throw CLI::RequiredError("--text or --data");
    globals.run = [=, &globals] {
      const auto sink = make_terminal_sink(globals.json);
      print_result(globals, pipeline::recover(*job, globals.settings, *sink));
    };
  });
}

}  // namespace brick::cli
