#include "brick/text/chat_template.h"

#include <array>
#include <optional>
#include <utility>

#include "brick/base/error.h"
#include "brick/text/utf8.h"

namespace brick::text {
namespace {

ChatTemplate chatml(std::string name, std::string default_system) {
  const auto turn = [](const char* role) {
    return TurnStyle{"<|im_start|>", std::string(role) + "\n", "<|im_end|>", "\n"};
  };
  return {.name = std::move(name),
          .system = turn("system"),
          .user = turn("user"),
          .assistant = turn("assistant"),
          .default_system = std::move(default_system)};
}

ChatTemplate llama3() {
  const auto turn = [](const std::string& role) {
    return TurnStyle{"<|start_header_id|>" + role + "<|end_header_id|>", "\n\n", "<|eot_id|>", ""};
  };
  return {.name = "llama3",
          .system = turn("system"),
          .user = turn("user"),
          .assistant = turn("assistant"),
          .default_system = "",
          .begins_with_bos = true,
          .strips_content = true};
}

ChatTemplate llama2() {
  return {.name = "llama2",
          .system = {"", "<<SYS>>\n", "", "\n<</SYS>>\n\n"},
          .user = {"", "[INST] ", "", " [/INST]"},
          .assistant = {.marker = "",
                        .header = "",
                        .end_marker = "",
                        .footer = "",
                        .ends_with_eos = true,
                        .lead = " ",
                        .trail = " "},
          .default_system = "",
          .begins_with_bos = true,
          .users_begin_with_bos = true,
          .strips_content = true,
          .system_within_user = true};
}

ChatTemplate mistral() {
  return {
      .name = "mistral",
      .system = {"", "", "", "\n\n"},
      .user = {"", "[INST] ", "", " [/INST]"},
      .assistant =
          {.marker = "", .header = "", .end_marker = "", .footer = "", .ends_with_eos = true, .lead = " ", .trail = ""},
      .default_system = "",
      .begins_with_bos = true,
      .system_within_user = true};
}

ChatTemplate zephyr() {
  const auto turn = [](const std::string& role) { return TurnStyle{"", "<|" + role + "|>\n", "", "\n", true}; };
  return {.name = "zephyr",
          .system = turn("system"),
          .user = turn("user"),
          .assistant = turn("assistant"),
          .default_system = ""};
}

ChatTemplate alpaca() {
  return {.name = "alpaca",
          .system = {"", "", "", "\n\n"},
          .user = {"", "### Instruction:\n", "", "\n\n"},
          .assistant = {"", "### Response:\n", "", "\n\n", true},
          .default_system =
              "Below is an instruction that describes a task. Write a response that appropriately "
              "completes the request.",
          .begins_with_bos = true};
}

std::string stripped(const std::string& text) {
  constexpr const char* kSpace = " \t\r\n\f\v";
  const size_t begin = text.find_first_not_of(kSpace);
  return begin == std::string::npos ? std::string() : text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

const TurnStyle& turn_style(const ChatTemplate& style, const Message& message, size_t index) {
  if (message.role == "user") return style.user;
  if (message.role == "assistant") return style.assistant;
  if (message.role != "system")
    fail(ErrorCode::kInvalidInput, "message {} has the role {}; the template {} knows: system, user, assistant", index,
         printable(message.role), style.name);
  if (index > 0) fail(ErrorCode::kInvalidInput, "message {} has the role system, which only the first may have", index);
  return style.system;
}

}  // namespace

const ChatTemplate& chat_template(std::string_view name) {
  static const std::array templates = {chatml("chatml", ""),
                                       llama2(),
                                       llama3(),
                                       mistral(),
                                       zephyr(),
                                       chatml("qwen", "You are a helpful assistant."),
                                       alpaca()};
  std::string names;
  for (const ChatTemplate& style : templates) {
    if (style.name == name) return style;
    names += (names.empty() ? "" : ", ") + style.name;
  }
  fail(ErrorCode::kUnsupported, "chat template {} is not supported; supported: {}", printable(name), names);
}

std::vector<Segment> render(const ChatTemplate& style, std::span<const Message> messages, bool add_generation_prompt) {
  std::vector<Segment> segments;
  const auto add = [&](std::string text, bool special, bool supervised) {
    if (!text.empty()) segments.push_back({std::move(text), special, supervised, Segment::Slot::kText});
  };
  const auto open = [&](const TurnStyle& turn) {
    add(turn.marker, true, false);
    add(turn.header, false, false);
  };
  const auto close = [&](const TurnStyle& turn, const std::string& content, bool is_last) {
    const bool is_assistant = &turn == &style.assistant;
    add(turn.lead + (style.strips_content ? stripped(content) : content) + turn.trail, false, is_assistant);
    add(turn.end_marker, true, is_assistant);
    if (turn.ends_with_eos) segments.push_back({"", true, is_assistant, Segment::Slot::kEos});
    if (!turn.ends_with_eos || !is_last || add_generation_prompt) add(turn.footer, false, false);
  };

  std::optional<std::string> system;
  if (!messages.empty() && messages[0].role == "system")
    system = messages[0].content;
  else if (!style.default_system.empty())
    system = style.default_system;
  const auto add_system = [&] {
    if (!system) return;
    open(style.system);
    close(style.system, *system, false);
    system.reset();
  };
  if (style.begins_with_bos) segments.push_back({"", true, false, Segment::Slot::kBos});
  if (!style.system_within_user) add_system();
  bool first_user = true;
  for (size_t i = 0; i < messages.size(); ++i) {
    const TurnStyle& turn = turn_style(style, messages[i], i);
    if (&turn == &style.system) continue;
    if (&turn == &style.user) {
      if (style.users_begin_with_bos && !first_user) segments.push_back({"", true, false, Segment::Slot::kBos});
      first_user = false;
    } else if (system) {
      break;
    }
    open(turn);
    add_system();
    close(turn, messages[i].content, i + 1 == messages.size());
  }
  if (system)
    fail(ErrorCode::kInvalidInput,
         "the template {} puts the system message into the first user's turn, and none follows it", style.name);
  if (add_generation_prompt) open(style.assistant);
  return segments;
}

EncodedChat encode_chat(const Tokenizer& tokenizer, std::span<const Segment> segments) {
  EncodedChat chat;
  const TokenizerSpec& spec = tokenizer.spec();
  const auto append = [&](std::span<const int32_t> ids, bool supervised) {
    chat.ids.insert(chat.ids.end(), ids.begin(), ids.end());
    chat.supervised.resize(chat.ids.size(), supervised ? 1 : 0);
  };
  // A prefix space goes before plain text where encoding the whole conversation at once would put one.
  bool after_marker = true;
  for (size_t i = 0; i < segments.size(); ++i) {
    const Segment& segment = segments[i];
    if (segment.slot == Segment::Slot::kBos) {
      if (spec.add_bos && spec.bos) append({&*spec.bos, 1}, segment.supervised);
      continue;
    }
    if (segment.slot == Segment::Slot::kEos) {
      if (!spec.eos)
        fail(ErrorCode::kMismatch, "the chat template ends a response with EOS, but the tokenizer has no EOS token");
      append({&*spec.eos, 1}, segment.supervised);
      after_marker = spec.prefix_style != PrefixStyle::kMetaspaceFirst;
      continue;
    }
    if (segment.special) {
      append(tokenizer.encode(segment.text, true, !after_marker), segment.supervised);
      after_marker = spec.prefix_style != PrefixStyle::kMetaspaceFirst;
      continue;
    }
    std::string text = segment.text;
    const auto joins = [&](const Segment& next) {
      return next.slot == Segment::Slot::kText && !next.special && next.supervised == segment.supervised;
    };
    while (i + 1 < segments.size() && joins(segments[i + 1])) text += segments[++i].text;
    append(tokenizer.encode(text, false, !after_marker), segment.supervised);
    after_marker = false;
  }
  return chat;
}

}  // namespace brick::text
