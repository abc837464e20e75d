// Conversations as token ids. Templates are plain structs: the published Jinja sources are recognised, never
// run.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "brick/text/tokenizer.h"

namespace brick::text {

struct Message {
  std::string role, content;  // role: "system", "user" or "assistant"
};

// A piece of a rendered conversation.
struct Segment {
  // kBos: the tokenizer's BOS if it adds one, else nothing. kEos: its EOS. Both have no text.
  enum class Slot { kText, kBos, kEos };
  std::string text;
  bool special = false;     // a marker of the template, encoded with parse_special; never a user's words
  bool supervised = false;  // training scores these tokens
  Slot slot = Slot::kText;
};

// What stands around one role's content: marker, header, lead, content, trail, end marker, EOS, footer. Each may be
// empty.
struct TurnStyle {
  std::string marker;          // special
  std::string header;          // plain
  std::string end_marker;      // special; supervised after an assistant's content
  std::string footer;          // plain
  bool ends_with_eos = false;  // supervised after an assistant's content; the footer then follows only before more
  std::string lead, trail;     // plain, encoded with the content and supervised as it is
};

struct ChatTemplate {
  std::string name;
  TurnStyle system, user, assistant;
  std::string default_system;         // put first where the conversation has no system message; may be empty
  bool begins_with_bos = false;       // see Segment::Slot::kBos
  bool users_begin_with_bos = false;  // the later ones too
  bool strips_content = false;        // of white space around it
  bool system_within_user = false;    // its whole turn stands between the first user's header and content
};

// By name:
//   chatml   <|im_start|>role\ncontent<|im_end|>\n (openai/openai-python v0.27, chatml.md), no default system message
//   qwen     ChatML with the default system message of Qwen2-Instruct
//   llama2   [INST] <<SYS>>…<</SYS>> … [/INST] (meta-llama/llama, generation.py), BOS and EOS around each exchange
//   llama3   <|start_header_id|>role<|end_header_id|>\n\ncontent<|eot_id|> (meta-llama/llama3, tokenizer.py)
//   mistral  [INST] … [/INST] answer EOS (Mistral-7B-Instruct-v0.2's model card); a system message and a blank line
//            precede the first user's content
//   zephyr   <|role|>\ncontent EOS \n (HuggingFaceH4/zephyr-7b-beta)
//   alpaca   Stanford's prompt without input (tatsu-lab/stanford_alpaca, train.py, prompt_no_input), ended by EOS; a
//            system message takes the place of its first sentence, and further turns follow after a blank line (our
//            choice: Stanford has one turn)
// Errors: kUnsupported, listing the names.
const ChatTemplate& chat_template(std::string_view name);

// The template that a model's Jinja source amounts to, with its default system message; none if the source is
// anything but ChatML as published by many models (see chat_template_detect.cc).
std::optional<ChatTemplate> detect_chat_template(std::string_view jinja);

// The conversation in order; with add_generation_prompt, then what precedes an assistant's content.
// Supervised: each assistant's content and the marker or EOS that ends it.
// Errors: kInvalidInput for an unknown role, a system message that is not the first, or one that needs a user's turn
// and has none behind it.
std::vector<Segment> render(const ChatTemplate& style, std::span<const Message> messages, bool add_generation_prompt);

struct EncodedChat {
  std::vector<int32_t> ids;
  std::vector<uint8_t> supervised;  // one an id, 0 or 1
};

// Plain neighbours of equal supervision are joined before they are encoded, as the model saw them in
// training; an assistant's content begins anew, so that its ids do not depend on whether it is a prompt's
// continuation. Errors: kMismatch if the template needs an EOS and the tokenizer has none.
EncodedChat encode_chat(const Tokenizer& tokenizer, std::span<const Segment> segments);

}  // namespace brick::text
