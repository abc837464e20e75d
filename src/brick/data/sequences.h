// Conversations as token sequences, with the tokens that training and `brick eval --data` score.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "brick/data/records.h"
#include "brick/text/chat_template.h"
#include "brick/text/tokenizer.h"

namespace brick::data {

struct TokenSequence {
  std::vector<int32_t> ids;
  // One an id: 1 if the token is scored as a target of those before it. Never the first.
  std::vector<uint8_t> supervised;
};

enum class LossOn {
  kResponse,  // each assistant's content and the token that ends its turn
  kAll,       // every token
};

struct EncodedRecords {
  std::vector<TokenSequence> sequences;  // each with at least one target
  std::vector<int64_t> record;           // [sequences], index of each one's record
  int64_t cut = 0;                       // records longer than max_length, those without a target too
  int64_t without_target = 0;            // records left out, since no target is within max_length
};

// Tokens and targets of all sequences.
int64_t count_tokens(std::span<const TokenSequence> sequences);
int64_t count_supervised(std::span<const TokenSequence> sequences);
// Tokens of each, as plan_epoch() takes them.
std::vector<int64_t> lengths_of(std::span<const TokenSequence> sequences);

// A window of a text's ids (windows.h): each but the first is a target.
TokenSequence text_sequence(std::span<const int32_t> window);

// Renders and encodes each record, cut on the right to max_length tokens.
// Errors: kInvalidInput for max_length below 2 and where no record has a target; as text::render() and
// text::encode_chat(), naming the record (counted from 1).
EncodedRecords encode_records(std::span<const Record> records, const text::Tokenizer& tokenizer,
                              const text::ChatTemplate& style, int64_t max_length, LossOn loss_on);

}  // namespace brick::data
