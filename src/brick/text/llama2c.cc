#include <algorithm>
#include <bit>
#include <cstring>
#include <string>

#include "brick/base/error.h"
#include "brick/text/byte_alphabet.h"
#include "brick/text/tokenizer_spec.h"
#include "brick/text/utf8.h"

namespace brick::text {
namespace {

static_assert(std::endian::native == std::endian::little, "llama2.c's files are read without swapping bytes");

constexpr int32_t kUnknownId = 0, kBosId = 1, kEosId = 2, kFirstByteId = 3, kByteCount = 256;

class Reader {
 public:
  explicit Reader(std::span<const std::byte> file) : file_(file) {}

  size_t left() const { return file_.size() - at_; }

  std::string_view bytes(size_t count, const char* what, int32_t token) {
    if (left() < count)
      fail(ErrorCode::kCorrupt,
           "llama2.c tokenizer: the file of {} bytes ends inside the {} of token {}; is it truncated, or the "
           "vocabulary size wrong?",
           file_.size(), what, token);
    const std::string_view view(reinterpret_cast<const char*>(file_.data()) + at_, count);
    at_ += count;
    return view;
  }

  template <class T>
  T number(const char* what, int32_t token) {
    T value;
    std::memcpy(&value, bytes(sizeof(T), what, token).data(), sizeof(T));
    return value;
  }

 private:
  std::span<const std::byte> file_;
  size_t at_ = 0;
};

// llama2.c's export writes a literal space for U+2581 and decorates the names of BOS and EOS with newlines.
std::string spec_token(std::string_view token, int32_t id) {
  if (id == kUnknownId) return "<unk>";
  if (id == kBosId) return "<s>";
  if (id == kEosId) return "</s>";
  return spaces_to_marks(token);
}

}  // namespace

TokenizerSpec spec_from_llama2c(std::span<const std::byte> file, int32_t vocab_size) {
  if (vocab_size < kFirstByteId + kByteCount)
    fail(ErrorCode::kInvalidInput,
         "llama2.c tokenizer: a vocabulary of {} tokens cannot hold the 3 special and 256 byte tokens", vocab_size);
  Reader reader(file);
  reader.number<int32_t>("longest token's length, before", 0);
  TokenizerSpec spec;
  spec.kind = TokenizerKind::kSentencePieceBpe;
  for (int32_t id = 0; id < vocab_size; ++id) {
    spec.scores.push_back(reader.number<float>("score", id));
    const auto length = reader.number<int32_t>("length", id);
    if (length < 0 || static_cast<size_t>(length) > kMaxTokenBytes)
      fail(ErrorCode::kCorrupt, "llama2.c tokenizer: token {} has length {}, expected 0 to {}", id, length,
           kMaxTokenBytes);
    const std::string_view token = reader.bytes(static_cast<size_t>(length), "text", id);
    spec.tokens.push_back(spec_token(token, id));
    TokenType type = TokenType::kNormal;
    if (id < kFirstByteId) {
      type = id == kUnknownId ? TokenType::kUnknown : TokenType::kControl;
    } else if (id < kFirstByteId + kByteCount) {
      type = TokenType::kByte;
      if (parse_byte_token(token) != static_cast<uint8_t>(id - kFirstByteId))
        fail(ErrorCode::kCorrupt, "llama2.c tokenizer: token {} is {}, expected {}", id, printable(token),
             byte_token(static_cast<uint8_t>(id - kFirstByteId)));
    }
    spec.types.push_back(type);
  }
  if (reader.left() > 0)
    fail(ErrorCode::kMismatch, "llama2.c tokenizer: {} bytes follow the {} tokens; is the vocabulary size wrong?",
         reader.left(), vocab_size);
  spec.unk = kUnknownId;
  spec.bos = kBosId;
  spec.eos = kEosId;
  spec.add_bos = true;
  spec.add_space_prefix = true;
  validate(spec);
  return spec;
}

}  // namespace brick::text
