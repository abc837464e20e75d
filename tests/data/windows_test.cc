#include "brick/data/windows.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <string>

#include "brick/base/error.h"

namespace brick::data {
namespace {

std::vector<int32_t> counting(int32_t count) {
  std::vector<int32_t> ids(count);
  std::iota(ids.begin(), ids.end(), 0);
  return ids;
}

std::vector<int64_t> starts(const std::vector<std::span<const int32_t>>& windows) {
  std::vector<int64_t> first;
  for (const auto& window : windows) first.push_back(window.front());
  return first;
}

std::string message_of(const auto& call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidInput);
    return error.what();
  }
  return "no error";
}

TEST(ConsecutiveWindows, DropTheIncompleteTail) {
  const std::vector<int32_t> ids = counting(23);
  const auto windows = consecutive_windows(ids, 5);
  EXPECT_EQ(starts(windows), (std::vector<int64_t>{0, 5, 10, 15}));
  for (const auto& window : windows) EXPECT_EQ(window.size(), 5U);
  EXPECT_EQ(windows[3].back(), 19);
  EXPECT_EQ(consecutive_windows(counting(25), 5).size(), 5U);
}

TEST(ConsecutiveWindows, TakeTheFirstWhenLimited) {
  const std::vector<int32_t> ids = counting(23);
  EXPECT_EQ(starts(consecutive_windows(ids, 5, 2)), (std::vector<int64_t>{0, 5}));
  EXPECT_EQ(consecutive_windows(ids, 5, 100).size(), 4U);
}

TEST(ConsecutiveWindows, SayWhatIsMissing) {
  const std::string message = message_of([] { consecutive_windows(counting(7), 8); });
  for (const char* part : {"7 tokens", "window of 8", "--length"})
    EXPECT_NE(message.find(part), std::string::npos) << message;
  EXPECT_NE(message_of([] { consecutive_windows({}, 8); }), "no error");
  EXPECT_NE(message_of([] { consecutive_windows(counting(7), 1); }), "no error");
  EXPECT_NE(message_of([] { consecutive_windows(counting(7), 2, -1); }), "no error");
}

TEST(CalibrationWindows, WithoutSeedAreTheFirst) {
  const std::vector<int32_t> ids = counting(40);
  EXPECT_EQ(starts(calibration_windows(ids, 8, 3, std::nullopt)), (std::vector<int64_t>{0, 8, 16}));
  EXPECT_EQ(calibration_windows(ids, 8, 5, std::nullopt).size(), 5U);
}

TEST(CalibrationWindows, WithSeedShareNoToken) {
  for (const int32_t tokens : {32, 33, 50, 400})
    for (uint64_t seed = 0; seed < 50; ++seed) {
      const std::vector<int32_t> ids = counting(tokens);
      const auto windows = calibration_windows(ids, 8, 4, seed);
      ASSERT_EQ(windows.size(), 4U);
      int32_t next = 0;
      for (const auto& window : windows) {
        EXPECT_GE(window.front(), next);
        ASSERT_EQ(window.size(), 8U);
        next = window.back() + 1;
      }
      EXPECT_LE(next, tokens);
    }
}

TEST(CalibrationWindows, DependOnTheSeed) {
  const std::vector<int32_t> ids = counting(1000);
  EXPECT_EQ(starts(calibration_windows(ids, 8, 4, 1)), starts(calibration_windows(ids, 8, 4, 1)));
  EXPECT_NE(starts(calibration_windows(ids, 8, 4, 1)), starts(calibration_windows(ids, 8, 4, 2)));
  EXPECT_NE(starts(calibration_windows(ids, 8, 4, 0)), starts(calibration_windows(ids, 8, 4, std::nullopt)));
}

TEST(CalibrationWindows, EveryChoiceIsEquallyLikely) {
  // Two windows of 2 among 6 tokens: 01|23, 01|34, 01|45, 12|34, 12|45, 23|45.
  constexpr int kDraws = 6000;
  const std::vector<int32_t> ids = counting(6);
  std::map<std::vector<int64_t>, int> counts;
  for (uint64_t seed = 0; seed < kDraws; ++seed) ++counts[starts(calibration_windows(ids, 2, 2, seed))];
  EXPECT_EQ(counts.size(), 6U);
  for (const auto& [choice, count] : counts) EXPECT_NEAR(count, 1000, 150);  // five standard deviations
}

TEST(CalibrationWindows, SayWhatIsMissing) {
  for (const std::optional<uint64_t> seed : {std::optional<uint64_t>{}, std::optional<uint64_t>{3}}) {
    const std::vector<int32_t> ids = counting(31);
    const std::string message = message_of([&] { calibration_windows(ids, 8, 4, seed); });
    for (const char* part : {"31 tokens", "4 samples of 8", "need 32", "--samples to 3", "--length"})
      EXPECT_NE(message.find(part), std::string::npos) << message;
    EXPECT_EQ(calibration_windows(counting(32), 8, 4, seed).size(), 4U);
    const std::string none = message_of([&] { calibration_windows(counting(5), 8, 4, seed); });
    EXPECT_EQ(none.find("--samples"), std::string::npos) << none;
  }
  EXPECT_NE(message_of([] { calibration_windows(counting(9), 0, 1, 0); }), "no error");
  EXPECT_NE(message_of([] { calibration_windows(counting(9), 1, 0, 0); }), "no error");
  EXPECT_THROW(calibration_windows(counting(9), int64_t{1} << 62, 4, 0), Error);
}

}  // namespace
}  // namespace brick::data
