#include "brick/base/rng.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <vector>

namespace brick {
namespace {

using Block = std::array<uint32_t, 4>;

constexpr int kDraws = 200'000;
// Five standard errors of the mean of kDraws values with unit variance; the seeds are fixed, so a pass stays
// one.
const double kMomentTolerance = 5.0 / std::sqrt(kDraws);

// philox4x32-10 vectors of Random123's kat_vectors; counter words are (index, stream), key words the seed.
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox(0, 0, 0), (Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox(~uint64_t{0}, ~uint64_t{0}, ~uint64_t{0}), (Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox(0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3243f6a88),
            (Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Rng, DrawsTheWordsOfItsBlocksInOrder) {
  Rng rng(7, 9);
  for (uint64_t index = 0; index < 3; ++index)
    for (uint32_t word : philox(7, 9, index)) EXPECT_EQ(rng.next_u32(), word);
  EXPECT_EQ(rng.position(), 12u);
  Rng wide(7, 9);
  EXPECT_EQ(wide.next_u64(), philox(7, 9, 0)[0] | uint64_t{philox(7, 9, 0)[1]} << 32);
}

TEST(Rng, ResumesFromAnyPosition) {
  Rng whole(3, 4);
  for (int before = 0; before < 11; ++before) {
    Rng resumed(whole.seed(), whole.stream(), whole.position());
    Rng original = whole;
    EXPECT_EQ(resumed.normal(), original.normal());
    EXPECT_EQ(resumed.next_u32(), original.next_u32());
    EXPECT_EQ(resumed.position(), original.position());
    whole.next_u32();
  }
}

TEST(Rng, UniformHasItsMomentsAndStaysBelowOne) {
  Rng rng(11);
  double sum = 0, squares = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double u = rng.uniform();
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u;
    squares += u * u;
  }
  EXPECT_NEAR(sum / kDraws, 0.5, kMomentTolerance);
  EXPECT_NEAR(squares / kDraws, 1.0 / 3, kMomentTolerance);
}

TEST(Rng, NormalHasItsMoments) {
  Rng rng(12);
  std::array<double, 5> moment{};
  for (int i = 0; i < kDraws; ++i) {
    double power = 1;
    const double z = rng.normal();
    ASSERT_TRUE(std::isfinite(z));
    for (double& m : moment) {
      m += power / kDraws;
      power *= z;
    }
  }
  EXPECT_NEAR(moment[1], 0.0, kMomentTolerance);
  EXPECT_NEAR(moment[2], 1.0, kMomentTolerance * std::sqrt(2.0));   // the variance of z^2 is 2,
  EXPECT_NEAR(moment[3], 0.0, kMomentTolerance * std::sqrt(15.0));  // of z^3 15,
  EXPECT_NEAR(moment[4], 3.0, kMomentTolerance * std::sqrt(96.0));  // of z^4 96
}

TEST(Rng, BelowIsEvenAndInRange) {
  for (uint64_t bound : {1, 2, 3, 7, 10}) {
    Rng rng(13, bound);
    std::vector<int> count(bound);
    for (int i = 0; i < kDraws; ++i) {
      const uint64_t draw = rng.below(bound);
      ASSERT_LT(draw, bound);
      ++count[draw];
    }
    const double expected = static_cast<double>(kDraws) / static_cast<double>(bound);
    for (int n : count) EXPECT_NEAR(n, expected, 5 * std::sqrt(expected));
  }
}

// A plain remainder would put 2/3 of the draws of this bound into its lower half.
TEST(Rng, BelowIsUnbiasedForBoundsNearTheWordSize) {
  const uint64_t bound = uint64_t{3} << 62;
  Rng rng(14);
  int low = 0;
  constexpr int kCount = 20'000;
  for (int i = 0; i < kCount; ++i) low += rng.below(bound) < bound / 2 ? 1 : 0;
  EXPECT_NEAR(low, kCount / 2, 5 * std::sqrt(kCount / 4.0));
}

TEST(Rng, SeedsAndStreamsAreIndependent) {
  for (const auto& [other_seed, other_stream] : {std::pair<uint64_t, uint64_t>{1, 1}, {2, 0}, {0, 1}}) {
    Rng a(1, 0), b(other_seed, other_stream);
    double product = 0;
    int equal = 0;
    for (int i = 0; i < kDraws; ++i) {
      const double x = a.normal(), y = b.normal();
      product += x * y / kDraws;
      equal += x == y ? 1 : 0;
    }
    EXPECT_NEAR(product, 0.0, kMomentTolerance);
    EXPECT_EQ(equal, 0);
  }
}

TEST(Shuffle, IsAPermutationThatTheSeedDetermines) {
  std::vector<int> items(100), again(100);
  for (int i = 0; i < 100; ++i) items[static_cast<size_t>(i)] = again[static_cast<size_t>(i)] = i;
  Rng first(5), second(5);
  shuffle(std::span(items), first);
  shuffle(std::span(again), second);
  EXPECT_EQ(items, again);
  EXPECT_FALSE(std::is_sorted(items.begin(), items.end()));
  std::sort(items.begin(), items.end());
  for (int i = 0; i < 100; ++i) EXPECT_EQ(items[static_cast<size_t>(i)], i);
}

TEST(Shuffle, MakesEveryOrderEquallyLikely) {
  std::array<int, 6> count{};
  Rng rng(6);
  constexpr int kShuffles = 60'000;
  for (int i = 0; i < kShuffles; ++i) {
    std::array<int, 3> items{0, 1, 2};
    shuffle(std::span<int>(items), rng);
    ++count[static_cast<size_t>(items[0] * 2 + (items[1] > items[2] ? 1 : 0))];
  }
  for (int n : count) EXPECT_NEAR(n, kShuffles / 6, 5 * std::sqrt(kShuffles / 6.0));
}

TEST(StreamId, WordsTheirOrderAndTheirNumberMatter) {
  std::set<uint64_t> ids{stream_id({}),     stream_id({0}),    stream_id({0, 0}), stream_id({1, 2}),
                         stream_id({2, 1}), stream_id({3, 0}), stream_id({0, 3})};
  EXPECT_EQ(ids.size(), 7u);
  EXPECT_EQ(stream_id({1, 2}), stream_id({1, 2}));
}

TEST(StreamId, NearbyWordsDoNotCollide) {
  std::set<uint64_t> ids;
  for (uint64_t a = 0; a < 200; ++a)
    for (uint64_t b = 0; b < 200; ++b) ids.insert(stream_id({a, b}));
  EXPECT_EQ(ids.size(), 40'000u);
}

}  // namespace
}  // namespace brick
