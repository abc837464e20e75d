#include "brick/text/utf8.h"

#include <fmt/format.h>

namespace brick::text {

std::string printable(std::string_view text) {
  constexpr size_t kLongest = 80;
  if (text.size() > kLongest) {
    std::string head = printable(text.substr(0, kLongest / 2)),
                tail = printable(text.substr(text.size() - kLongest / 2));
    head.back() = ' ';
    tail.front() = ' ';
    return head + "..." + tail;
  }
  std::string result = "\"";
  for (size_t at = 0; at < text.size();) {
    const size_t length = character_length(text, at);
    const auto byte = static_cast<uint8_t>(text[at]);
    // C1 controls, U+0080 to U+009F, are 0xC2 and a byte below 0xA0.
    const bool control =
        length > 0 && (byte < 0x20 || byte == 0x7F || (byte == 0xC2 && static_cast<uint8_t>(text[at + 1]) < 0xA0));
    if (length == 0 || control) {
      result += fmt::format("\\x{:02X}", byte);
      ++at;
    } else {
      result += text.substr(at, length);
      at += length;
    }
  }
  return result + "\"";
}

}  // namespace brick::text
