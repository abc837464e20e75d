#include "brick/text/bpe.h"

#include <gtest/gtest.h>

#include <random>

#include "vocabularies.h"

namespace brick::text::test {
namespace {

// Per symbol: the first look at its pair, at most two more for each merge, and one pop for each push.
constexpr int64_t kOperationsPerSymbol = 8;

// The definition, word for word; quadratic.
std::vector<int32_t> merged_by_definition(const MergeTable& table, std::vector<int32_t> symbols) {
  while (true) {
    const Merge* best = nullptr;
    size_t at = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const Merge* merge = table.find(symbols[i], symbols[i + 1]);
      if (merge && (!best || merge->rank < best->rank)) {
        best = merge;
        at = i;
      }
    }
    if (!best) return symbols;
    symbols[at] = best->id;
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(at) + 1);
  }
}

// Symbols 0..3; every pair of ids below 12 merges to another id with a random rank, some ranks equal.
MergeTable random_table(std::mt19937& random) {
  MergeTable table(144);
  for (int32_t left = 0; left < 12; ++left)
    for (int32_t right = 0; right < 12; ++right)
      if (random() % 3 != 0)
        table.add(left, right, {static_cast<int32_t>(random() % 40), static_cast<int32_t>(random() % 20)});
  return table;
}

TEST(MergeTable, FindsWhatWasAddedAndKeepsTheFirst) {
  MergeTable table(3);
  EXPECT_TRUE(table.add(1, 2, {5, 7}));
  EXPECT_TRUE(table.add(2, 1, {6, 8}));
  EXPECT_FALSE(table.add(1, 2, {9, 9}));
  ASSERT_NE(table.find(1, 2), nullptr);
  EXPECT_EQ(table.find(1, 2)->id, 7);
  EXPECT_EQ(table.find(2, 1)->rank, 6);
  EXPECT_EQ(table.find(2, 2), nullptr);
  EXPECT_EQ(table.size(), 2U);
  EXPECT_EQ(MergeTable().find(0, 0), nullptr);
}

TEST(Merger, FollowsTheDefinition) {
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    const MergeTable table = random_table(random);
    Merger merger(table);
    for (const size_t length : {0, 1, 2, 3, 10, 24, 25, 60, 200}) {
      std::vector<int32_t> symbols(length);
      for (int32_t& symbol : symbols) symbol = static_cast<int32_t>(random() % 4);
      const std::vector<int32_t> expected = merged_by_definition(table, symbols);
      merger.run(symbols);
      ASSERT_EQ(symbols, expected) << "round " << round << ", length " << length;
    }
  }
}

// Negative control: with two ranks exchanged the same comparison must fail.
TEST(Merger, DefinitionNoticesAnExchangedRank) {
  MergeTable table(2), exchanged(2);
  table.add(0, 1, {0, 3});
  table.add(1, 2, {1, 4});
  exchanged.add(0, 1, {1, 3});
  exchanged.add(1, 2, {0, 4});
  std::vector<int32_t> symbols = {0, 1, 2};
  Merger(exchanged).run(symbols);
  EXPECT_NE(symbols, merged_by_definition(table, {0, 1, 2}));
}

TEST(Merger, LongHostileWordsTakeLinearlyManyOperations) {
  const Tokenizer tokenizer(byte_level_spec());
  TokenIndex index = make_token_index(tokenizer.spec());
  const MergeTable table = make_merge_table(tokenizer.spec(), index);
  constexpr size_t kLength = 1 << 20;
  std::mt19937 random(2);
  for (const std::string_view letters : {"a", "hello", "hel", "z"}) {
    std::vector<int32_t> symbols(kLength);
    for (int32_t& symbol : symbols) symbol = kFirstByte + static_cast<uint8_t>(letters[random() % letters.size()]);
    Merger merger(table);
    merger.run(symbols);
    EXPECT_LE(merger.operations(), kOperationsPerSymbol * static_cast<int64_t>(kLength)) << letters;
  }
}

TEST(MergeTable, LeavesOutMergesToTokensThatTextMustNotReach) {
  TokenizerSpec spec = byte_level_spec();
  spec.merges = {{"h", "e"}};
  const auto he = static_cast<size_t>(kFirstMerge);
  ASSERT_EQ(spec.tokens[he], "he");
  for (const TokenType type : {TokenType::kControl, TokenType::kUnknown, TokenType::kUnused}) {
    spec.types[he] = type;
    EXPECT_EQ(Tokenizer(spec).encode("he").size(), 2U) << static_cast<int>(type);
  }
  spec.types[he] = TokenType::kUserDefined;
  EXPECT_EQ(Tokenizer(spec).encode("he").size(), 1U);
}

TEST(MergesFromScores, OrderedByScoreThenLongestLeft) {
  using Pairs = std::vector<std::pair<std::string, std::string>>;
  TokenizerSpec spec = sentence_piece_spec();
  for (size_t id = 0; id < spec.tokens.size(); ++id)
    if (spec.tokens[id] == "aa") spec.scores[id] = 5;
  add_token(spec, "aaa", TokenType::kNormal, 4);
  const Pairs merges = merges_from_scores(spec);
  ASSERT_GE(merges.size(), 3U);
  EXPECT_EQ(merges[0], (std::pair<std::string, std::string>("a", "a")));
  EXPECT_EQ(merges[1], (std::pair<std::string, std::string>("aa", "a")));
  EXPECT_EQ(merges[2], (std::pair<std::string, std::string>("a", "aa")));
}

}  // namespace
}  // namespace brick::text::test
