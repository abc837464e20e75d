#include "brick/text/tokenizer.h"

#include <algorithm>
#include <functional>
#include <set>
#include <unordered_map>
#include <utility>

#include "brick/base/error.h"
#include "brick/text/byte_alphabet.h"
#include "brick/text/utf8.h"

namespace brick::text {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

TokenizerSpec checked(TokenizerSpec spec) {
  check_fields(spec);
  return spec;
}

// A space after another character.
bool has_inner_space(std::string_view token) {
  for (size_t at = token.find(kSpaceMark, 1); at != token.npos; at = token.find(kSpaceMark, at + 1))
    if (!token.substr(0, at).ends_with(kSpaceMark)) return true;
  return false;
}

}  // namespace

Tokenizer::Tokenizer(TokenizerSpec spec)
    : spec_(checked(std::move(spec))), index_(make_token_index(spec_)), merges_(make_merge_table(spec_, index_)) {
  const bool byte_level = spec_.kind == TokenizerKind::kByteLevelBpe;
  std::set<size_t, std::greater<>> lengths;
  for (int32_t id = 0; id < vocab_size(); ++id) {
    const std::string& token = spec_.tokens[id];
    if (is_special(id) && !token.empty()) {
      lengths.insert(token.size());
      special_first_byte_[static_cast<uint8_t>(token[0])] = true;
    }
    if (!byte_level && spec_.types[id] != TokenType::kControl && has_inner_space(token)) splits_at_spaces_ = false;
  }
  special_lengths_.assign(lengths.begin(), lengths.end());

  byte_ids_.fill(-1);
  const TokenType byte_type = byte_level ? TokenType::kNormal : TokenType::kByte;
  for (int byte = 0; byte < 256; ++byte) {
    const auto value = static_cast<uint8_t>(byte);
    const auto id = find(byte_level ? byte_to_alphabet(value) : byte_token(value));
    if (id && spec_.types[*id] == byte_type) byte_ids_[byte] = *id;
  }
  if (byte_level) {
    splitter_.emplace(spec_.pre_split);
  } else if (const auto id = find(kSpaceMark); id && spec_.types[*id] == TokenType::kNormal) {
    space_id_ = *id;
  }
}

// What one call of encode() needs: buffers, and the words that it has met. The views point into its text.
struct Tokenizer::Encoder {
  const Tokenizer& t;
  std::vector<int32_t>& ids;
  Merger merger{t.merges_};
  std::unordered_map<std::string_view, std::pair<size_t, size_t>> seen{};  // word -> range of `ids`
  std::vector<std::string_view> words{};
  std::vector<int32_t> symbols{};

  void text(std::string_view text, bool space_before) {
    if (t.spec_.kind == TokenizerKind::kByteLevelBpe)
      byte_level(text);
    else
      sentence_piece(text, space_before);
  }

  void byte_level(std::string_view text) {
    for (size_t at = 0; at < text.size();) {
      const size_t end = valid_end(text, at);
      if (end == at) {
        const int32_t id = t.byte_ids_[static_cast<uint8_t>(text[at])];
        if (id >= 0)
          ids.push_back(id);
        else
          byte_level(kReplacement);
        ++at;
        continue;
      }
      words.clear();
      t.splitter_->split(text.substr(at, end - at), words);
      for (const std::string_view word : words) {
        if (repeat(word)) continue;
        symbols.clear();
        for (const char c : word)
          if (const int32_t id = t.byte_ids_[static_cast<uint8_t>(c)]; id >= 0) symbols.push_back(id);
        merge(word);
      }
      at = end;
    }
  }

  void sentence_piece(std::string_view text, bool space_before) {
    if (text.empty()) return;
    symbols.clear();
    const bool has_space =
        t.spec_.prefix_style != PrefixStyle::kPlain && (text[0] == ' ' || text.starts_with(kSpaceMark));
    if (space_before && !has_space) add_space();
    for (size_t at = 0; at < text.size();) {
      const size_t end = t.splits_at_spaces_ ? word_end(text, at) : text.size();
      const std::string_view word = text.substr(at, end - at);
      // A word that begins after the prefix space is not the word that it is elsewhere.
      const bool alone = symbols.empty();
      if (!alone || !repeat(word)) {
        add_characters(word);
        merge(alone ? word : std::string_view());
        symbols.clear();
      }
      at = end;
    }
  }

  // End of the word at `at`: spaces, then others, up to the next space.
  static size_t word_end(std::string_view text, size_t at) {
    const auto space = [&](size_t i) {
      return text[i] == ' ' ? size_t{1} : text.substr(i).starts_with(kSpaceMark) ? kSpaceMark.size() : 0;
    };
    while (at < text.size() && space(at) > 0) at += space(at);
    while (at < text.size() && space(at) == 0) ++at;
    return at;
  }

  void add_space() { symbols.push_back(t.space_id_ >= 0 ? t.space_id_ : t.byte_ids_[' ']); }

  void add_characters(std::string_view word) {
    for (size_t at = 0; at < word.size();) {
      if (word[at] == ' ') {
        add_space();
        ++at;
        continue;
      }
      const size_t length = std::max<size_t>(character_length(word, at), 1);
      const std::string_view character = word.substr(at, length);
      const auto it = t.index_.find(character);
      if (it != t.index_.end() && t.spec_.types[it->second] == TokenType::kNormal)
        symbols.push_back(it->second);
      else
        for (const char c : character) symbols.push_back(t.byte_ids_[static_cast<uint8_t>(c)]);
      at += length;
    }
  }

  bool repeat(std::string_view word) {
    const auto it = seen.find(word);
    if (it == seen.end()) return false;
    for (size_t i = it->second.first; i < it->second.second; ++i) {
      const int32_t id = ids[i];
      ids.push_back(id);
    }
    return true;
  }

  // Merges `symbols` into `ids`; remembers the result under `word` if there is one.
  void merge(std::string_view word) {
    merger.run(symbols);
    const size_t begin = ids.size();
    ids.insert(ids.end(), symbols.begin(), symbols.end());
    if (!word.empty()) seen.emplace(word, std::pair(begin, ids.size()));
  }
};

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool parse_special, bool continues) const {
  std::vector<int32_t> ids;
  Encoder encoder{*this, ids};
  bool space_before = spec_.add_space_prefix && !continues;
  size_t begin = 0;
  if (parse_special) {
    for (size_t at = 0; at < text.size();) {
      const auto special = special_at(text, at);
      if (!special) {
        ++at;
        continue;
      }
      if (at > begin) encoder.text(text.substr(begin, at - begin), space_before);
      ids.push_back(special->second);
      at = begin = at + special->first;
      space_before = spec_.add_space_prefix && spec_.prefix_style != PrefixStyle::kMetaspaceFirst;
    }
  }
  encoder.text(text.substr(begin), space_before);
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool keep_special, bool continues) const {
  std::string text;
  bool strip = !continues && strips_first_space();
  for (const int32_t id : ids) append_text(id, keep_special, strip, text);
  return text;
}

bool Tokenizer::strips_first_space() const {
  return spec_.kind == TokenizerKind::kSentencePieceBpe && spec_.add_space_prefix;
}

// `strip`: encode() would have put a space before the next text, if `id` is text.
void Tokenizer::append_text(int32_t id, bool keep_special, bool& strip, std::string& text) const {
  check(id);
  const TokenType type = spec_.types[id];
  if (is_special(id)) {
    if (keep_special || type == TokenType::kUserDefined) text += piece(id);
    // A leading BOS leaves "the start of the text" where it is.
    strip = strips_first_space() &&
            (spec_.prefix_style != PrefixStyle::kMetaspaceFirst || (strip && type == TokenType::kControl));
    return;
  }
  const std::string bytes = piece(id);
  text += strip && bytes.starts_with(' ') ? std::string_view(bytes).substr(1) : bytes;
  strip = false;
}

std::string Tokenizer::piece(int32_t id) const {
  check(id);
  const std::string& token = spec_.tokens[id];
  switch (spec_.types[id]) {
    case TokenType::kNormal:
    case TokenType::kUnused:
      return spec_.kind == TokenizerKind::kByteLevelBpe ? alphabet_to_bytes(token) : marks_to_spaces(token);
    case TokenType::kByte:
      if (const auto byte = parse_byte_token(token)) return {static_cast<char>(*byte)};
      return token;
    case TokenType::kUnknown:
    case TokenType::kControl:
    case TokenType::kUserDefined:
      break;
  }
  return token;
}

std::optional<int32_t> Tokenizer::find(std::string_view token) const {
  const auto it = index_.find(token);
  if (it == index_.end()) return std::nullopt;
  return it->second;
}

TokenType Tokenizer::type(int32_t id) const {
  check(id);
  return spec_.types[id];
}

bool Tokenizer::is_special(int32_t id) const {
  const TokenType type = spec_.types[id];
  return type == TokenType::kControl || type == TokenType::kUserDefined || type == TokenType::kUnknown;
}

void Tokenizer::check(int32_t id) const {
  if (id < 0 || id >= vocab_size())
    fail(ErrorCode::kInvalidInput, "token id {} is outside the vocabulary of {} tokens", id, vocab_size());
}

std::optional<std::pair<size_t, int32_t>> Tokenizer::special_at(std::string_view text, size_t at) const {
  if (!special_first_byte_[static_cast<uint8_t>(text[at])]) return std::nullopt;
  for (const size_t length : special_lengths_) {
    if (length > text.size() - at) continue;
    const auto it = index_.find(text.substr(at, length));
    if (it != index_.end() && is_special(it->second)) return std::pair(length, it->second);
  }
  return std::nullopt;
}

std::string StreamDecoder::push(int32_t id) {
  tokenizer_.append_text(id, keep_special_, strip_, held_);
  size_t tail = 0;
  for (size_t length = 1; length <= std::min<size_t>(3, held_.size()); ++length)
    if (is_incomplete_character(std::string_view(held_).substr(held_.size() - length))) tail = length;
  std::string text = held_.substr(0, held_.size() - tail);
  held_.erase(0, text.size());
  return text;
}

std::string StreamDecoder::flush() { return std::exchange(held_, {}); }

}  // namespace brick::text
