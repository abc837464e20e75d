#include "brick/eval/strip.h"

#include <gtest/gtest.h>

namespace brick::eval {
namespace {

TEST(Strip, TakesAwayWhatPythonTakes) {
  EXPECT_EQ(stripped(" \t\r\n\x1F a b\xC2\xA0\xE3\x80\x80 "), "a b");
  EXPECT_EQ(stripped_end("\xE2\x80\x83 a\xE2\x80\x83"), "\xE2\x80\x83 a");
  EXPECT_EQ(stripped("\xC2\xA0\xE2\x80\xA8"), "");
  EXPECT_EQ(stripped("\xE2\x80\x8B"), "\xE2\x80\x8B");  // a zero-width space is none
  EXPECT_EQ(stripped(" \xFF "), "\xFF");
  EXPECT_EQ(stripped(""), "");
}

}  // namespace
}  // namespace brick::eval
