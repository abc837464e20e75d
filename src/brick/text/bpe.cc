#include "brick/text/bpe.h"

#include <algorithm>
#include <limits>
#include <string_view>
#include <tuple>

#include "brick/base/error.h"
#include "brick/text/utf8.h"

namespace brick::text {
namespace {

constexpr size_t kShortWord = 24;  // below this, looking through all pairs beats a heap (measured)
constexpr int32_t kNone = -1, kNoMerge = std::numeric_limits<int32_t>::max();

bool is_reachable(TokenType type) { return type == TokenType::kNormal || type == TokenType::kUserDefined; }

struct Cut {
  int32_t id, left, right;
};

// Every way to cut a normal token in two normal tokens, the longest left part first.
std::vector<Cut> cuts_of(const TokenizerSpec& spec, const TokenIndex& index) {
  const auto normal = [&](std::string_view text) {
    const auto it = index.find(text);
    return it != index.end() && spec.types[it->second] == TokenType::kNormal ? it->second : kNone;
  };
  std::vector<Cut> cuts;
  for (size_t id = 0; id < spec.tokens.size(); ++id) {
    if (spec.types[id] != TokenType::kNormal) continue;
    const std::string_view token = spec.tokens[id];
    for (size_t at = token.size(); at-- > 1;) {
      if ((static_cast<uint8_t>(token[at]) & 0xC0) == 0x80) continue;  // inside a character
      const int32_t left = normal(token.substr(0, at));
      const int32_t right = left == kNone ? kNone : normal(token.substr(at));
      if (right != kNone) cuts.push_back({static_cast<int32_t>(id), left, right});
    }
  }
  std::stable_sort(cuts.begin(), cuts.end(),
                   [&](const Cut& a, const Cut& b) { return spec.scores[a.id] > spec.scores[b.id]; });
  return cuts;
}

MergeTable table_from_scores(const TokenizerSpec& spec, const TokenIndex& index) {
  const std::vector<Cut> cuts = cuts_of(spec, index);
  MergeTable table(cuts.size());
  int32_t rank = 0;
  for (size_t i = 0; i < cuts.size(); ++i) {
    if (i > 0 && spec.scores[cuts[i].id] != spec.scores[cuts[i - 1].id]) ++rank;
    table.add(cuts[i].left, cuts[i].right, {rank, cuts[i].id});
  }
  return table;
}

}  // namespace

bool MergeTable::add(int32_t left, int32_t right, Merge merge) {
  BRICK_ASSERT(size_ < capacity_ && left >= 0 && right >= 0);
  Slot& slot = slots_[slot_of(key(left, right))];
  if (slot.key != kFree) return false;
  slot = {key(left, right), merge};
  ++size_;
  return true;
}

MergeTable make_merge_table(const TokenizerSpec& spec, const TokenIndex& index) {
  if (spec.kind == TokenizerKind::kSentencePieceBpe && spec.merges.empty()) return table_from_scores(spec, index);
  MergeTable table(spec.merges.size());
  std::string joined;
  for (size_t i = 0; i < spec.merges.size(); ++i) {
    // No structured binding: clang 14 cannot capture one.
    const std::string &left = spec.merges[i].first, &right = spec.merges[i].second;
    joined.assign(left).append(right);
    const auto id = [&](const std::string& token) {
      const auto it = index.find(token);
      if (it == index.end())
        fail(ErrorCode::kCorrupt, "tokenizer: merge {} ({} + {}) needs the token {}, which the vocabulary lacks", i,
             printable(left), printable(right), printable(token));
      return it->second;
    };
    const Merge merge{static_cast<int32_t>(i), id(joined)};
    const int32_t left_id = id(left), right_id = id(right);
    if (is_reachable(spec.types[merge.id]) && !table.add(left_id, right_id, merge))
      fail(ErrorCode::kCorrupt, "tokenizer: merge {} ({} + {}) is given twice", i, printable(left), printable(right));
  }
  return table;
}

std::vector<std::pair<std::string, std::string>> merges_from_scores(const TokenizerSpec& spec) {
  std::vector<std::pair<std::string, std::string>> merges;
  for (const Cut& cut : cuts_of(spec, make_token_index(spec)))
    merges.emplace_back(spec.tokens[cut.left], spec.tokens[cut.right]);
  return merges;
}

void Merger::run(std::vector<int32_t>& symbols) {
  if (symbols.size() < 2) return;
  if (symbols.size() <= kShortWord) return run_short(symbols);

  const auto count = static_cast<int32_t>(symbols.size());
  next_.resize(symbols.size());
  previous_.resize(symbols.size());
  heap_.clear();
  for (int32_t i = 0; i < count; ++i) {
    next_[i] = i + 1 < count ? i + 1 : kNone;
    previous_[i] = i - 1;
    if (i + 1 < count) push(symbols, i, i + 1);
  }
  // std::*_heap keeps the largest in front: "less" is "merged later".
  const auto later = [](const Candidate& a, const Candidate& b) {
    return std::tie(a.rank, a.at) > std::tie(b.rank, b.at);
  };
  std::make_heap(heap_.begin(), heap_.end(), later);
  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end(), later);
    const Candidate best = heap_.back();
    heap_.pop_back();
    ++operations_;
    const int32_t right = next_[best.at];
    // A pair that an earlier merge has taken apart.
    if (symbols[best.at] != best.left || right == kNone || symbols[right] != best.right) continue;
    symbols[best.at] = table_.find(best.left, best.right)->id;
    symbols[right] = kNone;
    next_[best.at] = next_[right];
    if (next_[right] != kNone) previous_[next_[right]] = best.at;
    size_t size = heap_.size();
    if (previous_[best.at] != kNone) push(symbols, previous_[best.at], best.at);
    if (heap_.size() > size) std::push_heap(heap_.begin(), heap_.end(), later);
    size = heap_.size();
    if (next_[best.at] != kNone) push(symbols, best.at, next_[best.at]);
    if (heap_.size() > size) std::push_heap(heap_.begin(), heap_.end(), later);
  }
  std::erase(symbols, kNone);
}

void Merger::run_short(std::vector<int32_t>& symbols) {
  const auto rank = [&](size_t i) {
    ++operations_;
    const Merge* merge = table_.find(symbols[i], symbols[i + 1]);
    return merge ? merge->rank : kNoMerge;
  };
  ranks_.clear();
  for (size_t i = 0; i + 1 < symbols.size(); ++i) ranks_.push_back(rank(i));
  while (!ranks_.empty()) {
    const auto best = std::min_element(ranks_.begin(), ranks_.end());
    if (*best == kNoMerge) return;
    const auto at = static_cast<size_t>(best - ranks_.begin());
    symbols[at] = table_.find(symbols[at], symbols[at + 1])->id;
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(at) + 1);
    ranks_.erase(best);
    if (at > 0) ranks_[at - 1] = rank(at - 1);
    if (at < ranks_.size()) ranks_[at] = rank(at);
  }
}

void Merger::push(std::span<const int32_t> symbols, int32_t left, int32_t right) {
  ++operations_;
  if (const Merge* merge = table_.find(symbols[left], symbols[right]))
    heap_.push_back({merge->rank, left, symbols[left], symbols[right]});
}

}  // namespace brick::text
