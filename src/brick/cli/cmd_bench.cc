#include "brick/cli/command.h"
#include "brick/pipeline/bench_job.h"

namespace brick::cli {

void add_bench(CLI::App& app, Globals& globals) {
  const auto job = std::make_shared<pipeline::BenchJob>();
  CLI::App* command = add_command(app, globals, "bench", "timings of this machine",
                                  "brick bench model.gguf --what train --tokens 1024 --length 256 --compute f32");
  command->add_option("model", job->model, "GGUF file, Hugging Face folder or block")->required();
  command->add_option("--what", job->what, "train, prefill, decode, prune, separated by commas")->capture_default_str();
  command->add_option("--tokens", job->tokens, "tokens of a training batch")->capture_default_str();
  command->add_option("--length", job->length, "tokens of each of its sequences")->capture_default_str();
  command->add_option("--ids", job->ids,
                      ".npy of a training batch's ids [sequences, length], instead of --tokens random ones");
  command->add_option("--rank", job->rank, "rank of the adapter, on all linear layers")->capture_default_str();
  command->add_option("--decode-tokens", job->decode_tokens, "tokens to decode")->capture_default_str();
  command->add_option("--repeats", job->repeats, "timed repetitions after a warm-up; the median counts")
      ->capture_default_str();
  command->add_option("--memory", job->memory, "as of brick tune")
      ->check(CLI::IsMember({"auto", "low", "fast"}))
      ->capture_default_str();
  CLI::Option* calibrate =
      command
          ->add_option("--calibrate", job->calibrate_file,
                       "first measure which kernel multiplies sparse weights faster on this machine and how fast "
                       "blocks of this model decode, and write both to this file, if one is given: "
                       "BRICK_KERNEL_TABLE=FILE makes any command use the first, brick prune --profile FILE the second")
          ->expected(0, 1);
  command->add_flag("--masked", job->masked, "train a masked adapter, as of brick tune");
  add_force(command, globals);
  command->callback([=, &globals] {
    job->calibrate = calibrate->count() > 0;
    globals.run = [=, &globals] {
      const auto sink = make_terminal_sink(globals.json);
      print_result(globals, pipeline::bench(*job, globals.settings, *sink));
    };
  });
}

}  // namespace brick::cli
