#include "brick/base/error.h"

#include <gtest/gtest.h>

#include "brick/base/log.h"

namespace brick {
namespace {

TEST(Error, CarriesItsCodeAndItsFormattedMessage) {
  try {
    fail(ErrorCode::kMismatch, "tensor '{}': {} rows, expected {}", "blk.0", 3, 4);
    FAIL() << "fail() returned";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kMismatch);
    EXPECT_STREQ(error.what(), "tensor 'blk.0': 3 rows, expected 4");
  }
}

TEST(Assertion, ThrowsALogicErrorThatNamesTheExpressionAndThePlace) {
  EXPECT_NO_THROW(BRICK_ASSERT(1 + 1 == 2));
  try {
    BRICK_ASSERT(1 + 1 == 3);
    FAIL() << "the assertion passed";
  } catch (const std::logic_error& error) {
    const std::string message = error.what();
    EXPECT_NE(message.find("1 + 1 == 3"), std::string::npos) << message;
    EXPECT_NE(message.find("error_test.cc:"), std::string::npos) << message;
  }
}

TEST(ProgressSink, WarningsAreNotesUnlessTheSinkSaysOtherwise) {
  struct Sink : ProgressSink {
    void note(const std::string& line) override { heard += line; }
    std::string heard;
  } sink;
  sink.warn("disk is slow");
  EXPECT_EQ(sink.heard, "disk is slow");
  silent_sink().progress("calibrate", 1, 2, "tokens", "");
  EXPECT_EQ(&silent_sink(), &silent_sink());
}

}  // namespace
}  // namespace brick
