#include "brick/data/partition.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>

#include "brick/base/error.h"

namespace brick::data {
namespace {

std::vector<Record> categorised(int64_t categories, int64_t each) {
  std::vector<Record> records;
  for (int64_t i = 0; i < categories * each; ++i)
    records.push_back({{{"user", "q"}, {"assistant", "a"}}, "category " + std::to_string(i % categories)});
  return records;
}

void expect_covers(const Partition& partition, int64_t records) {
  std::vector<int> seen(records);
  for (const auto& indices : partition) {
    EXPECT_TRUE(std::is_sorted(indices.begin(), indices.end()));
    for (const int64_t index : indices) ++seen.at(index);
  }
  EXPECT_TRUE(std::all_of(seen.begin(), seen.end(), [](int count) { return count == 1; }));
}

// Mean over clients of the share of a client's most frequent category.
double skew(const Partition& partition, const std::vector<Record>& records) {
  double sum = 0;
  for (const auto& indices : partition) {
    std::map<std::string, int64_t> counts;
    int64_t most = 0;
    for (const int64_t index : indices) most = std::max(most, ++counts[records[index].category]);
    sum += static_cast<double>(most) / static_cast<double>(indices.size());
  }
  return sum / static_cast<double>(partition.size());
}

TEST(IidPartition, DealsEveryRecordEvenly) {
  const Partition partition = iid_partition(103, 10, 1);
  ASSERT_EQ(partition.size(), 10U);
  expect_covers(partition, 103);
  for (const auto& indices : partition) EXPECT_TRUE(indices.size() == 10 || indices.size() == 11);
  EXPECT_EQ(iid_partition(103, 10, 1), partition);
  EXPECT_NE(iid_partition(103, 10, 2), partition);
}

TEST(DirichletPartition, KeepsTheMinimum) {
  const std::vector<Record> records = categorised(8, 250);
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const Partition partition = dirichlet_partition(records, 10, 0.5, seed);
    ASSERT_EQ(partition.size(), 10U);
    expect_covers(partition, 2000);
    for (const auto& indices : partition) EXPECT_GE(indices.size(), 40U);
  }
  EXPECT_EQ(dirichlet_partition(records, 10, 0.5, 3), dirichlet_partition(records, 10, 0.5, 3));
  EXPECT_NE(dirichlet_partition(records, 10, 0.5, 3), dirichlet_partition(records, 10, 0.5, 4));
}

TEST(DirichletPartition, SmallerAlphaSkewsMore) {
  const std::vector<Record> records = categorised(8, 250);
  const double strong = skew(dirichlet_partition(records, 4, 0.05, 1, 1), records);
  const double middle = skew(dirichlet_partition(records, 4, 0.5, 1, 1), records);
  const double none = skew(dirichlet_partition(records, 4, 1e6, 1, 1), records);
  EXPECT_GT(strong, middle);
  EXPECT_GT(middle, none);
  EXPECT_NEAR(none, 0.125, 0.01);
  EXPECT_LT(skew(iid_partition(2000, 4, 1), records), 0.2);
}

TEST(DirichletPartition, SurvivesExtremeAlphas) {
  const std::vector<Record> records = categorised(3, 100);
  expect_covers(dirichlet_partition(records, 3, 1e-9, 1, 0), 300);
  expect_covers(dirichlet_partition(records, 3, 1e12, 1, 50), 300);
  expect_covers(dirichlet_partition(records, 1, 0.5, 1), 300);
}

TEST(Partition, RefusesWhatCannotBe) {
  const std::vector<Record> records = categorised(2, 50);
  EXPECT_THROW(iid_partition(3, 4, 0), Error);
  EXPECT_THROW(iid_partition(3, 0, 0), Error);
  EXPECT_THROW(dirichlet_partition(records, 0), Error);
  EXPECT_THROW(dirichlet_partition(records, 2, 0.0), Error);
  EXPECT_THROW(dirichlet_partition(records, 2, -1.0), Error);
  EXPECT_THROW(dirichlet_partition(records, 2, 0.5, 0, -1), Error);
  try {
    dirichlet_partition(records, 3, 0.5, 0, 40);
    FAIL();
  } catch (const Error& error) {
    const std::string message = error.what();
    for (const char* part : {"100 records", "2 categories", "3 clients", "40 each"})
      EXPECT_NE(message.find(part), std::string::npos) << message;
  }
}

}  // namespace
}  // namespace brick::data
