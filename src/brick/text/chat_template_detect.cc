// Recognises ChatML in a Jinja source. The source is brought to one form first (blocks, with literal text
// and the '…' parts of expressions joined), then compared with what ChatML may consist of:
//
//   {% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %} optional
//   {% for message in messages %}
//   {% if loop.first and messages[0]['role'] != 'system' %}<|im_start|>system\nDEFAULT<|im_end|>\n{% endif %}
//                                                                                                     optional
//   <|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n
//   {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %} optional
//
// Anything else, however small, might render otherwise, and is not recognised.
#include <string>
#include <utility>
#include <vector>

#include "brick/text/chat_template.h"

namespace brick::text {
namespace {

constexpr std::string_view kStart = "<|im_start|>", kEnd = "<|im_end|>\n";

struct Block {
  enum class Kind { kText, kStatement, kExpression } kind;
  std::string text;  // of a statement or expression: without spaces, quotes all '
};

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

// Copies the string literal that begins at code[at] and moves past it; none if it does not end.
std::optional<std::string> read_literal(std::string_view code, size_t& at) {
  const char quote = code[at++];
  std::string value;
  for (; at < code.size() && code[at] != quote; ++at) {
    if (code[at] != '\\') {
      value += code[at];
      continue;
    }
    if (++at == code.size()) return std::nullopt;
    switch (code[at]) {
      case 'n':
        value += '\n';
        break;
      case 't':
        value += '\t';
        break;
      case '\\':
      case '\'':
      case '"':
        value += code[at];
        break;
      default:
        return std::nullopt;  // \u, \x and others: no published ChatML has them
    }
  }
  if (at == code.size()) return std::nullopt;
  ++at;
  return value;
}

// A statement or expression without its spaces, `message.role` spelt message['role'].
std::optional<std::string> compact(std::string_view code) {
  std::string text;
  for (size_t at = 0; at < code.size();) {
    if (code[at] == '\'' || code[at] == '"') {
      const auto literal = read_literal(code, at);
      if (!literal) return std::nullopt;
      text.append("'").append(*literal).append("'");
    } else if (is_space(code[at])) {
      ++at;
    } else {
      text += code[at++];
    }
  }
  for (const auto& [dotted, indexed] : {std::pair{".role", "['role']"}, std::pair{".content", "['content']"}}) {
    const size_t at = text.find(dotted);
    if (at != std::string::npos && text.find('\'') > at)
      text = text.substr(0, at).append(indexed).append(text, at + std::string_view(dotted).size());
  }
  return text;
}

void append_text(std::vector<Block>& blocks, std::string_view text) {
  if (text.empty()) return;
  if (blocks.empty() || blocks.back().kind != Block::Kind::kText) blocks.push_back({Block::Kind::kText, {}});
  blocks.back().text += text;
}

// {{ a + 'b' + c }}: literals become text, the others expressions of their own.
bool append_expression(std::vector<Block>& blocks, std::string_view code) {
  size_t begin = 0;
  for (size_t at = 0; at <= code.size();) {
    if (at < code.size() && code[at] != '+') {
      if (code[at] != '\'' && code[at] != '"') {
        ++at;
      } else if (!read_literal(code, at)) {
        return false;
      }
      continue;
    }
    std::string_view part = code.substr(begin, at - begin);
    while (!part.empty() && is_space(part.front())) part.remove_prefix(1);
    while (!part.empty() && is_space(part.back())) part.remove_suffix(1);
    if (part.empty()) return false;
    size_t end = 0;
    if (part[0] == '\'' || part[0] == '"') {
      const auto literal = read_literal(part, end);
      if (!literal || end != part.size()) return false;
      append_text(blocks, *literal);
    } else {
      const auto text = compact(part);
      if (!text) return false;
      blocks.push_back({Block::Kind::kExpression, *text});
    }
    begin = ++at;
  }
  return true;
}

// End of the code that begins at source[at], at its "%}" or "}}" (outside literals); npos if there is none.
size_t code_end(std::string_view source, size_t at, std::string_view closing) {
  while (at < source.size()) {
    if (source[at] == '\'' || source[at] == '"') {
      if (!read_literal(source, at)) break;
    } else if (source.substr(at).starts_with(closing)) {
      return at;
    } else {
      ++at;
    }
  }
  return std::string_view::npos;
}

// Splits a template as transformers' Jinja does, with trim_blocks and lstrip_blocks.
std::optional<std::vector<Block>> parse(std::string_view source) {
  std::vector<Block> blocks;
  bool trim_all = false, trim_newline = false;  // what the previous tag does to the text after it
  for (size_t at = 0; at < source.size();) {
    size_t open = source.find('{', at);
    while (open != source.npos && !source.substr(open).starts_with("{%") && !source.substr(open).starts_with("{{") &&
           !source.substr(open).starts_with("{#"))
      open = source.find('{', open + 1);
    std::string_view text = source.substr(at, open == source.npos ? open : open - at);
    if (trim_all)
      while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
    const bool newline_trimmed = trim_newline && text.starts_with('\n');
    if (newline_trimmed) text.remove_prefix(1);
    if (open == source.npos) {
      append_text(blocks, text);
      break;
    }
    const bool statement = source[open + 1] == '%';
    size_t begin = open + 2;
    if (source[open + 1] == '#' || begin >= source.size()) return std::nullopt;
    if (source[begin] == '-') {
      while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
      ++begin;
    } else if (statement) {
      size_t keep = text.size();
      while (keep > 0 && (text[keep - 1] == ' ' || text[keep - 1] == '\t')) --keep;
      const bool at_line_start = keep > 0 ? text[keep - 1] == '\n' : at == 0 || newline_trimmed;
      if (at_line_start) text = text.substr(0, keep);
    }
    append_text(blocks, text);
    const size_t end = code_end(source, begin, statement ? "%}" : "}}");
    if (end == source.npos) return std::nullopt;
    std::string_view code = source.substr(begin, end - begin);
    trim_all = code.ends_with('-');
    trim_newline = statement;
    if (trim_all) code.remove_suffix(1);
    if (!statement) {
      if (!append_expression(blocks, code)) return std::nullopt;
    } else {
      const auto compacted = compact(code);
      if (!compacted) return std::nullopt;
      blocks.push_back({Block::Kind::kStatement, *compacted});
    }
    at = end + 2;
  }
  return blocks;
}

class Matcher {
 public:
  explicit Matcher(const std::vector<Block>& blocks) : blocks_(blocks) {}

  bool take(Block::Kind kind, std::string_view text) {
    if (done() || blocks_[at_].kind != kind || blocks_[at_].text != text) return false;
    ++at_;
    return true;
  }
  bool statement(std::string_view text) { return take(Block::Kind::kStatement, text); }
  bool expression(std::string_view text) { return take(Block::Kind::kExpression, text); }
  bool text(std::string_view text) { return take(Block::Kind::kText, text); }
  // The text between two others that one block consists of.
  std::optional<std::string> between(std::string_view before, std::string_view after) {
    if (done() || blocks_[at_].kind != Block::Kind::kText) return std::nullopt;
    std::string_view text = blocks_[at_].text;
    if (!text.starts_with(before) || !text.ends_with(after) || text.size() < before.size() + after.size())
      return std::nullopt;
    ++at_;
    text.remove_prefix(before.size());
    text.remove_suffix(after.size());
    if (text.find(kStart) != text.npos || text.find("<|im_end|>") != text.npos) return std::nullopt;
    return std::string(text);
  }
  bool done() const { return at_ == blocks_.size(); }

 private:
  const std::vector<Block>& blocks_;
  size_t at_ = 0;
};

}  // namespace

std::optional<ChatTemplate> detect_chat_template(std::string_view jinja) {
  const auto blocks = parse(jinja);
  if (!blocks) return std::nullopt;
  ChatTemplate style = chat_template("chatml");
  Matcher match(*blocks);
  if (match.statement("ifnotadd_generation_promptisdefined") &&
      !(match.statement("setadd_generation_prompt=false") && match.statement("endif")))
    return std::nullopt;
  if (!match.statement("formessageinmessages")) return std::nullopt;
  if (match.statement("ifloop.firstandmessages[0]['role']!='system'")) {
    const auto text = match.between(std::string(kStart) + "system\n", kEnd);
    if (!text || !match.statement("endif")) return std::nullopt;
    style.default_system = *text;
  }
  if (!match.text(kStart) || !match.expression("message['role']") || !match.text("\n") ||
      !match.expression("message['content']") || !match.text(kEnd) || !match.statement("endfor"))
    return std::nullopt;
  if (match.statement("ifadd_generation_prompt") &&
      !(match.text(std::string(kStart) + "assistant\n") && match.statement("endif")))
    return std::nullopt;
  if (!match.done()) return std::nullopt;
  return style;
}

}  // namespace brick::text
