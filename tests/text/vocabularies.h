// Small vocabularies for text's tests, and errors with their words.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "brick/base/error.h"
#include "brick/text/byte_alphabet.h"
#include "brick/text/tokenizer.h"

namespace brick::text::test {

// Runs `action`, which must throw a brick::Error of `code` whose message has each of `words`.
inline void expect_error(ErrorCode code, const std::vector<std::string>& words, const std::function<void()>& action) {
  try {
    action();
    ADD_FAILURE() << "no error; expected one that says: " << (words.empty() ? "anything" : words[0]);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    for (const std::string& word : words)
      EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << error.what() << "\nlacks: " << word;
  }
}

inline int32_t add_token(TokenizerSpec& spec, const std::string& token, TokenType type, float score = 0) {
  spec.tokens.push_back(token);
  spec.types.push_back(type);
  if (spec.kind == TokenizerKind::kSentencePieceBpe) spec.scores.push_back(score);
  return static_cast<int32_t>(spec.tokens.size()) - 1;
}

// Ids 0..2: <|endoftext|>, <|im_start|>, <|im_end|>; 3..258: the bytes; then one token a merge.
inline constexpr int32_t kFirstByte = 3, kFirstMerge = 259;

inline TokenizerSpec byte_level_spec() {
  TokenizerSpec spec;
  for (const char* token : {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}) add_token(spec, token, TokenType::kControl);
  for (int byte = 0; byte < 256; ++byte)
    add_token(spec, byte_to_alphabet(static_cast<uint8_t>(byte)), TokenType::kNormal);
  const std::string space = byte_to_alphabet(' ');
  spec.merges = {{"h", "e"},          {"l", "l"}, {"he", "ll"}, {"hell", "o"}, {space, "w"}, {"o", "r"},
                 {space + "w", "or"}, {"u", "s"}, {"us", "er"}, {"e", "r"},    {"o", "k"},   {"a", "a"},
                 {"aa", "aa"},        {"'", "s"}, {"1", "2"},   {space, space}};
  for (const auto& [left, right] : spec.merges)
    if (left + right != "user") add_token(spec, left + right, TokenType::kNormal);
  add_token(spec, "user", TokenType::kNormal);
  spec.bos = 1;
  spec.eos = 2;
  spec.pad = 2;
  return spec;
}

// llama2.c's ids: 0 <unk>, 1 <s>, 2 </s>, 3..258 bytes; then characters and words, the best first.
inline TokenizerSpec sentence_piece_spec() {
  TokenizerSpec spec;
  spec.kind = TokenizerKind::kSentencePieceBpe;
  add_token(spec, "<unk>", TokenType::kUnknown);
  add_token(spec, "<s>", TokenType::kControl);
  add_token(spec, "</s>", TokenType::kControl);
  for (int byte = 0; byte < 256; ++byte) add_token(spec, byte_token(static_cast<uint8_t>(byte)), TokenType::kByte);
  float score = 0;
  for (const char* word : {"th", "\u2581a", "the", "\u2581the", "ca", "cat", "\u2581cat", "\u2581\u2581", "aa"})
    add_token(spec, word, TokenType::kNormal, score -= 1);
  for (const char* character : {"\u2581", "t", "h", "e", "a", "c", "s", "\u00E9"})
    add_token(spec, character, TokenType::kNormal, score -= 1);
  spec.unk = 0;
  spec.bos = 1;
  spec.eos = 2;
  spec.add_bos = true;
  spec.add_space_prefix = true;
  return spec;
}

// The pieces that a text is cut into, for readable expectations.
inline std::vector<std::string> pieces(const Tokenizer& tokenizer, std::string_view text, bool parse_special = false) {
  std::vector<std::string> all;
  for (const int32_t id : tokenizer.encode(text, parse_special)) all.push_back(tokenizer.piece(id));
  return all;
}

// Texts that the round trips go through: empty, spaces, digits, scripts, controls, broken UTF-8.
inline std::vector<std::string> sample_texts() {
  std::vector<std::string> texts = {"",
                                    " ",
                                    "   ",
                                    "hello world",
                                    "  hello\n\tworld  ",
                                    "user's 1234 and 1/2",
                                    "F\u00FChrer \u0431\u044A\u043B \u6211\u60F3 \U0001F680",
                                    "<|im_start|>user\nhi<|im_end|>\n<s> </s> <unk> <0x0A>",
                                    "the cat  a\u00E9a\u00E9 aaaaaaa"};
  texts.push_back(std::string("\0\x01\x04\x7F", 4));
  for (const char* broken : {"\x80", "a\xFFz", "\xC3", "\xE2\x96", "ok \xF0\x9F\x9A", "\xED\xA0\x80", "\xC0\x80",
                             "\xF4\x90\x80\x80", "hello\xE2\x82world\xF1"})
    texts.emplace_back(broken);
  return texts;
}

inline std::string slurp(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// A file of the shared data (environment BRICK_DATA, by default ../shared/data beside the repository); empty
// where it is absent.
inline std::string shared_data(const std::string& name) {
  const char* root = std::getenv("BRICK_DATA");
  const std::filesystem::path folder =
      root ? std::filesystem::path(root)
           : std::filesystem::path(BRICK_TEST_SOURCE_DIR).parent_path().parent_path() / "shared/data";
  return std::filesystem::exists(folder / name) ? (folder / name).string() : "";
}

}  // namespace brick::text::test
