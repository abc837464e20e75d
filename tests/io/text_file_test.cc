#include "brick/io/text_file.h"

#include <sys/stat.h>

#include <thread>

#include "io/temp_files.h"

namespace brick::io {
namespace {

using Lines = std::vector<std::pair<int64_t, std::string>>;

Lines lines_of(std::string_view text) {
  Lines all;
  for_each_line_in(text, [&](int64_t number, std::string_view line) { all.emplace_back(number, line); });
  const TempFolder folder;
  test::spill(folder / "f", text);
  EXPECT_EQ(read_text(folder / "f"), text);
  return all;
}

TEST(TextFile, SplitsLines) {
  EXPECT_EQ(lines_of(""), Lines{});
  EXPECT_EQ(lines_of("\n"), (Lines{{1, ""}}));
  EXPECT_EQ(lines_of("a"), (Lines{{1, "a"}}));
  EXPECT_EQ(lines_of("a\nb\n"), (Lines{{1, "a"}, {2, "b"}}));
  EXPECT_EQ(lines_of("a\r\n\r\nb\r"), (Lines{{1, "a"}, {2, ""}, {3, "b"}}));
  EXPECT_EQ(lines_of("\xEF\xBB\xBF{}\n\xEF\xBB\xBF"), (Lines{{1, "{}"}, {2, "\xEF\xBB\xBF"}}));
}

TEST(TextFile, LinesLongerThanTheBuffer) {
  const std::string longest(size_t{5} << 19, 'x'), other((size_t{1} << 20) - 1, 'y');
  EXPECT_EQ(lines_of(longest + "\n" + other + "\n\n" + longest),
            (Lines{{1, longest}, {2, other}, {3, ""}, {4, longest}}));
}

TEST(TextFile, ReadsAPipe) {
  const TempFolder folder;
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  std::thread writer([&] { test::spill(folder / "pipe", "through a pipe"); });
  EXPECT_EQ(read_text(folder / "pipe"), "through a pipe");
  writer.join();
}

TEST(TextFile, NamesTheFileThatItCannotRead) {
  const TempFolder folder;
  test::expect_error(ErrorCode::kNotFound, "gone", [&] { read_text(folder / "gone"); });
  test::expect_error(ErrorCode::kInvalidInput, "is a folder", [&] { read_text(folder.path()); });
}

}  // namespace
}  // namespace brick::io
