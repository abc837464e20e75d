#include "brick/model/gguf_tokenizer.h"

#include <limits>
#include <unordered_map>

#include "brick/base/error.h"

namespace brick::model {
namespace {

using text::TokenizerKind;
using text::TokenizerSpec;
using text::TokenType;

std::vector<TokenType> read_types(const io::GgufFile& file, size_t tokens) {
  constexpr const char* kKey = "tokenizer.ggml.token_type";
  const std::optional<std::vector<int64_t>> types = file.get_ints(kKey);
  if (!types) return std::vector<TokenType>(tokens, TokenType::kNormal);
  if (types->size() != tokens)
    fail(ErrorCode::kCorrupt, "{}: {} has {} values for {} tokens", file.name(), kKey, types->size(), tokens);
  std::vector<TokenType> out;
  out.reserve(tokens);
  for (int64_t type : *types) {
    if (type < 1 || type > 6) fail(ErrorCode::kCorrupt, "{}: {} has the unknown type {}", file.name(), kKey, type);
    out.push_back(static_cast<TokenType>(type));
  }
  return out;
}

void read_byte_level(const io::GgufFile& file, TokenizerSpec& spec) {
  spec.kind = TokenizerKind::kByteLevelBpe;
  const std::string pre = file.str_or("tokenizer.ggml.pre", "default");
  if (pre == "smollm") {
    spec.pre_split = "smollm";
  } else if (pre == "gpt-2" || pre == "default") {
    spec.pre_split = "gpt-2";
  } else {
    fail(ErrorCode::kUnsupported, "{}: tokenizer.ggml.pre '{}' is not supported; gpt-2 and smollm are", file.name(),
         pre);
  }
  for (std::string_view merge : file.require_strings("tokenizer.ggml.merges")) {
    const size_t space = merge.find(' ', 1);
    if (space == std::string_view::npos)
      fail(ErrorCode::kCorrupt, "{}: tokenizer.ggml.merges has '{}', which is no pair", file.name(), merge);
    spec.merges.emplace_back(merge.substr(0, space), merge.substr(space + 1));
  }
}

// llama.cpp's defaults for absent keys of a SentencePiece vocabulary.
void read_sentencepiece(const io::GgufFile& file, TokenizerSpec& spec) {
  spec.kind = TokenizerKind::kSentencePieceBpe;
  spec.scores = file.require_floats("tokenizer.ggml.scores");
  spec.add_space_prefix = file.bool_or("tokenizer.ggml.add_space_prefix", true);
  spec.add_bos = file.bool_or("tokenizer.ggml.add_bos_token", true);
  if (!spec.unk) spec.unk = 0;
  if (!spec.bos) spec.bos = 1;
  if (!spec.eos) spec.eos = 2;
}

// The scores that llama.cpp needs in place of merges: the earlier a merge, the higher.
std::vector<float> scores_from_merges(const TokenizerSpec& spec) {
  std::unordered_map<std::string, float> score;
  for (size_t i = 0; i < spec.merges.size(); ++i)
    score.emplace(spec.merges[i].first + spec.merges[i].second, -static_cast<float>(i));
  std::vector<float> out;
  out.reserve(spec.tokens.size());
  for (const std::string& token : spec.tokens) {
    const auto found = score.find(token);
    out.push_back(found == score.end() ? -static_cast<float>(spec.merges.size()) : found->second);
  }
  return out;
}

}  // namespace

std::optional<int32_t> gguf_token_id(const io::GgufFile& file, const char* key) {
  const std::optional<int64_t> id = file.get_i64(key);
  // Some converters write 2^32 - 1 for "none".
  if (!id || *id < 0 || *id > std::numeric_limits<int32_t>::max()) return std::nullopt;
  return static_cast<int32_t>(*id);
}

std::optional<TokenizerSpec> read_gguf_tokenizer(const io::GgufFile& file) {
  const std::optional<std::string> model = file.get_str("tokenizer.ggml.model");
  if (!model || *model == "no_vocab") return std::nullopt;
  TokenizerSpec spec;
  const std::vector<std::string_view>& tokens = file.require_strings("tokenizer.ggml.tokens");
  spec.tokens.assign(tokens.begin(), tokens.end());
  spec.types = read_types(file, tokens.size());
  spec.bos = gguf_token_id(file, "tokenizer.ggml.bos_token_id");
  spec.eos = gguf_token_id(file, "tokenizer.ggml.eos_token_id");
  spec.unk = gguf_token_id(file, "tokenizer.ggml.unknown_token_id");
  spec.pad = gguf_token_id(file, "tokenizer.ggml.padding_token_id");
  spec.add_bos = file.bool_or("tokenizer.ggml.add_bos_token", false);
  spec.add_eos = file.bool_or("tokenizer.ggml.add_eos_token", false);
  spec.chat_template = file.str_or("tokenizer.chat_template", "");
  if (*model == "gpt2")
    read_byte_level(file, spec);
  else if (*model == "llama")
    read_sentencepiece(file, spec);
  else
    fail(ErrorCode::kUnsupported, "{}: tokenizer.ggml.model '{}' is not supported; gpt2 and llama are", file.name(),
         *model);
  text::validate(spec);
  return spec;
}

void write_gguf_tokenizer(const TokenizerSpec& spec, int64_t vocab, io::GgufWriter& writer) {
  const bool byte_level = spec.kind == TokenizerKind::kByteLevelBpe;
  writer.add("tokenizer.ggml.model", std::string(byte_level ? "gpt2" : "llama"));
  writer.add("tokenizer.ggml.pre", byte_level ? spec.pre_split : std::string("default"));
  std::vector<std::string> tokens = spec.tokens;
  std::vector<int32_t> types;
  for (TokenType type : spec.types) types.push_back(static_cast<int32_t>(type));
  std::vector<float> scores;
  if (!byte_level) scores = spec.merges.empty() ? spec.scores : scores_from_merges(spec);
  for (auto id = static_cast<int64_t>(tokens.size()); id < vocab; ++id) {
    tokens.push_back(fmt::format("[PAD{}]", id));
    types.push_back(static_cast<int32_t>(TokenType::kUnused));
    if (!byte_level) scores.push_back(-1e9f);
  }
  writer.add("tokenizer.ggml.tokens", tokens);
  if (!byte_level) writer.add("tokenizer.ggml.scores", scores);
  writer.add("tokenizer.ggml.token_type", types);
  if (byte_level) {
    std::vector<std::string> merges;
    merges.reserve(spec.merges.size());
    for (const auto& [left, right] : spec.merges) merges.push_back(left + ' ' + right);
    writer.add("tokenizer.ggml.merges", merges);
  }
  const auto add_id = [&](const char* key, std::optional<int32_t> id) {
    if (id) writer.add(key, static_cast<uint32_t>(*id));
  };
  add_id("tokenizer.ggml.bos_token_id", spec.bos);
  add_id("tokenizer.ggml.eos_token_id", spec.eos);
  add_id("tokenizer.ggml.unknown_token_id", spec.unk);
  add_id("tokenizer.ggml.padding_token_id", spec.pad);
  writer.add("tokenizer.ggml.add_bos_token", spec.add_bos);
  writer.add("tokenizer.ggml.add_eos_token", spec.add_eos);
  writer.add("tokenizer.ggml.add_space_prefix", !byte_level && spec.add_space_prefix);
  if (!spec.chat_template.empty()) writer.add("tokenizer.chat_template", spec.chat_template);
}

}  // namespace brick::model
