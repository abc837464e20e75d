// Tokenizers in GGUF metadata (tokenizer.ggml.*, tokenizer.chat_template), to and from text::TokenizerSpec.
#pragma once

#include <optional>

#include "brick/io/gguf.h"
#include "brick/text/tokenizer_spec.h"

namespace brick::model {

// nullopt where the file has no tokenizer. "gpt2" with pre-tokenizer "gpt-2", "smollm" or "default" (read as
// GPT-2's) and "llama" (SentencePiece) are read; Error(kUnsupported) names any other.
std::optional<text::TokenizerSpec> read_gguf_tokenizer(const io::GgufFile& file);

// The id that a key such as tokenizer.ggml.bos_token_id names; none where it is absent or no id.
std::optional<int32_t> gguf_token_id(const io::GgufFile& file, const char* key);

// Everything that llama.cpp reads, for a model of `vocab` tokens; ids beyond the tokenizer's own become
// unused tokens.
void write_gguf_tokenizer(const text::TokenizerSpec& spec, int64_t vocab, io::GgufWriter& writer);

}  // namespace brick::model
