#include "brick/io/packed_file.h"

#include <gtest/gtest.h>

#include <map>

#include "io/temp_files.h"

namespace brick::io {
namespace {

using test::expect_error;
using test::spill;

// "question\tlabel\n" through `gzip -n`, `bzip2` and `xz`, and a tar of a/one.csv ("1\n") and a/two.csv ("2\n") through
// xz.
const std::string kGzip(
    "\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\x2b\x2c\x4d\x2d\x2e\xc9\xcc\xcf\xe3\xcc\x49\x4c\x4a\xcd\xe1\x02\x00\x0c"
    "\x38\x50\xdb\x0f\x00\x00\x00",
    35);
const std::string kBzip2(
    "\x42\x5a\x68\x39\x31\x41\x59\x26\x53\x59\x6b\x3b\xcf\x77\x00\x00\x05\xc1\x80\x00\x30\x32\x25\xae\x00\x20\x00\x22"
    "\x08\xc9\xe8\xd3\x50\x80\x68\x00\x06\x9a\x4a\xc1\x26\x52\xf8\xbb\x92\x29\xc2\x84\x83\x59\xde\x7b\xb8",
    53);
const std::string kXz(
    "\xfd\x37\x7a\x58\x5a\x00\x00\x04\xe6\xd6\xb4\x46\x02\x00\x21\x01\x16\x00\x00\x00\x74\x2f\xe5\xa3\x01\x00\x0e\x71"
    "\x75\x65\x73\x74\x69\x6f\x6e\x09\x6c\x61\x62\x65\x6c\x0a\x00\x00\x89\xc2\x58\x21\x9d\xc2\x4e\xa9\x00\x01\x27\x0f"
    "\xdf\x1a\xfc\x6a\x1f\xb6\xf3\x7d\x01\x00\x00\x00\x00\x04\x59\x5a",
    72);
const std::string kTarXz(
    "\xfd\x37\x7a\x58\x5a\x00\x00\x04\xe6\xd6\xb4\x46\x02\x00\x21\x01\x16\x00\x00\x00\x74\x2f\xe5\xa3\xe0\x27\xff\x00"
    "\x7a\x5d\x00\x30\x8b\xbc\x1b\xa7\x8c\x34\x44\xc1\xba\x93\x15\xe8\xfc\xe3\xc0\x92\x65\x66\x2b\x00\xa4\x93\x94\xc2"
    "\x1e\x44\xa9\x6b\xcf\x2e\xd2\x28\xbc\x74\xf9\xf2\xfe\x87\x1e\xf4\x3a\x4e\x12\x9f\xd8\x7b\x31\x3f\xda\xa8\x1a\xe5"
    "\x6b\x0a\x8e\x31\xc5\xe1\x38\xee\x0b\xc0\xe1\xd1\xff\xa9\xd3\x19\x44\x92\x30\xc9\x87\xbf\x43\x3c\xb5\x5a\x10\xcf"
    "\x63\x45\xdf\x40\x09\x96\xb8\xe9\x99\xc0\x29\x53\x6c\x91\xe0\x74\xab\xb1\x51\x46\x37\xdd\xd8\x9e\x3a\x93\x9f\x23"
    "\x7d\xeb\x34\x16\x0c\xa2\x9d\x72\x97\x1e\x13\x00\x00\x00\x00\x00\xe1\xb7\x6f\x9c\x58\x32\x56\xd7\x00\x01\x96\x01"
    "\x80\x50\x00\x00\xb8\x90\xef\xb4\xb1\xc4\x67\xfb\x02\x00\x00\x00\x00\x04\x59\x5a",
    188);

const std::string kText = "question\tlabel\n";

TEST(PackedFile, UnpacksByTheName) {
  const TempFolder folder;
  for (const auto& [name, bytes] :
       std::map<std::string, std::string>{{"t.gz", kGzip}, {"t.bz2", kBzip2}, {"t.xz", kXz}, {"t.tsv", kText}}) {
    spill(folder / name, bytes);
    EXPECT_EQ(read_packed_text(folder / name), kText) << name;
  }
}

TEST(PackedFile, MembersOfAnArchiveInItsOrder) {
  const TempFolder folder;
  spill(folder / "t.tar.xz", kTarXz);
  std::vector<std::string> seen;
  for_each_member(folder / "t.tar.xz", [&](std::string_view name, std::string_view bytes) {
    seen.push_back(std::string(name) + "=" + std::string(bytes));
  });
  EXPECT_EQ(seen, (std::vector<std::string>{"a/one.csv=1\n", "a/two.csv=2\n"}));
}

TEST(PackedFile, RefusesWhatIsNotPackedAsItsNameSays) {
  const TempFolder folder;
  spill(folder / "plain.gz", kText);
  spill(folder / "empty.xz", "");
  expect_error(ErrorCode::kCorrupt, "plain.gz: cannot be unpacked", [&] { read_packed_text(folder / "plain.gz"); });
  expect_error(ErrorCode::kCorrupt, "empty.xz: cannot be unpacked", [&] { read_packed_text(folder / "empty.xz"); });
  expect_error(ErrorCode::kNotFound, "absent.gz", [&] { read_packed_text(folder / "absent.gz"); });
}

TEST(PackedFile, DamageIsAnErrorNotAnotherText) {
  const TempFolder folder;
  for (const auto& [name, bytes] :
       std::map<std::string, std::string>{{"t.gz", kGzip}, {"t.bz2", kBzip2}, {"t.xz", kXz}})
    for (size_t cut = 1; cut < bytes.size(); ++cut) {
      spill(folder / name, bytes.substr(0, cut));
      std::string got;
      if (test::survives([&] { got = read_packed_text(folder / name); })) {
        EXPECT_EQ(got, kText) << name << " cut at " << cut;
      }
    }
  for (size_t cut = 1; cut < kTarXz.size(); ++cut) {
    spill(folder / "t.tar.xz", kTarXz.substr(0, cut));
    test::survives([&] { for_each_member(folder / "t.tar.xz", [](std::string_view, std::string_view) {}); });
  }
}

}  // namespace
}  // namespace brick::io
