#include "brick/data/sequences.h"

#include <algorithm>
#include <utility>

#include "brick/base/error.h"

namespace brick::data {
namespace {

TokenSequence encode(const Record& record, int64_t number, const text::Tokenizer& tokenizer,
                     const text::ChatTemplate& style, LossOn loss_on) {
  try {
    const std::vector<text::Segment> segments = text::render(style, record.messages, false);
    text::EncodedChat chat = text::encode_chat(tokenizer, segments);
    if (loss_on == LossOn::kAll) std::fill(chat.supervised.begin(), chat.supervised.end(), uint8_t{1});
    return {std::move(chat.ids), std::move(chat.supervised)};
  } catch (const Error& error) {
    fail(error.code(), "record {}: {}", number, error.what());
  }
}

int64_t targets(const TokenSequence& sequence) {
  return std::count(sequence.supervised.begin(), sequence.supervised.end(), uint8_t{1});
}

}  // namespace

int64_t count_tokens(std::span<const TokenSequence> sequences) {
  int64_t tokens = 0;
  for (const TokenSequence& sequence : sequences) tokens += static_cast<int64_t>(sequence.ids.size());
  return tokens;
}

int64_t count_supervised(std::span<const TokenSequence> sequences) {
  int64_t supervised = 0;
  for (const TokenSequence& sequence : sequences) supervised += targets(sequence);
  return supervised;
}

std::vector<int64_t> lengths_of(std::span<const TokenSequence> sequences) {
  std::vector<int64_t> lengths;
  for (const TokenSequence& sequence : sequences) lengths.push_back(static_cast<int64_t>(sequence.ids.size()));
  return lengths;
}

TokenSequence text_sequence(std::span<const int32_t> window) {
  TokenSequence sequence{{window.begin(), window.end()}, std::vector<uint8_t>(window.size(), 1)};
  if (!window.empty()) sequence.supervised[0] = 0;
  return sequence;
}

EncodedRecords encode_records(std::span<const Record> records, const text::Tokenizer& tokenizer,
                              const text::ChatTemplate& style, int64_t max_length, LossOn loss_on) {
  if (max_length < 2)
    fail(ErrorCode::kInvalidInput, "length is {}; it must be at least 2, a token and the one it predicts", max_length);
  EncodedRecords encoded;
  for (size_t i = 0; i < records.size(); ++i) {
    TokenSequence sequence = encode(records[i], static_cast<int64_t>(i) + 1, tokenizer, style, loss_on);
    if (static_cast<int64_t>(sequence.ids.size()) > max_length) {
      sequence.ids.resize(max_length);
      sequence.supervised.resize(max_length);
      ++encoded.cut;
    }
    if (!sequence.supervised.empty()) sequence.supervised[0] = 0;
    if (targets(sequence) == 0) {
      ++encoded.without_target;
      continue;
    }
    encoded.sequences.push_back(std::move(sequence));
    encoded.record.push_back(static_cast<int64_t>(i));
  }
  if (encoded.sequences.empty())
    fail(ErrorCode::kInvalidInput,
         "none of {} records has a token to score within the length of {}; raise --length ({} are longer)",
         records.size(), max_length, encoded.cut);
  return encoded;
}

}  // namespace brick::data
