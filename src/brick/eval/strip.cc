#include "brick/eval/strip.h"

#include <algorithm>
#include <utility>

#include "brick/text/utf8.h"

namespace brick::eval {
namespace {

// str.isspace()
bool is_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

// Bytes of the character at text[at], and whether it is space; a byte that is not UTF-8 is a character of its own.
std::pair<size_t, bool> character_at(std::string_view text, size_t at) {
  const size_t length = text::character_length(text, at);
  return {std::max<size_t>(length, 1), length > 0 && is_space(text::code_point(text, at, length))};
}

}  // namespace

std::string_view stripped_end(std::string_view text) {
  size_t end = 0;
  for (size_t at = 0; at < text.size();) {
    const auto [length, space] = character_at(text, at);
    at += length;
    if (!space) end = at;
  }
  return text.substr(0, end);
}

std::string_view stripped(std::string_view text) {
  size_t begin = 0;
  while (begin < text.size()) {
    const auto [length, space] = character_at(text, begin);
    if (!space) break;
    begin += length;
  }
  return stripped_end(text.substr(begin));
}

}  // namespace brick::eval
