// Small tables for a terminal or a log: columns aligned by what a terminal shows, numbers already formatted
// by the caller.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace brick::report {

enum class Align { kLeft, kRight };

struct Column {
  std::string header;
  Align align = Align::kLeft;
};

class Table {
 public:
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

  // One cell a column; a row may be shorter, the rest is then empty. Control characters become spaces, so
  // that a name from a file can neither break the table nor steer the terminal.
  void add_row(std::vector<std::string> cells);

  // Header, a rule, then the rows, two spaces between columns, no space at the end of a line, a newline at
  // the end of each:
  //   client     loss
  //   ---------  ----
  //   clinic     1.94
  // With `most` > 0 the first column's cells are cut, ending in "..", so that lines have at most so many columns, but
  // for 8 that it keeps.
  std::string text(int most = 0) const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// The text with a space for each control character, those of UTF-8's C1 too: one line that steers no terminal.
std::string without_controls(std::string_view text);

// Columns of a terminal that UTF-8 text takes: 0 for combining marks and other characters without width, 2
// for East Asian wide characters and emoji, 1 for the rest and for each byte that is not UTF-8. After
// Unicode's EastAsianWidth by blocks, as terminals' wcwidth() has it; sequences joined to one picture count
// as separate.
int display_width(std::string_view text);

}  // namespace brick::report
