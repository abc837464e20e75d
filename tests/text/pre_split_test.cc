#include "brick/text/pre_split.h"

#include <gtest/gtest.h>

#include "brick/text/utf8.h"
#include "vocabularies.h"

namespace brick::text::test {
namespace {

using Words = std::vector<std::string_view>;

Words split(const char* name, std::string_view text) {
  Words words;
  PreSplitter(name).split(text, words);
  return words;
}

TEST(PreSplitter, Gpt2) {
  EXPECT_EQ(split("gpt-2", ""), Words());
  EXPECT_EQ(split("gpt-2", "Hello world's  best"), (Words{"Hello", " world", "'s", " ", " best"}));
  EXPECT_EQ(split("gpt-2", "a 1234, x"), (Words{"a", " 1234", ",", " x"}));
  EXPECT_EQ(split("gpt-2", "y'all I'LL we'll"), (Words{"y", "'", "all", " I", "'", "LL", " we", "'ll"}));
  EXPECT_EQ(split("gpt-2", " \n\n  x \t"), (Words{" \n\n ", " x", " \t"}));
}

TEST(PreSplitter, SmollmCutsEachNumberCharacterFirst) {
  EXPECT_EQ(split("smollm", "a 12, x"), (Words{"a", " ", "1", "2", ",", " x"}));
  // The spaces before a digit are a text of their own, so the last one stays with the others.
  EXPECT_EQ(split("smollm", "   3"), (Words{"   ", "3"}));
  EXPECT_EQ(split("gpt-2", "   3"), (Words{"  ", " 3"}));
  EXPECT_EQ(split("smollm", "\u00BD\u0663\u2167"), (Words{"\u00BD", "\u0663", "\u2167"}));
}

// U+180E is no White_Space, though PCRE2's \s has it; U+0085 and U+3000 are.
TEST(PreSplitter, SpaceIsUnicodeWhiteSpace) {
  EXPECT_EQ(split("gpt-2", ".\u180E."), (Words{".\u180E."}));
  EXPECT_EQ(split("gpt-2", ".\u0085."), (Words{".", "\u0085", "."}));
  EXPECT_EQ(split("gpt-2", ".\u3000."), (Words{".", "\u3000", "."}));
}

TEST(PreSplitter, WordsTogetherAreTheText) {
  for (const char* name : {"gpt-2", "smollm"}) {
    for (const std::string& text : sample_texts()) {
      if (!is_valid_utf8(text)) continue;
      std::string joined;
      for (const std::string_view word : split(name, text)) joined += word;
      EXPECT_EQ(joined, text);
    }
  }
}

TEST(PreSplitter, LongTextsOfOneKind) {
  constexpr size_t kLength = 1 << 20;
  for (const char c : {'a', ' ', '.', '\n', '\''}) {
    const std::string text(kLength, c);
    const Words words = split("smollm", text);
    size_t total = 0;
    for (const std::string_view word : words) total += word.size();
    EXPECT_EQ(total, kLength) << c;
    EXPECT_EQ(words.size(), 1U) << c;
  }
  EXPECT_EQ(split("smollm", std::string(kLength, '7')).size(), kLength);
}

TEST(PreSplitter, RefusesUnknownNames) {
  expect_error(ErrorCode::kUnsupported, {"llama-bpe", "supported: gpt-2, smollm"}, [] { PreSplitter("llama-bpe"); });
}

TEST(Utf8, CharacterLengthIsStrict) {
  const auto length = [](std::string_view text) { return character_length(text, 0); };
  EXPECT_EQ(length("a"), 1U);
  EXPECT_EQ(length("\u00E9"), 2U);
  EXPECT_EQ(length("\uFFFD"), 3U);
  EXPECT_EQ(length("\U0010FFFF"), 4U);
  for (const char* bad : {"\x80", "\xC1\x81", "\xC3", "\xC3(", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xE2\x82",
                          "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF"})
    EXPECT_EQ(length(bad), 0U) << std::string(bad);
}

TEST(Utf8, PrintableIsOneShortPrintableLine) {
  EXPECT_EQ(printable("caf\u00E9"), "\"caf\u00E9\"");
  EXPECT_EQ(printable(std::string_view("a\0\n\x7F\xFF\u0085", 7)), R"("a\x00\x0A\x7F\xFF\xC2\x85")");
  EXPECT_EQ(printable("\xC2"), R"("\xC2")");
  const std::string longer = printable(std::string(50, 'a') + std::string(50, 'b'));
  EXPECT_EQ(longer, "\"" + std::string(40, 'a') + " ... " + std::string(40, 'b') + "\"");
}

TEST(Utf8, IncompleteCharacters) {
  for (const char* tail :
       {"\xC3", "\xE2", "\xE2\x82", "\xE0\xA0", "\xED\x9F", "\xF0", "\xF0\x9F", "\xF0\x9F\x9A", "\xF4\x8F"})
    EXPECT_TRUE(is_incomplete_character(tail));
  for (const char* tail : {"a", "\x80", "\xC1", "\xFF", "\xED\xA0", "\xE0\x80", "\xF4\x90", "\xF5", "\xC3\xA9"})
    EXPECT_FALSE(is_incomplete_character(tail));
}

}  // namespace
}  // namespace brick::text::test
