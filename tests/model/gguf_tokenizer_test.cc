#include "brick/model/gguf_tokenizer.h"

#include <gtest/gtest.h>

#include <limits>

#include "brick/text/tokenizer.h"
#include "model/expect_error.h"
#include "model/tiny_model.h"

namespace brick::model {
namespace {

using text::TokenizerKind;
using text::TokenizerSpec;
using text::TokenType;

// Bytes, a space and three pieces with scores.
TokenizerSpec tiny_sentencepiece() {
  TokenizerSpec spec;
  spec.kind = TokenizerKind::kSentencePieceBpe;
  const auto add = [&](const std::string& token, float score, TokenType type) {
    spec.tokens.push_back(token);
    spec.scores.push_back(score);
    spec.types.push_back(type);
  };
  add("<unk>", 0, TokenType::kUnknown);
  add("<s>", 0, TokenType::kControl);
  add("</s>", 0, TokenType::kControl);
  for (int byte = 0; byte < 256; ++byte) add(fmt::format("<0x{:02X}>", byte), 0, TokenType::kByte);
  const std::vector<std::string> pieces{"ab",
                                        "\xE2\x96\x81"
                                        "ab",
                                        "\xE2\x96\x81", "a", "b"};
  for (size_t i = 0; i < pieces.size(); ++i) add(pieces[i], -static_cast<float>(i), TokenType::kNormal);
  spec.unk = 0;
  spec.bos = 1;
  spec.eos = 2;
  spec.add_bos = true;
  spec.add_space_prefix = true;
  return spec;
}

io::GgufFile written(const io::GgufWriter& writer) {
  static const TempFolder folder;
  static int count = 0;
  const std::string path = folder.file(std::to_string(count++) + ".gguf");
  io::GgufWriter copy = writer;
  copy.write(path);
  return io::GgufFile::open(path);
}

TokenizerSpec round_trip(const TokenizerSpec& spec, int64_t vocab) {
  io::GgufWriter writer;
  write_gguf_tokenizer(spec, vocab, writer);
  return *read_gguf_tokenizer(written(writer));
}

TEST(GgufTokenizer, ByteLevelComesBack) {
  TokenizerSpec spec = tiny_tokenizer(96);
  spec.pre_split = "smollm";
  spec.tokens[90] = "he";
  spec.merges = {{"h", "e"}};
  spec.add_eos = true;
  const TokenizerSpec back = round_trip(spec, 96);
  EXPECT_EQ(back.kind, TokenizerKind::kByteLevelBpe);
  EXPECT_EQ(back.pre_split, "smollm");
  EXPECT_EQ(back.tokens, spec.tokens);
  EXPECT_EQ(back.types, spec.types);
  EXPECT_EQ(back.merges, spec.merges);
  EXPECT_EQ(back.bos, spec.bos);
  EXPECT_EQ(back.eos, spec.eos);
  EXPECT_EQ(back.unk, spec.unk);
  EXPECT_EQ(back.pad, spec.pad);
  EXPECT_FALSE(back.add_bos);
  EXPECT_TRUE(back.add_eos);
  EXPECT_EQ(back.chat_template, spec.chat_template);
}

TEST(GgufTokenizer, SentencePieceComesBack) {
  const TokenizerSpec spec = tiny_sentencepiece();
  const TokenizerSpec back = round_trip(spec, static_cast<int64_t>(spec.tokens.size()));
  EXPECT_EQ(back.kind, TokenizerKind::kSentencePieceBpe);
  EXPECT_EQ(back.tokens, spec.tokens);
  EXPECT_EQ(back.scores, spec.scores);
  EXPECT_EQ(back.types, spec.types);
  EXPECT_TRUE(back.add_bos);
  EXPECT_TRUE(back.add_space_prefix);
}

TEST(GgufTokenizer, MergesBecomeScores) {
  TokenizerSpec spec = tiny_sentencepiece();
  spec.scores.clear();
  spec.merges = {{"a", "b"}, {"\xE2\x96\x81", "ab"}};
  const TokenizerSpec back = round_trip(spec, static_cast<int64_t>(spec.tokens.size()));
  for (const char* text : {"ab", "abab ab", "ba", " b"})
    EXPECT_EQ(text::Tokenizer(back).encode(text), text::Tokenizer(spec).encode(text)) << text;
}

TEST(GgufTokenizer, PadsToTheModelsVocabulary) {
  const TokenizerSpec back = round_trip(tiny_tokenizer(80), 96);
  ASSERT_EQ(back.tokens.size(), 96u);
  EXPECT_EQ(back.types[95], TokenType::kUnused);
  const TokenizerSpec pieces = round_trip(tiny_sentencepiece(), 300);
  EXPECT_EQ(pieces.scores.size(), 300u);
}

TEST(GgufTokenizer, LlamaCppsDefaultsAndNoneAtAll) {
  io::GgufWriter writer;
  const TokenizerSpec spec = tiny_sentencepiece();
  writer.add("tokenizer.ggml.model", std::string("llama"));
  writer.add("tokenizer.ggml.tokens", spec.tokens);
  writer.add("tokenizer.ggml.scores", spec.scores);
  std::vector<int32_t> types;
  for (TokenType type : spec.types) types.push_back(static_cast<int32_t>(type));
  writer.add("tokenizer.ggml.token_type", types);
  writer.add("tokenizer.ggml.padding_token_id", std::numeric_limits<uint32_t>::max());
  const TokenizerSpec back = *read_gguf_tokenizer(written(writer));
  EXPECT_EQ(back.unk, 0);
  EXPECT_EQ(back.bos, 1);
  EXPECT_EQ(back.eos, 2);
  EXPECT_EQ(back.pad, std::nullopt);
  EXPECT_TRUE(back.add_bos);
  EXPECT_TRUE(back.add_space_prefix);
  EXPECT_EQ(read_gguf_tokenizer(written(io::GgufWriter())), std::nullopt);
}

TEST(GgufTokenizer, RefusesOthersByName) {
  const auto refused = [](ErrorCode code, const std::string& part, auto&& edit) {
    TokenizerSpec spec = tiny_tokenizer(96);
    io::GgufWriter writer;
    edit(spec, writer);
    expect_error(code, part, [&] { read_gguf_tokenizer(written(writer)); });
  };
  refused(ErrorCode::kUnsupported, "'bert' is not supported", [](TokenizerSpec& spec, io::GgufWriter& w) {
    w.add("tokenizer.ggml.model", std::string("bert"));
    w.add("tokenizer.ggml.tokens", spec.tokens);
  });
  refused(ErrorCode::kUnsupported, "'llama-bpe' is not supported", [](TokenizerSpec& spec, io::GgufWriter& w) {
    spec.pre_split = "llama-bpe";
    write_gguf_tokenizer(spec, 96, w);
  });
  refused(ErrorCode::kNotFound, "tokenizer.ggml.tokens",
          [](TokenizerSpec&, io::GgufWriter& w) { w.add("tokenizer.ggml.model", std::string("gpt2")); });
  refused(ErrorCode::kCorrupt, "tokenizer.ggml.token_type", [](TokenizerSpec& spec, io::GgufWriter& w) {
    spec.types.pop_back();
    write_gguf_tokenizer(spec, 96, w);
  });
  refused(ErrorCode::kCorrupt, "unknown type 9", [](TokenizerSpec& spec, io::GgufWriter& w) {
    spec.types[5] = static_cast<TokenType>(9);
    write_gguf_tokenizer(spec, 96, w);
  });
  refused(ErrorCode::kCorrupt, "merge", [](TokenizerSpec& spec, io::GgufWriter& w) {
    w.add("tokenizer.ggml.model", std::string("gpt2"));
    w.add("tokenizer.ggml.pre", std::string("gpt-2"));
    w.add("tokenizer.ggml.tokens", spec.tokens);
    w.add("tokenizer.ggml.merges", std::vector<std::string>{"ab"});
  });
}

}  // namespace
}  // namespace brick::model
