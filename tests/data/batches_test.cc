#include "brick/data/batches.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "brick/base/error.h"
#include "brick/base/rng.h"

namespace brick::data {
namespace {

using Plan = std::vector<std::vector<int64_t>>;

// Log-normal with databricks-dolly-15k's median of 100 and 90th percentile of 351 SmolLM2 tokens, cut at 512.
std::vector<int64_t> dolly_like_lengths(int64_t count) {
  Rng rng(7);
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < count; ++i)
    lengths.push_back(std::clamp<int64_t>(std::llround(100 * std::exp(0.98 * rng.normal())), 12, 512));
  return lengths;
}

int64_t tokens_of(const std::vector<int64_t>& batch, const std::vector<int64_t>& lengths) {
  int64_t tokens = 0;
  for (const int64_t record : batch) tokens += lengths[record];
  return tokens;
}

std::vector<int64_t> flattened(const Plan& plan) {
  std::vector<int64_t> records;
  for (const auto& batch : plan) records.insert(records.end(), batch.begin(), batch.end());
  return records;
}

bool has_each_once(const Plan& plan, size_t count) {
  std::vector<int64_t> records = flattened(plan), all(count);
  std::sort(records.begin(), records.end());
  std::iota(all.begin(), all.end(), int64_t{0});
  return records == all;
}

bool keeps_limit(const Plan& plan, const std::vector<int64_t>& lengths, int64_t limit) {
  return std::all_of(plan.begin(), plan.end(), [&](const auto& batch) {
    return !batch.empty() && (batch.size() == 1 || tokens_of(batch, lengths) <= limit);
  });
}

TEST(PlanEpoch, HasEveryRecordOnceWithinTheLimit) {
  Rng rng(3);
  for (const int64_t limit : {1, 7, 100, 513, 1024, 5000, 1 << 30})
    for (const bool do_shuffle : {false, true})
      for (const int64_t count : {0, 1, 2, 50, 700}) {
        std::vector<int64_t> lengths(count);
        for (int64_t& length : lengths) length = 1 + static_cast<int64_t>(rng.below(900));
        const Plan plan = plan_epoch(lengths, {.batch_tokens = limit, .shuffle = do_shuffle, .seed = 5}, 2);
        EXPECT_TRUE(has_each_once(plan, lengths.size())) << limit << " " << count;
        EXPECT_TRUE(keeps_limit(plan, lengths, limit)) << limit << " " << count;
      }
}

TEST(PlanEpoch, ChecksAboveSeeABrokenPlan) {  // negative control
  const std::vector<int64_t> lengths{5, 5, 5};
  EXPECT_FALSE(has_each_once({{0, 1}, {1}}, 3));
  EXPECT_FALSE(has_each_once({{0, 1}}, 3));
  EXPECT_FALSE(keeps_limit({{0, 1}, {2}}, lengths, 9));
  EXPECT_FALSE(keeps_limit({{}, {0}}, lengths, 9));
}

TEST(PlanEpoch, IsFixedBySeedAndEpoch) {
  const std::vector<int64_t> lengths = dolly_like_lengths(300);
  for (const int64_t batch_records : {0, 4}) {
    const auto plan = [&](uint64_t seed, int64_t epoch) {
      return plan_epoch(lengths, {.batch_records = batch_records, .seed = seed}, epoch);
    };
    EXPECT_EQ(plan(1, 0), plan(1, 0));
    EXPECT_NE(plan(1, 0), plan(2, 0));
    EXPECT_NE(plan(1, 0), plan(1, 1));
    EXPECT_NE(plan(1, 1), plan(2, 0));
  }
}

TEST(PlanEpoch, FillsBatches) {
  const std::vector<int64_t> lengths = dolly_like_lengths(1500);
  for (const int64_t limit : {1024, 2048, 4096}) {
    const Plan plan = plan_epoch(lengths, {.batch_tokens = limit, .seed = 1}, 0);
    const double room = static_cast<double>(static_cast<int64_t>(plan.size()) * limit);
    const double used = static_cast<double>(std::accumulate(lengths.begin(), lengths.end(), int64_t{0})) / room;
    RecordProperty("used_" + std::to_string(limit), std::to_string(used));
    EXPECT_GT(used, 0.95) << limit;
  }
}

TEST(PlanEpoch, PackingBeatsTakingRecordsAsTheyCome) {  // else the windows would be for nothing
  const std::vector<int64_t> lengths = dolly_like_lengths(1500);
  const Plan packed = plan_epoch(lengths, {.seed = 1}, 0);
  const Plan in_order = plan_epoch(lengths, {.shuffle = false}, 0);
  EXPECT_LT(static_cast<double>(packed.size()), 0.92 * static_cast<double>(in_order.size()));
}

TEST(PlanEpoch, MixesRecordsOfTheWholeEpoch) {
  const std::vector<int64_t> lengths(1000, 100);
  const Plan plan = plan_epoch(lengths, {.seed = 1}, 0);
  const std::vector<int64_t> records = flattened(plan);
  const auto middle = records.begin() + 500;
  const auto low_half = std::count_if(records.begin(), middle, [](int64_t record) { return record < 500; });
  EXPECT_NEAR(static_cast<double>(low_half), 250, 50);  // six standard deviations
}

TEST(PlanEpoch, LongAndShortBatchesAreSpreadInAWindow) {
  // Packing leaves batches of long records first; after the second shuffle the first batch is not always so.
  const std::vector<int64_t> lengths = dolly_like_lengths(400);
  int first_is_longest = 0;
  for (int64_t epoch = 0; epoch < 20; ++epoch) {
    const Plan plan = plan_epoch(lengths, {}, epoch);
    const auto longest = [&](const auto& batch) {
      int64_t length = 0;
      for (const int64_t record : batch) length = std::max(length, lengths[record]);
      return length;
    };
    first_is_longest += longest(plan[0]) >= longest(plan[1]);
  }
  EXPECT_LT(first_is_longest, 20);
}

TEST(PlanEpoch, RecordLongerThanABatchIsAlone) {
  const std::vector<int64_t> lengths{10, 5000, 10, 10, 6000, 10};
  for (const bool do_shuffle : {false, true}) {
    const Plan plan = plan_epoch(lengths, {.batch_tokens = 100, .shuffle = do_shuffle}, 0);
    EXPECT_TRUE(has_each_once(plan, lengths.size()));
    EXPECT_TRUE(keeps_limit(plan, lengths, 100));
  }
}

TEST(PlanEpoch, WithoutShuffleKeepsTheOrder) {
  const std::vector<int64_t> lengths{4, 4, 4, 9, 1, 1};
  EXPECT_EQ(plan_epoch(lengths, {.batch_tokens = 10, .shuffle = false, .seed = 9}, 3),
            (Plan{{0, 1}, {2}, {3, 4}, {5}}));
  EXPECT_EQ(plan_epoch(lengths, {.batch_records = 4, .shuffle = false}, 0), (Plan{{0, 1, 2, 3}, {4, 5}}));
}

TEST(PlanEpoch, CountsRecordsWhenAsked) {
  const std::vector<int64_t> lengths = dolly_like_lengths(103);
  const Plan plan = plan_epoch(lengths, {.batch_tokens = 1, .batch_records = 10}, 0);
  ASSERT_EQ(plan.size(), 11U);
  for (size_t i = 0; i < 10; ++i) EXPECT_EQ(plan[i].size(), 10U);
  EXPECT_EQ(plan[10].size(), 3U);
  EXPECT_TRUE(has_each_once(plan, lengths.size()));
  constexpr int64_t kHuge = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(plan_epoch(lengths, {.batch_records = kHuge}, 0).size(), 1U);
  EXPECT_EQ(plan_epoch(lengths, {.batch_tokens = kHuge}, 0).size(), 1U);
}

TEST(PlanEpoch, RefusesBadOptions) {
  const std::vector<int64_t> lengths{1};
  EXPECT_THROW(plan_epoch(lengths, {.batch_tokens = 0}, 0), Error);
  EXPECT_THROW(plan_epoch(lengths, {.batch_records = -1}, 0), Error);
}

TEST(SplitBatch, HasEveryRecordOnceWithinTheLimit) {
  const std::vector<int64_t> lengths{40, 30, 90, 7, 300, 11};
  const std::vector<int64_t> batch{4, 0, 1, 3, 5};  // not record 2
  EXPECT_EQ(split_batch(batch, lengths, 1000), (Plan{{4, 0, 1, 5, 3}}));
  EXPECT_EQ(split_batch(batch, lengths, 60), (Plan{{4}, {0, 5, 3}, {1}}));
}

TEST(MakeBatch, LaysSequencesEndToEnd) {
  const std::vector<TokenSequence> sequences{{{1, 2, 3}, {0, 0, 1}}, {{4, 5}, {0, 1}}, {{6, 7, 8, 9}, {0, 1, 1, 0}}};
  // What is reused leaves nothing of its own.
  const Batch batch = make_batch(sequences, std::vector<int64_t>{2, 0}, make_batch(sequences, std::vector<int64_t>{1}));
  EXPECT_EQ(batch.ids, (std::vector<int32_t>{6, 7, 8, 9, 1, 2, 3}));
  EXPECT_EQ(batch.supervised, (std::vector<uint8_t>{0, 1, 1, 0, 0, 0, 1}));
  EXPECT_EQ(batch.offsets, (std::vector<int64_t>{0, 4, 7}));
  EXPECT_EQ(batch.sequence, (std::vector<int64_t>{2, 0}));
  EXPECT_EQ(batch.records(), 2);
  EXPECT_EQ(batch.tokens(), 7);
}

TEST(MakeBatch, OfNothingIsEmpty) {
  const Batch batch = make_batch({}, {});
  EXPECT_EQ(batch.tokens(), 0);
  EXPECT_EQ(batch.offsets, (std::vector<int64_t>{0}));
  EXPECT_THROW(make_batch({}, std::vector<int64_t>{0}), std::logic_error);
}

}  // namespace
}  // namespace brick::data
