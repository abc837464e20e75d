#include "brick/base/checked.h"

#include <gtest/gtest.h>

#include <limits>

namespace brick {
namespace {

constexpr int64_t kMax = std::numeric_limits<int64_t>::max();

ErrorCode code_of(int64_t (*operation)(int64_t, int64_t, const char*), int64_t a, int64_t b) {
  try {
    operation(a, b, "embedding");
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("embedding"), std::string::npos) << error.what();
    return error.code();
  }
  ADD_FAILURE() << a << " and " << b << " gave no error";
  return ErrorCode::kIo;
}

TEST(Checked, MultipliesUpToTheLargestInteger) {
  EXPECT_EQ(checked_mul(0, kMax, "x"), 0);
  EXPECT_EQ(checked_mul(kMax, 1, "x"), kMax);
  EXPECT_EQ(checked_mul(int64_t{1} << 31, int64_t{1} << 31, "x"), int64_t{1} << 62);
}

TEST(Checked, RejectsProductsThatOverflowOrAreNegative) {
  EXPECT_EQ(code_of(checked_mul, int64_t{1} << 32, int64_t{1} << 31), ErrorCode::kCorrupt);
  EXPECT_EQ(code_of(checked_mul, kMax, 2), ErrorCode::kCorrupt);
  EXPECT_EQ(code_of(checked_mul, -1, 5), ErrorCode::kCorrupt);
  EXPECT_EQ(code_of(checked_mul, -3, -5), ErrorCode::kCorrupt);
}

TEST(Checked, AddsUpToTheLargestInteger) { EXPECT_EQ(checked_add(kMax - 1, 1, "x"), kMax); }

TEST(Checked, RejectsSumsThatOverflowOrAreNegative) {
  EXPECT_EQ(code_of(checked_add, kMax, 1), ErrorCode::kCorrupt);
  EXPECT_EQ(code_of(checked_add, -1, 5), ErrorCode::kCorrupt);
  EXPECT_EQ(code_of(checked_add, 5, -1), ErrorCode::kCorrupt);
}

}  // namespace
}  // namespace brick
