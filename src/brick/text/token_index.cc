#include "brick/text/token_index.h"

#include <array>
#include <cmath>
#include <limits>

#include "brick/base/error.h"
#include "brick/text/bpe.h"
#include "brick/text/byte_alphabet.h"
#include "brick/text/utf8.h"

namespace brick::text {
namespace {

void check_id(const char* name, const std::optional<int32_t>& id, size_t count) {
  if (id && (*id < 0 || static_cast<size_t>(*id) >= count))
    fail(ErrorCode::kCorrupt, "tokenizer: the {} token's id {} is outside the vocabulary of {} tokens", name, *id,
         count);
}

void check_tokens(const TokenizerSpec& spec) {
  std::array<bool, 256> has_byte{};
  for (size_t id = 0; id < spec.tokens.size(); ++id) {
    const std::string& token = spec.tokens[id];
    const auto type = static_cast<int>(spec.types[id]);
    if (type < static_cast<int>(TokenType::kNormal) || type > static_cast<int>(TokenType::kByte))
      fail(ErrorCode::kCorrupt, "tokenizer: token {} has type {}, expected 1 to 6", id, type);
    if (token.size() > kMaxTokenBytes)
      fail(ErrorCode::kUnsupported, "tokenizer: token {} has {} bytes, more than the {} that we accept", id,
           token.size(), kMaxTokenBytes);
    if (!is_valid_utf8(token))
      fail(ErrorCode::kCorrupt, "tokenizer: token {} is not valid UTF-8 (is this the right kind of vocabulary?)", id);
    if (spec.types[id] != TokenType::kByte) continue;
    const auto byte = parse_byte_token(token);
    if (!byte)
      fail(ErrorCode::kCorrupt, "tokenizer: token {} is a byte by its type but reads {}, expected <0xNN>", id,
           printable(token));
    has_byte[*byte] = true;
  }
  if (spec.kind != TokenizerKind::kSentencePieceBpe) return;
  for (int byte = 0; byte < 256; ++byte)
    if (!has_byte[byte])
      fail(ErrorCode::kUnsupported,
           "tokenizer: this SentencePiece vocabulary lacks the byte token {}; only those with byte fallback "
           "(all "
           "of <0x00> to <0xFF>) are supported",
           byte_token(static_cast<uint8_t>(byte)));
}

}  // namespace

void check_fields(const TokenizerSpec& spec) {
  const size_t count = spec.tokens.size();
  if (count == 0) fail(ErrorCode::kCorrupt, "tokenizer: the vocabulary is empty");
  if (count > std::numeric_limits<int32_t>::max() || spec.merges.size() > std::numeric_limits<int32_t>::max())
    fail(ErrorCode::kUnsupported, "tokenizer: {} tokens and {} merges are more than 31 bits count", count,
         spec.merges.size());
  if (spec.types.size() != count)
    fail(ErrorCode::kCorrupt, "tokenizer: {} token types for {} tokens", spec.types.size(), count);
  if (!spec.scores.empty() && spec.scores.size() != count)
    fail(ErrorCode::kCorrupt, "tokenizer: {} scores for {} tokens", spec.scores.size(), count);
  if (spec.kind == TokenizerKind::kSentencePieceBpe && spec.scores.empty() && spec.merges.empty())
    fail(ErrorCode::kCorrupt, "tokenizer: a SentencePiece vocabulary needs scores or merges, it has neither");
  for (size_t id = 0; id < spec.scores.size(); ++id)
    if (std::isnan(spec.scores[id])) fail(ErrorCode::kCorrupt, "tokenizer: the score of token {} is NaN", id);
  if (const size_t end = valid_end(spec.chat_template, 0); end != spec.chat_template.size())
    fail(ErrorCode::kCorrupt, "tokenizer: byte {} of the chat template is not valid UTF-8", end);
  check_tokens(spec);
  check_id("BOS", spec.bos, count);
  check_id("EOS", spec.eos, count);
  check_id("unknown", spec.unk, count);
  check_id("padding", spec.pad, count);
}

TokenIndex make_token_index(const TokenizerSpec& spec) {
  TokenIndex index;
  index.reserve(spec.tokens.size());
  for (size_t i = 0; i < spec.tokens.size(); ++i) {
    const auto id = static_cast<int32_t>(i);
    const auto [it, added] = index.emplace(spec.tokens[i], id);
    if (added || spec.types[i] == TokenType::kUnused) continue;
    if (spec.types[it->second] != TokenType::kUnused)
      fail(ErrorCode::kCorrupt, "tokenizer: tokens {} and {} are both {}", it->second, id, printable(spec.tokens[i]));
    it->second = id;
  }
  return index;
}

void validate(const TokenizerSpec& spec) {
  check_fields(spec);
  make_merge_table(spec, make_token_index(spec));
}

}  // namespace brick::text
