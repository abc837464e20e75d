// Byte-pair merging (Sennrich et al. 2016): of all neighbouring pairs that may be merged, the one with the
// lowest rank goes first, the leftmost among equals, until none is left.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "brick/text/token_index.h"
#include "brick/text/tokenizer_spec.h"

namespace brick::text {

struct Merge {
  int32_t rank;  // lower goes first
  int32_t id;    // of the merged token
};

// (left id, right id) -> Merge: open addressing with linear probing, at most half full. It is what encoding
// spends its time in.
class MergeTable {
 public:
  explicit MergeTable(size_t capacity = 0) : slots_(std::bit_ceil(2 * capacity + 2)), capacity_(capacity) {}

  // False, changing nothing, if the pair is known already. Ids are not negative; at most `capacity` pairs.
  bool add(int32_t left, int32_t right, Merge merge);
  // nullptr if the pair does not merge. Valid until the next add().
  const Merge* find(int32_t left, int32_t right) const {
    const Slot& slot = slots_[slot_of(key(left, right))];
    return slot.key == kFree ? nullptr : &slot.merge;
  }
  size_t size() const { return size_; }

 private:
  static constexpr uint64_t kFree = ~uint64_t{0};  // no key: ids are not negative
  struct Slot {
    uint64_t key = kFree;
    Merge merge{};
  };
  static uint64_t key(int32_t left, int32_t right) {
    return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  }
  // Where the key is, or the free slot where it would go.
  size_t slot_of(uint64_t key) const {
    uint64_t x = (key ^ (key >> 30)) * 0xBF58476D1CE4E5B9U;  // splitmix64's finaliser
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
    x ^= x >> 31;
    const size_t mask = slots_.size() - 1;
    for (size_t at = x & mask;; at = (at + 1) & mask)
      if (slots_[at].key == key || slots_[at].key == kFree) return at;
  }

  std::vector<Slot> slots_;
  size_t capacity_ = 0, size_ = 0;
};

// The spec's merges by id; for a SentencePiece spec without merges, every way to cut a normal token in two
// normal tokens, ranked by the token's score (equal scores have equal ranks), which is what SentencePiece's
// search of the joined text amounts to. Merges that give a control, unknown, byte or unused token are left
// out, so that no text can become one. Errors: an unknown token, a merge given twice.
MergeTable make_merge_table(const TokenizerSpec& spec, const TokenIndex& index);

// The pairs of make_merge_table() for a SentencePiece spec, best first; the longer left part first among
// equals, which is how a run of one character is merged from the left.
std::vector<std::pair<std::string, std::string>> merges_from_scores(const TokenizerSpec& spec);

// Merges words one after the other, reusing its buffers. Not for several threads at once; the table must
// outlive it.
class Merger {
 public:
  explicit Merger(const MergeTable& table) : table_(table) {}

  // Merges `symbols` in place; O(n log n) for n symbols, whatever they are.
  void run(std::vector<int32_t>& symbols);

  int64_t operations() const { return operations_; }  // candidate pairs looked at so far

 private:
  struct Candidate {
    int32_t rank, at, left, right;  // `at`: index of the left symbol
  };
  void run_short(std::vector<int32_t>& symbols);
  void push(std::span<const int32_t> symbols, int32_t left, int32_t right);

  const MergeTable& table_;
  std::vector<Candidate> heap_;
  std::vector<int32_t> next_, previous_, ranks_;
  int64_t operations_ = 0;
};

}  // namespace brick::text
