#include "brick/report/table.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>

namespace brick::report {
namespace {

TEST(DisplayWidth, CountsWhatATerminalShows) {
  EXPECT_EQ(display_width(""), 0);
  EXPECT_EQ(display_width("loss"), 4);
  EXPECT_EQ(display_width("Zürich ±–—×τ"), 12);
  EXPECT_EQ(display_width("e\u0301"), 1);  // e and a combining acute
  EXPECT_EQ(display_width("診療所"), 6);
  EXPECT_EQ(display_width("병원"), 4);
  EXPECT_EQ(display_width("🧱"), 2);
  EXPECT_EQ(display_width("a\u200Bb"), 2);
}

TEST(DisplayWidth, SurvivesBytesThatAreNotUtf8) {
  EXPECT_EQ(display_width("\xFF\xFE"), 2);
  EXPECT_EQ(display_width("a\xC3"), 2);
  EXPECT_EQ(display_width("\xE8\xA8"), 2);
  EXPECT_EQ(display_width("\x80z"), 2);
}

TEST(Table, AlignsColumns) {
  Table table({{"client", Align::kLeft}, {"loss", Align::kRight}, {"note", Align::kLeft}});
  table.add_row({"clinic", "1.94", "first"});
  table.add_row({"law office", "12.5"});
  EXPECT_EQ(table.text(),
            "client      loss  note\n"
            "----------  ----  -----\n"
            "clinic      1.94  first\n"
            "law office  12.5\n");
}

TEST(Table, AlignsByWidthNotBytes) {
  Table table({{"name"}, {"n", Align::kRight}});
  table.add_row({"Zürich", "1"});
  table.add_row({"診療所", "22"});
  table.add_row({"plain", "3"});
  EXPECT_EQ(table.text(),
            "name     n\n"
            "------  --\n"
            "Zürich   1\n"
            "診療所  22\n"
            "plain    3\n");
}

TEST(Table, WithoutRowsIsItsHeader) { EXPECT_EQ(Table({{"a"}, {"bc"}}).text(), "a  bc\n-  --\n"); }

TEST(Table, ControlCharactersDoNotReachTheTerminal) {
  Table table({{"name"}, {"x"}});
  table.add_row({"a\nb\x1B[31m\t\x7F|\xC2\x9B|", "1"});
  EXPECT_EQ(table.text(),
            "name           x\n"
            "-------------  -\n"
            "a b [31m  | |  1\n");
}

TEST(Table, RefusesARowTooLong) {
  Table table({{"a"}});
  EXPECT_THROW(table.add_row({"1", "2"}), std::logic_error);
}

}  // namespace
}  // namespace brick::report
