#include <gtest/gtest.h>

#include <bit>

#include "vocabularies.h"

namespace brick::text::test {
namespace {

std::string varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes + static_cast<char>(value);
}

std::string number_field(uint32_t number, uint64_t value) { return varint(number << 3) + varint(value); }

std::string bytes_field(uint32_t number, std::string_view bytes) {
  return varint(number << 3 | 2) + varint(bytes.size()) + std::string(bytes);
}

std::string float_field(uint32_t number, float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  std::string bytes = varint(number << 3 | 5);
  for (int shift = 0; shift < 32; shift += 8) bytes += static_cast<char>(bits >> shift);
  return bytes;
}

std::string piece(const std::string& text, float score, TokenType type) {
  return bytes_field(1, bytes_field(1, text) + float_field(2, score) +
                            (type == TokenType::kNormal ? "" : number_field(3, static_cast<uint64_t>(type))));
}

std::string pieces_of(const TokenizerSpec& spec) {
  std::string file;
  for (size_t id = 0; id < spec.tokens.size(); ++id) file += piece(spec.tokens[id], spec.scores[id], spec.types[id]);
  return file;
}

constexpr uint64_t kBpeType = 2;
std::string trainer(uint64_t model_type = kBpeType) { return bytes_field(2, number_field(3, model_type)); }
std::string normalizer() { return bytes_field(3, bytes_field(1, "identity")); }

std::string model_file(const TokenizerSpec& spec) { return pieces_of(spec) + trainer() + normalizer(); }

TEST(SentencePieceModel, ReadsTheFields) {
  TokenizerSpec spec = sentence_piece_spec();
  add_token(spec, "<sep>\u2581", TokenType::kUserDefined);
  const TokenizerSpec read = spec_from_sentencepiece_model(bytes_of(model_file(spec)));
  spec.tokens.back() = "<sep> ";  // literal text in a spec
  EXPECT_EQ(read.kind, TokenizerKind::kSentencePieceBpe);
  EXPECT_EQ(read.tokens, spec.tokens);
  EXPECT_EQ(read.types, spec.types);
  EXPECT_EQ(read.scores, spec.scores);
  EXPECT_EQ(read.unk, 0);
  EXPECT_EQ(read.bos, 1);
  EXPECT_EQ(read.eos, 2);
  EXPECT_EQ(read.pad, std::nullopt);
  EXPECT_TRUE(read.add_space_prefix);
}

TEST(SentencePieceModel, ReadsSpecialIdsAndPrefix) {
  const std::string minus_one = varint(~uint64_t{0});
  const std::string file = pieces_of(sentence_piece_spec()) +
                           bytes_field(2, number_field(3, kBpeType) + number_field(40, 0) + varint(41 << 3) +
                                              minus_one + number_field(42, 1) + number_field(43, 2)) +
                           bytes_field(3, number_field(3, 0)) +
                           // Fields that we do not know, of each wire type.
                           number_field(99, 5) + bytes_field(98, "x") + float_field(97, 1) + varint(96 << 3 | 1) +
                           "12345678";
  const TokenizerSpec read = spec_from_sentencepiece_model(bytes_of(file));
  EXPECT_EQ(read.bos, std::nullopt);
  EXPECT_FALSE(read.add_bos);
  EXPECT_EQ(read.eos, 1);
  EXPECT_EQ(read.pad, 2);
  EXPECT_FALSE(read.add_space_prefix);
}

TEST(SentencePieceModel, RefusesEveryTruncation) {
  const std::string file = model_file(sentence_piece_spec());
  for (size_t length = 0; length < file.size(); ++length)
    expect_error(ErrorCode::kCorrupt, {"truncated"},
                 [&] { spec_from_sentencepiece_model(bytes_of(file.substr(0, length))); });
}

TEST(SentencePieceModel, RefusesOtherKinds) {
  const std::string pieces = pieces_of(sentence_piece_spec());
  const auto refuse = [&](const std::string& rest, const std::vector<std::string>& words) {
    expect_error(ErrorCode::kUnsupported, words, [&] { spec_from_sentencepiece_model(bytes_of(pieces + rest)); });
  };
  refuse(trainer(1) + normalizer(), {"Unigram", "supported: BPE"});
  refuse(bytes_field(2, "") + normalizer(), {"Unigram"});  // the default
  refuse(trainer(3) + normalizer(), {"type is 3"});
  refuse(bytes_field(2, number_field(3, kBpeType) + number_field(24, 1)), {"treat_whitespace_as_suffix"});
  refuse(trainer() + bytes_field(3, bytes_field(1, "nmt_nfkc") + bytes_field(2, "map")), {"nmt_nfkc", "identity"});
  refuse(trainer() + bytes_field(3, number_field(5, 0)), {"escape_whitespaces"});
}

TEST(SentencePieceModel, RefusesMalformedMessages) {
  const std::string good = model_file(sentence_piece_spec());
  const auto refuse = [&](const std::string& extra, const std::vector<std::string>& words) {
    expect_error(ErrorCode::kCorrupt, words, [&] { spec_from_sentencepiece_model(bytes_of(good + extra)); });
  };
  refuse(number_field(0, 1), {"number 0"});
  refuse(varint(5 << 3 | 3), {"wire type"});
  refuse(varint(5 << 3) + std::string(11, '\xFF'), {"64 bits"});
  refuse(varint(5 << 3 | 2) + varint(~uint64_t{0}), {"ends inside"});
  refuse(number_field(1, 1), {"a piece is a number"});
  refuse(bytes_field(1, number_field(1, 1)), {"text is a number"});
  refuse(bytes_field(1, bytes_field(2, "x")), {"score is bytes"});
  refuse(bytes_field(1, bytes_field(1, "x") + number_field(3, 7)), {"type 7"});
  refuse(piece("\u2581the", 0, TokenType::kNormal), {"both", "\u2581the"});
  refuse(piece("\xFF", 0, TokenType::kNormal), {"UTF-8"});
  refuse(bytes_field(2, number_field(3, kBpeType) + number_field(42, 99999)), {"EOS", "99999"});
}

}  // namespace
}  // namespace brick::text::test
