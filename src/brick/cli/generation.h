// What `brick generate` and `brick chat` share.
#pragma once

#include <optional>

#include "brick/cli/command.h"
#include "brick/model/decode.h"

namespace brick::cli {

struct GenerationOptions {
  std::string model, adapter, chat_template;
  int64_t max_tokens = 256, context = 0;  // context 0: the model's own
  std::vector<std::string> stop;
  std::optional<int32_t> end_of_turn;  // ends the text as EOS does
  model::SamplingConfig sampling;
};

void add_generation_flags(CLI::App* command, Globals& globals, GenerationOptions& options);

struct Generation {
  std::vector<int32_t> tokens;
  std::string text;  // without the stop string, an end token or anything behind
  bool cut = false;  // where the context was full
};

// Continues `ids`; `print` receives the text as it comes, whole characters at a time, never part of a stop string.
Generation continue_text(const pipeline::Workbench& bench, model::Decoder& decoder, std::span<const int32_t> ids,
                         const GenerationOptions& options, const std::function<void(std::string_view)>& print);

// `options`, to end where the template of a conversation ends a turn. Warns where that is not the model's.
GenerationOptions for_chat(const pipeline::Workbench& bench, GenerationOptions options, ProgressSink& sink);

// Ids of a conversation up to where the assistant speaks.
std::vector<int32_t> chat_prompt(const pipeline::Workbench& bench, const std::vector<text::Message>& messages,
                                 const std::string& chat_template);

}  // namespace brick::cli
