// A tokenizer as plain data, and the files that it is read from and written to.
//
// GGUF metadata becomes a TokenizerSpec in model/; Hugging Face JSON, SentencePiece .model files and
// llama2.c's tok*.bin here. Every reader throws brick::Error: kCorrupt for a file that contradicts itself
// or ends early, kUnsupported (with what is supported) for a kind that we do not read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace brick::text {

enum class TokenizerKind { kByteLevelBpe, kSentencePieceBpe };

// SentencePiece's numbers (ModelProto.SentencePiece.Type), which GGUF's tokenizer.ggml.token_type uses too.
enum class TokenType { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

// Where add_space_prefix puts its space. GGUF and .model files know only kPlain.
enum class PrefixStyle {
  kPlain,            // before the text and before each stretch after a special token: llama.cpp; HF's Prepend
  kMetaspaceAlways,  // likewise, but not before a stretch that begins with a space: HF's Metaspace "always"
  kMetaspaceFirst,   // before the text only, unless it begins with a space: HF's Metaspace "first"
};

struct TokenizerSpec {
  TokenizerKind kind = TokenizerKind::kByteLevelBpe;
  // Byte-level only: "gpt-2" (GPT-2's regex) or "smollm" (each \p{N} alone first, then GPT-2's regex), the
  // names of llama.cpp's tokenizer.ggml.pre.
  std::string pre_split = "gpt-2";
  // By id. Normal tokens of a byte-level vocabulary stand in GPT-2's byte-to-unicode alphabet; those of a
  // SentencePiece vocabulary have U+2581 for a space and <0xNN> for a byte. Control and user-defined tokens
  // are literal text.
  std::vector<std::string> tokens;
  // SentencePiece only: the higher, the earlier a pair that gives this token is merged. Empty where `merges`
  // says the order instead; where both are given, `merges` counts.
  std::vector<float> scores;
  std::vector<TokenType> types;                             // one a token
  std::vector<std::pair<std::string, std::string>> merges;  // in order of priority
  std::optional<int32_t> bos, eos, unk, pad;
  bool add_bos = false, add_eos = false;  // what the model was trained with; encode() never adds them
  // SentencePiece only (others ignore it, as llama.cpp does): a space goes before the text.
  bool add_space_prefix = false;
  PrefixStyle prefix_style = PrefixStyle::kPlain;
  std::string chat_template;  // Jinja source; may be empty
};

// Longest token in bytes that we accept; published vocabularies stay below 300.
inline constexpr size_t kMaxTokenBytes = 1024;

// Throws Error unless sizes agree, ids are in range, tokens are valid UTF-8 and unique (kUnused ones need
// not be), every merge joins two known tokens to a known one, and a SentencePiece vocabulary has all bytes.
void validate(const TokenizerSpec& spec);

// tokenizer.json with tokenizer_config.json (may be empty: then bos, eos and pad stay unknown unless the
// post-processor names them). Reads byte-level BPE (ByteLevel alone, or after Digits(individual), or Split
// by these regexes and ByteLevel) and Llama-2 style BPE with byte_fallback.
TokenizerSpec spec_from_hf_json(std::string_view tokenizer_json, std::string_view tokenizer_config_json);

// A SentencePiece ModelProto of type BPE with byte_fallback. Like llama.cpp, ignores
// remove_extra_whitespaces: runs of spaces are kept, so that text comes back as it was.
TokenizerSpec spec_from_sentencepiece_model(std::span<const std::byte> file);

// llama2.c's tok*.bin: int32 longest token, then `vocab_size` times float32 score, int32 length, bytes;
// little-endian. Its convention fixes unk 0, bos 1, eos 2 and bytes at 3..258.
TokenizerSpec spec_from_llama2c(std::span<const std::byte> file, int32_t vocab_size);

// Files that transformers (PreTrainedTokenizerFast) loads with the same ids. A SentencePiece vocabulary is
// written as BPE with byte_fallback whose merges follow from the scores. `spec` must be valid.
std::string to_hf_tokenizer_json(const TokenizerSpec& spec);
std::string to_hf_tokenizer_config_json(const TokenizerSpec& spec);

}  // namespace brick::text
