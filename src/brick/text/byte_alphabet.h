// GPT-2's byte-to-unicode alphabet (openai/gpt-2, src/encoder.py, bytes_to_unicode): every byte has a visible
// character, so that a vocabulary of byte strings is readable text. Also SentencePiece's marks: <0xNN> and
// U+2581.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace brick::text {

inline constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581, SentencePiece's space

// The alphabet's character (UTF-8, one or two bytes) for a byte.
const std::string& byte_to_alphabet(uint8_t byte);

// Bytes that a token stands for; a character outside the alphabet stands for itself, as in Hugging Face's
// ByteLevel decoder.
std::string alphabet_to_bytes(std::string_view token);

std::string byte_token(uint8_t byte);                             // "<0x0A>"
std::optional<uint8_t> parse_byte_token(std::string_view token);  // either case of the digits

std::string marks_to_spaces(std::string_view token);  // U+2581 to space
std::string spaces_to_marks(std::string_view text);   // space to U+2581

}  // namespace brick::text
