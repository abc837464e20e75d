// A tokenizer whose counts can be done by hand: each byte is a token (its id the byte), then the chat
// markers.
#pragma once

#include <string>

#include "brick/text/byte_alphabet.h"
#include "brick/text/tokenizer.h"

namespace brick::data {

inline constexpr int32_t kStart = 256, kEnd = 257;  // <|im_start|>, <|im_end|>

inline text::Tokenizer toy_tokenizer() {
  text::TokenizerSpec spec;
  for (int byte = 0; byte < 256; ++byte) {
    spec.tokens.push_back(text::byte_to_alphabet(static_cast<uint8_t>(byte)));
    spec.types.push_back(text::TokenType::kNormal);
  }
  for (const char* marker : {"<|im_start|>", "<|im_end|>"}) {
    spec.tokens.push_back(marker);
    spec.types.push_back(text::TokenType::kControl);
  }
  return text::Tokenizer(std::move(spec));
}

}  // namespace brick::data
