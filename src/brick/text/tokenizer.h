// Text to token ids and back, for the vocabularies that tokenizer_spec.h reads.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "brick/text/bpe.h"
#include "brick/text/pre_split.h"
#include "brick/text/token_index.h"
#include "brick/text/tokenizer_spec.h"

namespace brick::text {

// Immutable and safe to use from several threads. Movable, not copyable: its index points into its spec.
class Tokenizer {
 public:
  // Errors: as validate(), and kUnsupported for an unknown pre_split.
  explicit Tokenizer(TokenizerSpec spec);
  Tokenizer(Tokenizer&&) noexcept = default;
  Tokenizer& operator=(Tokenizer&&) noexcept = default;
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // Ids of `text`; never adds BOS or EOS.
  //
  // parse_special: control, unknown and user-defined tokens in the text become their ids, the longest at each
  // place.
  // Without it no text can give a control token, nor a user-defined one that merges do not reach.
  // continues: the text goes on from earlier text, so add_space_prefix does not apply to its start.
  //
  // Bytes that are not UTF-8 become byte tokens, so that decode() returns them. A byte-level vocabulary may
  // lack some bytes: then they become U+FFFD, while a rare character that needs such a byte loses it, as in
  // transformers and llama.cpp (SmolLM2 lacks 21 bytes, e.g. 0x04, 0xF1 and those that UTF-8 never has).
  // O(n log n) for n bytes of any text.
  std::vector<int32_t> encode(std::string_view text, bool parse_special = false, bool continues = false) const;

  // The exact bytes that `ids` stand for, UTF-8 or not. Control and unknown tokens are left out unless
  // keep_special, which writes them as they stand in the vocabulary. With add_space_prefix, the space that
  // encode() would have put is taken away again (at the start only unless `continues`); the Metaspace styles
  // lose a text's own leading space that way.
  // Errors: kInvalidInput for an id outside the vocabulary.
  std::string decode(std::span<const int32_t> ids, bool keep_special = false, bool continues = false) const;

  // What a token looks like in text: the bytes of a normal token, the name of a control token.
  std::string piece(int32_t id) const;
  // Id of a token as the vocabulary spells it (TokenizerSpec::tokens).
  std::optional<int32_t> find(std::string_view token) const;
  int32_t vocab_size() const { return static_cast<int32_t>(spec_.tokens.size()); }
  TokenType type(int32_t id) const;  // kInvalidInput for an id outside the vocabulary
  // Valid as long as the tokenizer is neither moved nor destroyed.
  const TokenizerSpec& spec() const { return spec_; }

 private:
  struct Encoder;
  friend class StreamDecoder;
  bool is_special(int32_t id) const;
  void append_text(int32_t id, bool keep_special, bool& strip, std::string& text) const;
  bool strips_first_space() const;
  void check(int32_t id) const;
  std::optional<std::pair<size_t, int32_t>> special_at(std::string_view text, size_t at) const;

  TokenizerSpec spec_;
  TokenIndex index_;
  MergeTable merges_;
  std::optional<PreSplitter> splitter_;  // byte-level only
  std::array<int32_t, 256> byte_ids_;    // -1: the vocabulary lacks the byte
  int32_t space_id_ = -1;                // SentencePiece: U+2581, -1 if it is no token of its own
  bool splits_at_spaces_ = true;         // SentencePiece: no token has a space after another character
  std::array<bool, 256> special_first_byte_{};
  std::vector<size_t> special_lengths_;  // longest first
};

// Decodes a stream of ids into text that never ends inside a character.
class StreamDecoder {
 public:
  // The tokenizer must outlive the decoder. `continues` as in Tokenizer::decode(): true for a model's
  // continuation of a prompt.
  explicit StreamDecoder(const Tokenizer& tokenizer, bool keep_special = false, bool continues = true)
      : tokenizer_(tokenizer), keep_special_(keep_special), strip_(!continues && tokenizer.strips_first_space()) {}

  // Text that the id completes; may be empty. At most three bytes are held back.
  std::string push(int32_t id);
  // What is still held back, complete or not.
  std::string flush();

 private:
  const Tokenizer& tokenizer_;
  bool keep_special_, strip_;
  std::string held_;
};

}  // namespace brick::text
