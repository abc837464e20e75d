// A reader of the few protobuf fields that matter here; numbers from google/sentencepiece,
// src/sentencepiece_model.proto.
#include <bit>
#include <cstring>
#include <optional>
#include <string>

#include "brick/base/error.h"
#include "brick/text/byte_alphabet.h"
#include "brick/text/tokenizer_spec.h"
#include "brick/text/utf8.h"

namespace brick::text {
namespace {

constexpr uint32_t kModelPieces = 1, kModelTrainer = 2, kModelNormalizer = 3;
constexpr uint32_t kPieceText = 1, kPieceScore = 2, kPieceType = 3;
constexpr uint32_t kTrainerModelType = 3, kTrainerSpaceAsSuffix = 24, kTrainerUnkId = 40, kTrainerBosId = 41,
                   kTrainerEosId = 42, kTrainerPadId = 43;
constexpr uint32_t kNormalizerName = 1, kNormalizerCharsMap = 2, kNormalizerDummyPrefix = 3,
                   kNormalizerEscapeSpaces = 5;
constexpr uint64_t kUnigram = 1, kBpe = 2;

struct Field {
  uint32_t number = 0;
  uint64_t value = 0;      // varint, or the bits of a fixed-size number
  std::string_view bytes;  // of a length-delimited field
  bool is_bytes = false;

  std::string_view text(const char* what) const {
    if (!is_bytes) fail(ErrorCode::kCorrupt, "SentencePiece model: {} is a number, expected bytes", what);
    return bytes;
  }
  uint64_t integer(const char* what) const {
    if (is_bytes) fail(ErrorCode::kCorrupt, "SentencePiece model: {} is bytes, expected a number", what);
    return value;
  }
};

// Goes through the fields of one message.
class Message {
 public:
  Message(std::string_view data, const char* what) : data_(data), what_(what) {}

  std::optional<Field> next() {
    if (at_ == data_.size()) return std::nullopt;
    const uint64_t tag = varint();
    Field field;
    field.number = static_cast<uint32_t>(tag >> 3);
    if (field.number == 0 || tag >> 32 != 0) corrupt("has a field of number 0 or too large");
    switch (tag & 7) {
      case 0:
        field.value = varint();
        break;
      case 1:
        std::memcpy(&field.value, take(8).data(), 8);
        break;
      case 2:
        field.bytes = take(varint());
        field.is_bytes = true;
        break;
      case 5:
        std::memcpy(&field.value, take(4).data(), 4);
        break;
      default:
        corrupt("has a field of an unknown wire type");
    }
    return field;
  }

 private:
  [[noreturn]] void corrupt(const char* how) const {
    fail(ErrorCode::kCorrupt, "SentencePiece model: the {} {} near its byte {}; is the file truncated, or no .model?",
         what_, how, at_);
  }
  std::string_view take(uint64_t count) {
    if (count > data_.size() - at_) corrupt("ends inside a field");
    const std::string_view bytes = data_.substr(at_, count);
    at_ += count;
    return bytes;
  }
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<uint8_t>(take(1)[0]);
      value |= uint64_t{byte & 0x7FU} << shift;
      if (byte < 0x80) return value;
    }
    corrupt("has a number of more than 64 bits");
  }

  std::string_view data_;
  const char* what_;
  size_t at_ = 0;
};

void read_piece(std::string_view data, TokenizerSpec& spec) {
  std::string text;
  float score = 0;
  uint64_t type = static_cast<uint64_t>(TokenType::kNormal);
  Message message(data, "piece");
  while (const auto field = message.next()) {
    if (field->number == kPieceText) text = field->text("a piece's text");
    if (field->number == kPieceScore)
      score = std::bit_cast<float>(static_cast<uint32_t>(field->integer("a piece's score")));
    if (field->number == kPieceType) type = field->integer("a piece's type");
  }
  if (type < 1 || type > 6)
    fail(ErrorCode::kCorrupt, "SentencePiece model: piece {} has type {}, expected 1 to 6", spec.tokens.size(), type);
  const auto token_type = static_cast<TokenType>(type);
  // Our user-defined tokens are literal text.
  if (token_type == TokenType::kUserDefined) text = marks_to_spaces(text);
  spec.tokens.push_back(std::move(text));
  spec.scores.push_back(score);
  spec.types.push_back(token_type);
}

struct SpecialIds {
  int32_t unk = 0, bos = 1, eos = 2, pad = -1;  // TrainerSpec's defaults
};

SpecialIds read_trainer(std::string_view data) {
  uint64_t model_type = kUnigram;
  SpecialIds ids;
  Message message(data, "trainer spec");
  while (const auto field = message.next()) {
    const auto id = [&] { return static_cast<int32_t>(field->integer("a special token's id")); };
    if (field->number == kTrainerModelType) model_type = field->integer("the model type");
    if (field->number == kTrainerSpaceAsSuffix && field->integer("treat_whitespace_as_suffix") != 0)
      fail(ErrorCode::kUnsupported, "SentencePiece model: treat_whitespace_as_suffix is not supported");
    if (field->number == kTrainerUnkId) ids.unk = id();
    if (field->number == kTrainerBosId) ids.bos = id();
    if (field->number == kTrainerEosId) ids.eos = id();
    if (field->number == kTrainerPadId) ids.pad = id();
  }
  if (model_type == kUnigram) fail(ErrorCode::kUnsupported, "SentencePiece model: its type is Unigram; supported: BPE");
  if (model_type != kBpe)
    fail(ErrorCode::kUnsupported, "SentencePiece model: its type is {} (3 word, 4 char); supported: BPE", model_type);
  return ids;
}

// Returns whether a space goes before the text.
bool read_normalizer(std::string_view data) {
  bool prefix = true;
  std::string name;
  bool has_map = false;
  Message message(data, "normalizer spec");
  while (const auto field = message.next()) {
    if (field->number == kNormalizerName) name = field->text("the normalizer's name");
    if (field->number == kNormalizerCharsMap) has_map = !field->text("the normalizer's map").empty();
    if (field->number == kNormalizerDummyPrefix) prefix = field->integer("add_dummy_prefix") != 0;
    if (field->number == kNormalizerEscapeSpaces && field->integer("escape_whitespaces") == 0)
      fail(ErrorCode::kUnsupported, "SentencePiece model: escape_whitespaces=false is not supported");
  }
  if (has_map)
    fail(ErrorCode::kUnsupported, "SentencePiece model: the normalizer {} is not supported; supported: identity",
         printable(name));
  return prefix;
}

}  // namespace

TokenizerSpec spec_from_sentencepiece_model(std::span<const std::byte> file) {
  TokenizerSpec spec;
  spec.kind = TokenizerKind::kSentencePieceBpe;
  std::optional<SpecialIds> ids;
  std::optional<bool> prefix;
  Message model({reinterpret_cast<const char*>(file.data()), file.size()}, "file");
  while (const auto field = model.next()) {
    if (field->number == kModelPieces) read_piece(field->text("a piece"), spec);
    if (field->number == kModelTrainer) ids = read_trainer(field->text("the trainer spec"));
    if (field->number == kModelNormalizer) prefix = read_normalizer(field->text("the normalizer spec"));
  }
  if (!ids || !prefix)
    fail(ErrorCode::kCorrupt, "SentencePiece model: after {} pieces there is no {} spec; is the file truncated?",
         spec.tokens.size(), ids ? "normalizer" : "trainer");
  const auto optional_id = [](int32_t id) { return id < 0 ? std::nullopt : std::optional(id); };
  spec.unk = optional_id(ids->unk);
  spec.bos = optional_id(ids->bos);
  spec.eos = optional_id(ids->eos);
  spec.pad = optional_id(ids->pad);
  spec.add_bos = spec.bos.has_value();
  spec.add_space_prefix = *prefix;
  validate(spec);
  return spec;
}

}  // namespace brick::text
