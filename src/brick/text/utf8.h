// UTF-8, strictly as Unicode has it (no surrogates, no overlong forms), which is what PCRE2 requires.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace brick::text {

// Length, 1 to 4, of the well-formed character that starts at text[at]; 0 if there is none. at < text.size().
inline size_t character_length(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t first = byte(at);
  if (first < 0x80) return 1;
  const size_t length = first >= 0xC2 && first <= 0xDF   ? 2
                        : first >= 0xE0 && first <= 0xEF ? 3
                        : first >= 0xF0 && first <= 0xF4 ? 4
                                                         : 0;
  if (length == 0 || text.size() - at < length) return 0;
  for (size_t i = 1; i < length; ++i)
    if ((byte(at + i) & 0xC0) != 0x80) return 0;
  const uint8_t second = byte(at + 1);
  if ((first == 0xE0 && second < 0xA0) || (first == 0xED && second > 0x9F) || (first == 0xF0 && second < 0x90) ||
      (first == 0xF4 && second > 0x8F))
    return 0;
  return length;
}

// End of the well-formed stretch that starts at text[at]; `at` itself if text[at] starts no character.
inline size_t valid_end(std::string_view text, size_t at) {
  while (at < text.size()) {
    const size_t length = character_length(text, at);
    if (length == 0) break;
    at += length;
  }
  return at;
}

inline bool is_valid_utf8(std::string_view text) { return valid_end(text, 0) == text.size(); }

// True if `tail` (1 to 3 bytes) could become a character with more bytes.
inline bool is_incomplete_character(std::string_view tail) {
  for (const char* fill : {"\x80\x80\x80", "\x90\x80\x80", "\xA0\x80\x80"}) {
    for (size_t more = 1; tail.size() + more <= 4; ++more) {
      const std::string whole = std::string(tail) + std::string(fill, more);
      if (character_length(whole, 0) == whole.size()) return true;
    }
  }
  return false;
}

// The character of `length` bytes at text[at], as character_length() found it.
inline char32_t code_point(std::string_view text, size_t at, size_t length) {
  const auto byte = [&](size_t i) { return static_cast<char32_t>(static_cast<uint8_t>(text[at + i])); };
  if (length == 1) return byte(0);
  char32_t value = byte(0) & (0xFFU >> (length + 1));
  for (size_t i = 1; i < length; ++i) value = (value << 6) | (byte(i) & 0x3F);
  return value;
}

// For messages: in quotes, what is not printable or not UTF-8 as \xNN, the middle of long texts left out.
std::string printable(std::string_view text);

}  // namespace brick::text
