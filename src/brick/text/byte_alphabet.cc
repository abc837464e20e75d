#include "brick/text/byte_alphabet.h"

#include <array>

#include "brick/text/utf8.h"

namespace brick::text {
namespace {

constexpr size_t kAlphabetEnd = 256 + 68;  // 68 bytes have no visible character of their own

struct Alphabet {
  std::array<std::string, 256> of_byte;
  std::array<int16_t, kAlphabetEnd> to_byte;

  Alphabet() {
    to_byte.fill(-1);
    char32_t next = 256;
    for (unsigned byte = 0; byte < 256; ++byte) {
      const bool visible = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || (byte >= 174 && byte <= 255);
      const char32_t c = visible ? byte : next++;
      to_byte[c] = static_cast<int16_t>(byte);
      if (c < 0x80)
        of_byte[byte] = std::string(1, static_cast<char>(c));
      else
        of_byte[byte] = {static_cast<char>(0xC0 | (c >> 6)), static_cast<char>(0x80 | (c & 0x3F))};
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet instance;
  return instance;
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

}  // namespace

const std::string& byte_to_alphabet(uint8_t byte) { return alphabet().of_byte[byte]; }

std::string alphabet_to_bytes(std::string_view token) {
  std::string bytes;
  bytes.reserve(token.size());
  for (size_t i = 0; i < token.size();) {
    const size_t length = character_length(token, i);
    const char32_t c = length > 0 ? code_point(token, i, length) : kAlphabetEnd;
    if (c < kAlphabetEnd && alphabet().to_byte[c] >= 0)
      bytes += static_cast<char>(alphabet().to_byte[c]);
    else
      bytes += token.substr(i, length > 0 ? length : 1);
    i += length > 0 ? length : 1;
  }
  return bytes;
}

std::string byte_token(uint8_t byte) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  return {'<', '0', 'x', kDigits[byte >> 4], kDigits[byte & 15], '>'};
}

std::optional<uint8_t> parse_byte_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return std::nullopt;
  const int high = hex_digit(token[3]), low = hex_digit(token[4]);
  if (high < 0 || low < 0) return std::nullopt;
  return static_cast<uint8_t>(high * 16 + low);
}

std::string marks_to_spaces(std::string_view token) {
  std::string text;
  text.reserve(token.size());
  while (!token.empty()) {
    const bool mark = token.starts_with(kSpaceMark);
    text += mark ? ' ' : token[0];
    token.remove_prefix(mark ? kSpaceMark.size() : 1);
  }
  return text;
}

std::string spaces_to_marks(std::string_view text) {
  std::string token;
  for (const char c : text) {
    if (c == ' ')
      token += kSpaceMark;
    else
      token += c;
  }
  return token;
}

}  // namespace brick::text
