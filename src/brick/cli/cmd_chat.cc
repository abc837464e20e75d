#include <fmt/format.h>

#include <iostream>

#include "brick/base/error.h"
#include "brick/cli/generation.h"

namespace brick::cli {
namespace {

constexpr const char* kFull = "the conversation fills the context; /new begins a new one";

void chat(const GenerationOptions& o, const Globals& globals) {
  const pipeline::Workbench bench(o.model, globals.settings);
  const auto sink = make_terminal_sink(false);
  const auto adapter = pipeline::load_fitting_adapter(o.adapter, bench.model(), *sink);
  kernels::Context context(kernels::choose_compute(globals.settings.compute));
  context.set_rounds_activations(kernels::rounds_activations(globals.settings.compute));
  constexpr int64_t kUsualContext = 2048;  // keys and values of a longer one take memory from the start
  const int64_t most = o.context > 0 ? o.context : std::min(bench.model().config.context, kUsualContext);
  model::Decoder decoder(bench.model(), context, {adapter ? &*adapter : nullptr}, most);
  sink->note("End with Ctrl-D; /new begins a new conversation.");
  std::vector<text::Message> messages;
  GenerationOptions turn = for_chat(bench, o, *sink);
  const text::TurnStyle style = bench.style(o.chat_template).assistant;
  say("> ");
  for (std::string line; std::getline(std::cin, line); say("> ")) {
    if (line.empty()) continue;
    if (line == "/new") {
      messages.clear();
      continue;
    }
    messages.push_back({"user", line});
    const std::vector<int32_t> ids = chat_prompt(bench, messages, o.chat_template);
    if (std::ssize(ids) >= most) {
      sink->warn(kFull);
      messages.pop_back();
      continue;
    }
    const Generation made = continue_text(bench, decoder, ids, turn, [](std::string_view piece) {
      fmt::print("{}", piece);
      std::fflush(stdout);
    });
    fmt::print("\n");
    if (made.cut) sink->warn(kFull);
    ++turn.sampling.seed;
    // The template puts lead and trail around it again.
    std::string_view reply = made.text;
    if (reply.starts_with(style.lead)) reply.remove_prefix(style.lead.size());
    if (reply.ends_with(style.trail)) reply.remove_suffix(style.trail.size());
    messages.push_back({"assistant", std::string(reply)});
  }
  say("\n");
}

}  // namespace

void add_chat(CLI::App& app, Globals& globals) {
  const auto options = std::make_shared<GenerationOptions>();
  CLI::App* command = add_command(app, globals, "chat", "a conversation in the terminal",
                                  "brick chat model.gguf --temperature 0.7 --top-p 0.9");
  command->remove_option(command->get_option("--json"));  // a conversation is no object
  add_generation_flags(command, globals, *options);
  command->callback([=, &globals] {
    options->sampling.seed = globals.settings.seed;
    globals.run = [=, &globals] { chat(*options, globals); };
  });
}

}  // namespace brick::cli
