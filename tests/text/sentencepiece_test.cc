#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "vocabularies.h"

namespace brick::text::test {
namespace {

using Pieces = std::vector<std::string>;

TEST(SentencePiece, MergesTheBestScoreFirst) {
  const Tokenizer tokenizer(sentence_piece_spec());
  EXPECT_EQ(pieces(tokenizer, "the cat"), (Pieces{" the", " cat"}));
  EXPECT_EQ(pieces(tokenizer, " the"), (Pieces{" ", " the"}));
  EXPECT_EQ(pieces(tokenizer, "aaa"), (Pieces{" a", "aa"}));
  EXPECT_EQ(pieces(tokenizer, "x\u00E9"), (Pieces{" ", "x", "\u00E9"}));
  EXPECT_TRUE(tokenizer.encode("").empty());
}

TEST(SentencePiece, UnknownCharactersBecomeTheirBytes) {
  const Tokenizer tokenizer(sentence_piece_spec());
  EXPECT_EQ(pieces(tokenizer, "\u20AC"), (Pieces{" ", "\xE2", "\x82", "\xAC"}));
  EXPECT_EQ(pieces(tokenizer, "\xFF"), (Pieces{" ", "\xFF"}));
}

TEST(SentencePiece, DecodesToTheExactBytes) {
  for (const bool prefix : {true, false}) {
    TokenizerSpec spec = sentence_piece_spec();
    spec.add_space_prefix = prefix;
    const Tokenizer tokenizer(spec);
    for (const std::string& text : sample_texts()) {
      EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
      EXPECT_EQ(tokenizer.decode(tokenizer.encode(text, true), true), text);
      EXPECT_EQ(tokenizer.decode(tokenizer.encode(text, false, true), false, true), text);
      StreamDecoder decoder(tokenizer, true, false);
      std::string streamed;
      for (const int32_t id : tokenizer.encode(text, true)) streamed += decoder.push(id);
      EXPECT_EQ(streamed + decoder.flush(), text);
    }
  }
}

TEST(SentencePiece, PrefixStyles) {
  TokenizerSpec spec = sentence_piece_spec();
  const auto cut = [&](const char* text) { return pieces(Tokenizer(spec), text, true); };
  EXPECT_EQ(cut("<s>the</s>the"), (Pieces{"<s>", " the", "</s>", " the"}));
  EXPECT_EQ(cut("</s> the"), (Pieces{"</s>", " ", " the"}));
  spec.prefix_style = PrefixStyle::kMetaspaceAlways;
  EXPECT_EQ(cut("the</s> the</s>the"), (Pieces{" the", "</s>", " the", "</s>", " the"}));
  spec.prefix_style = PrefixStyle::kMetaspaceFirst;
  EXPECT_EQ(cut("the</s>the"), (Pieces{" the", "</s>", "the"}));
  EXPECT_EQ(cut(" the"), (Pieces{" the"}));
  EXPECT_EQ(cut("</s>the"), (Pieces{"</s>", "the"}));
  spec.add_space_prefix = false;
  EXPECT_EQ(cut("the</s>the"), (Pieces{"the", "</s>", "the"}));
}

TEST(SentencePiece, ContinuedTextHasNoPrefix) {
  const Tokenizer tokenizer(sentence_piece_spec());
  const std::vector<int32_t> ids = tokenizer.encode("the", false, true);
  EXPECT_EQ(ids, (std::vector<int32_t>{*tokenizer.find("the")}));
  const std::vector<int32_t> word = {*tokenizer.find("\u2581the")};
  EXPECT_EQ(tokenizer.decode(word), "the");
  EXPECT_EQ(tokenizer.decode(word, false, true), " the");
  EXPECT_EQ(StreamDecoder(tokenizer).push(word[0]), " the");
}

// Cutting at spaces, with its cache of words, is only a shortcut: a vocabulary in which one token crosses a
// space, and so takes the long way, must give the same ids for texts that lack it.
TEST(SentencePiece, WordsAndWholeTextsAgree) {
  TokenizerSpec spec = sentence_piece_spec();
  const Tokenizer by_words(spec);
  add_token(spec, "zz\u2581zz", TokenType::kNormal, 100);
  const Tokenizer whole(spec);
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    std::string text;
    const size_t length = random() % 80;
    while (text.size() < length) text += "   theca\xE9s\n"[random() % 11];
    ASSERT_EQ(by_words.encode(text), whole.encode(text)) << text;
  }
}

TEST(SentencePiece, EqualScoresMergeFromTheLeft) {
  TokenizerSpec spec = sentence_piece_spec();
  for (size_t id = 0; id < spec.tokens.size(); ++id)
    if (spec.tokens[id] == "th" || spec.tokens[id] == "ca") spec.scores[id] = 1;
  add_token(spec, "at", TokenType::kNormal, 1);
  spec.add_space_prefix = false;
  EXPECT_EQ(pieces(Tokenizer(spec), "cath"), (Pieces{"ca", "th"}));
  EXPECT_EQ(pieces(Tokenizer(spec), "ath"), (Pieces{"at", "h"}));
}

TEST(SentencePiece, RefusesInconsistentSpecs) {
  const auto refuse = [](ErrorCode code, const std::vector<std::string>& words, auto change) {
    TokenizerSpec spec = sentence_piece_spec();
    change(spec);
    expect_error(code, words, [&] { Tokenizer{spec}; });
  };
  using S = TokenizerSpec&;
  refuse(ErrorCode::kUnsupported, {"<0x41>", "byte fallback"},
         [](S s) { s.types[kFirstByte + 0x41] = TokenType::kNormal; });
  refuse(ErrorCode::kCorrupt, {"token 3", "\"<0x0>\""}, [](S s) { s.tokens[3] = "<0x0>"; });
  refuse(ErrorCode::kCorrupt, {"neither"}, [](S s) { s.scores.clear(); });
  refuse(ErrorCode::kCorrupt, {"score of token 4", "NaN"},
         [](S s) { s.scores[4] = std::numeric_limits<float>::quiet_NaN(); });
}

}  // namespace
}  // namespace brick::text::test
