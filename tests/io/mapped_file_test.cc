#include "brick/io/mapped_file.h"

#include <sys/stat.h>

#include "io/temp_files.h"

namespace brick::io {
namespace {

using test::expect_error;

TEST(MappedFile, ShowsTheBytes) {
  const TempFolder folder;
  const std::string text(10000, 'b');
  test::spill(folder / "f", text);
  const auto file = map_file(folder / "f");
  EXPECT_EQ(file->name(), (folder / "f").string());
  ASSERT_EQ(file->bytes().size(), text.size());
  file->drop_pages(file->bytes());
  file->drop_pages(file->bytes().subspan(1, 5));
  file->drop_pages({});
  for (const std::byte b : file->bytes()) ASSERT_EQ(b, std::byte{'b'});
}

TEST(MappedFile, OutlivesTheNameOfTheFile) {
  const TempFolder folder;
  test::spill(folder / "f", "abc");
  const auto file = map_file(folder / "f");
  std::filesystem::remove(folder / "f");
  EXPECT_EQ(file->bytes()[2], std::byte{'c'});
}

TEST(MappedFile, CopiesOfTheFileThatWasMapped) {
  const TempFolder folder;
  test::spill(folder / "f", "abcdef");
  const auto file = map_file(folder / "f");
  const auto copied = [&](const MappedFile& from) {
    std::string out(3, '?');
    from.copy(2, std::as_writable_bytes(std::span(out)));
    return out;
  };
  EXPECT_EQ(copied(*file), "cde");
  test::spill(folder / "g", "ABCDEF");
  std::filesystem::rename(folder / "g", folder / "f");  // another file in its place
  EXPECT_EQ(copied(*file), "cde");
  std::filesystem::remove(folder / "f");
  EXPECT_EQ(copied(*file), "cde");
  EXPECT_EQ(copied(*test::in_memory("xyzuvw")), "zuv");
}

TEST(MappedFile, FromMemory) {
  const auto file = test::in_memory("xyz");
  EXPECT_EQ(file->bytes().size(), 3u);
  EXPECT_EQ(file->name(), "memory");
  file->drop_pages(file->bytes());
  EXPECT_EQ(file->bytes()[0], std::byte{'x'});
}

TEST(MappedFile, RefusesWhatCannotBeMapped) {
  const TempFolder folder;
  expect_error(ErrorCode::kNotFound, "gone: cannot open: No such file", [&] { map_file(folder / "gone"); });
  expect_error(ErrorCode::kInvalidInput, "is a folder", [&] { map_file(folder.path()); });
  test::spill(folder / "empty", "");
  expect_error(ErrorCode::kCorrupt, "empty: is empty", [&] { map_file(folder / "empty"); });
  expect_error(ErrorCode::kNotFound, "Not a directory", [&] { map_file(folder / "empty" / "x"); });
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  expect_error(ErrorCode::kInvalidInput, "pipe or device", [&] { map_file(folder / "pipe"); });
}

}  // namespace
}  // namespace brick::io
