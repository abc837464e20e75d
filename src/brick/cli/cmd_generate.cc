#include <fmt/format.h>

#include <filesystem>
#include <iostream>
#include <iterator>

#include "brick/base/error.h"
#include "brick/base/process.h"
#include "brick/cli/generation.h"
#include "brick/io/text_file.h"
#include "brick/model/prompt_cache.h"

namespace brick::cli {
namespace {

struct GenerateOptions : GenerationOptions {
  std::string prompt, file, dash, prompt_cache;
  bool chat = false;
};

std::string prompt_of(const GenerateOptions& o) {
  if (!o.file.empty()) return io::read_text(o.file);
  if (o.dash == "-") return {std::istreambuf_iterator<char>(std::cin), {}};
  return o.prompt;
}

// Feeds the prompt with what the file has of it; then the file holds the whole prompt.
void feed_through_cache(const std::string& path, const model::Adapter* adapter, const kernels::Context& context,
                        std::span<const int32_t> ids, model::Decoder& decoder) {
  const std::string identity = model::cache_identity(decoder.model(), adapter, context);
  int64_t cached = 0;
  if (std::filesystem::exists(path)) cached = model::load_prompt_cache(path, identity, ids, decoder);
  if (cached == std::ssize(ids)) return;
  decoder.restart(ids);
  model::save_prompt_cache(path, identity, decoder);
}

void generate(const GenerateOptions& o, const Globals& globals) {
  const std::string prompt = prompt_of(o);
  const pipeline::Workbench bench(o.model, globals.settings);
  const auto sink = make_terminal_sink(globals.json);
  const auto adapter = pipeline::load_fitting_adapter(o.adapter, bench.model(), *sink);
  kernels::Context context(kernels::choose_compute(globals.settings.compute));
  context.set_rounds_activations(kernels::rounds_activations(globals.settings.compute));
  std::vector<int32_t> ids;
  const text::TokenizerSpec& spec = bench.tokenizer().spec();
  if (o.chat) {
    ids = chat_prompt(bench, {{"user", prompt}}, o.chat_template);
  } else {
    ids = bench.tokenizer().encode(prompt);
    if ((spec.add_bos || ids.empty()) && spec.bos) ids.insert(ids.begin(), *spec.bos);
  }
  const int64_t most = o.context > 0 ? o.context : bench.model().config.context;
  if (std::ssize(ids) > most)
    fail(ErrorCode::kInvalidInput, "the prompt has {} tokens and the context {}: shorten it or raise --context",
         ids.size(), most);
  model::Decoder decoder(bench.model(), context, {adapter ? &*adapter : nullptr},
                         std::ssize(ids) + std::min(o.max_tokens, most - std::ssize(ids)));
  const Stopwatch watch;
  if (!o.prompt_cache.empty()) feed_through_cache(o.prompt_cache, adapter ? &*adapter : nullptr, context, ids, decoder);
  const Generation made = continue_text(bench, decoder, ids, o.chat ? for_chat(bench, o, *sink) : GenerationOptions(o),
                                        [&](std::string_view piece) {
                                          if (globals.json) return;
                                          fmt::print("{}", piece);
                                          std::fflush(stdout);
                                        });
  if (!globals.json) fmt::print("\n");
  if (made.cut) sink->warn(fmt::format("the text ends where the context of {} tokens is full; raise --context", most));
  if (!globals.json) return;
  print_result(globals, {{"text", made.text},
                         {"tokens", made.tokens.size()},
                         {"ids", made.tokens},
                         {"prompt_tokens", ids.size()},
                         {"tokens_per_second", static_cast<double>(made.tokens.size()) / watch.seconds()}});
}

}  // namespace

void add_generate(CLI::App& app, Globals& globals) {
  const auto options = std::make_shared<GenerateOptions>();
  options->sampling.seed = 0;
  CLI::App* command = add_command(app, globals, "generate", "text, streamed",
                                  "brick generate model.gguf --chat --prompt \"When are you open?\" --max-tokens 64");
  add_generation_flags(command, globals, *options);
  CLI::Option* prompt = command->add_option("--prompt", options->prompt, "what to continue");
  CLI::Option* file = command->add_option("--file", options->file, "file with the prompt")->excludes(prompt);
  CLI::Option* dash = command->add_option("source", options->dash, "-: the prompt from standard input")
                          ->check(CLI::IsMember({"-"}))
                          ->excludes(prompt)
                          ->excludes(file);
  command->add_option("--prompt-cache", options->prompt_cache,
                      "file that keeps the prompt's keys and values; what it shares with this prompt is reused");
  command->add_flag("--chat", options->chat, "the prompt is a user's message");
  command->callback([=, &globals] {
    if (prompt->count() + file->count() + dash->count() == 0) throw CLI::RequiredError("--prompt, --file or -");
    options->sampling.seed = globals.settings.seed;
    globals.run = [=, &globals] { generate(*options, globals); };
  });
}

}  // namespace brick::cli
