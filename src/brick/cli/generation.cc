#include "brick/cli/generation.h"

#include <cmath>
#include <cstdlib>

namespace brick::cli {
namespace {

// Longest end of `text` that begins a stop string: it must wait for what follows.
size_t held_back(const std::string& text, const std::vector<std::string>& stops) {
  size_t longest = 0;
  for (const std::string& stop : stops)
    for (size_t n = std::min(stop.size(), text.size()); n > longest; --n)
      if (text.compare(text.size() - n, n, stop, 0, n) == 0) longest = n;
  return longest;
}

// CLI::Range lets NaN pass.
std::string nan_complaint(const std::string& text) {
  return std::isnan(std::strtod(text.c_str(), nullptr)) ? text + " is no number" : std::string();
}

}  // namespace

void add_generation_flags(CLI::App* command, Globals& globals, GenerationOptions& o) {
  command->add_option("model", o.model, "GGUF file, Hugging Face folder or block")->required();
  command->add_option("--adapter", o.adapter, "PEFT folder");
  command->add_option("--max-tokens", o.max_tokens, "most tokens to generate")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      ->add_option("--context", o.context,
                   "most tokens, prompt included (0: as many as the model was made for; in chat 2048 of them at most)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--stop", o.stop, "end before this text; may be given again")->allow_extra_args(false);
  command->add_option("--temperature", o.sampling.temperature, "0 for greedy")
      ->check(CLI::Range(0.0, 100.0))
      ->check(nan_complaint)
      ->capture_default_str();
  command->add_option("--top-k", o.sampling.top_k, "0 for all")->check(CLI::Range(0, 1 << 30))->capture_default_str();
  command->add_option("--top-p", o.sampling.top_p, "nucleus")
      ->check(CLI::Range(0.0, 1.0))
      ->check(nan_complaint)
      ->capture_default_str();
  command->add_option("--min-p", o.sampling.min_p, "least probability, relative to the likeliest")
      ->check(CLI::Range(0.0, 1.0))
      ->check(nan_complaint)
      ->capture_default_str();
  command->add_option("--repeat-penalty", o.sampling.repeat_penalty, "1 for none")
      ->check(CLI::Range(0.1, 10.0))
      ->check(nan_complaint)
      ->capture_default_str();
  command->add_option("--template", o.chat_template, "chat template (default: the model's own)");
  command->add_option("--tokenizer", globals.settings.tokenizer_file, "tokenizer file instead of the model's own");
}

Generation continue_text(const pipeline::Workbench& bench, model::Decoder& decoder, std::span<const int32_t> ids,
                         const GenerationOptions& options, const std::function<void(std::string_view)>& print) {
  Generation out;
  text::StreamDecoder stream(bench.tokenizer());
  size_t printed = 0;
  bool ended = false;
  const auto eos = bench.tokenizer().spec().eos;
  const auto show = [&](size_t until) {
    if (until > printed) print(std::string_view(out.text).substr(printed, until - printed));
    printed = std::max(printed, until);
  };
  const auto on_token = [&](int32_t id) {
    if (id == eos || id == options.end_of_turn) return ended = true;
    out.text += stream.push(id);
    for (const std::string& stop : options.stop)
      if (const size_t at = out.text.find(stop); !stop.empty() && at != std::string::npos) {
        out.text.resize(at);
        show(at);
        return ended = true;
      }
    show(out.text.size() - held_back(out.text, options.stop));
    return false;
  };
  out.tokens = model::generate(decoder, ids, options.sampling, options.max_tokens, on_token);
  out.cut = !ended && std::ssize(out.tokens) < options.max_tokens;
  if (!ended) out.text += stream.flush();
  show(out.text.size());
  return out;
}

GenerationOptions for_chat(const pipeline::Workbench& bench, GenerationOptions options, ProgressSink& sink) {
  bench.warn_of_style(options.chat_template, sink);
  const std::string marker = bench.style(options.chat_template).assistant.end_marker;
  if (!marker.empty()) options.end_of_turn = bench.tokenizer().find(marker);
  if (!marker.empty() && !options.end_of_turn) options.stop.push_back(marker);
  return options;
}

std::vector<int32_t> chat_prompt(const pipeline::Workbench& bench, const std::vector<text::Message>& messages,
                                 const std::string& chat_template) {
  const auto segments = text::render(bench.style(chat_template), messages, true);
  return text::encode_chat(bench.tokenizer(), segments).ids;
}

}  // namespace brick::cli
