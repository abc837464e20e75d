// Which records a training step sees together, and those records laid end to end. Nothing is padded: records
// of a batch stand one after another, and attention must not cross the offsets (block-diagonal).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "brick/data/sequences.h"

namespace brick::data {

struct BatchOptions {
  int64_t batch_tokens = 1024;  // most tokens a batch; a longer record is a batch alone
  int64_t batch_records = 0;    // above 0: that many records a batch, whatever their lengths
  bool shuffle = true;          // without: records stay in their order
  uint64_t seed = 0;
};

// The batches of one epoch, each a list of indices into `lengths`; every index stands in exactly one.
//
// lengths: tokens of each record, at least 1. epoch: from 0. The plan is a pure function of the arguments.
// Records are shuffled and taken in windows of eight batches' worth of tokens; inside a window they are
// packed by first-fit decreasing and the batches shuffled again. Our choice: a window keeps batches as random
// as the epoch allows, while about 98 % of the tokens' room is used on lengths like databricks-dolly-15k's.
// The emptiest batch of a window goes back into the next. Without shuffle a batch ends where the next record
// does not fit. O(n) for n records but for sorting inside a window. Errors: kInvalidInput for batch_tokens
// below 1 or batch_records below 0.
std::vector<std::vector<int64_t>> plan_epoch(std::span<const int64_t> lengths, const BatchOptions& options,
                                             int64_t epoch);

// The records of a batch in parts of at most `part_tokens` tokens, packed by first-fit decreasing; a longer record is a
// part alone. lengths as of plan_epoch().
std::vector<std::vector<int64_t>> split_batch(std::span<const int64_t> batch, std::span<const int64_t> lengths,
                                              int64_t part_tokens);

// n records end to end; record i is [offsets[i], offsets[i + 1]) of ids and supervised.
struct Batch {
  std::vector<int32_t> ids;         // [T]
  std::vector<int64_t> offsets{0};  // [n + 1]
  std::vector<uint8_t> supervised;  // [T], as in TokenSequence: 0 at each record's first token
  std::vector<int64_t> sequence;    // [n], each record's index in the sequences that it came from

  int64_t records() const { return static_cast<int64_t>(sequence.size()); }
  int64_t tokens() const { return static_cast<int64_t>(ids.size()); }
};

// indices: into `sequences`, in the order wanted; normally one element of plan_epoch(). `batch` gives its memory.
Batch make_batch(std::span<const TokenSequence> sequences, std::span<const int64_t> indices, Batch batch = {});

}  // namespace brick::data
