#include "brick/io/provenance.h"

#include <cstdio>
#include <limits>

#include "brick/io/json_file.h"
#include "io/temp_files.h"

namespace brick::io {
namespace {

using nlohmann::json;
using test::expect_error;

TEST(Provenance, RoundTripsThroughJson) {
  const Provenance made{"0.1.0", std::string(64, 'a'), R"({"rank":8,"tau":"auto"})",
                        std::numeric_limits<uint64_t>::max()};
  const json value = made;
  EXPECT_EQ(value.at("config").at("rank"), 8);
  EXPECT_EQ(parse_json(json_text(value), "t").get<Provenance>(), made);
  EXPECT_EQ(json(Provenance{}).get<Provenance>().config, "{}");
}

TEST(Provenance, NamesTheKeyThatIsWrong) {
  const json good = Provenance{"1", "h", "{}", 1};
  for (const char* key : {"tool_version", "parent_hash", "config", "seed"}) {
    json missing = good, wrong = good;
    missing.erase(key);
    wrong[key] = nullptr;
    expect_error(ErrorCode::kCorrupt, key, [&] { missing.get<Provenance>(); });
    expect_error(ErrorCode::kCorrupt, key, [&] { wrong.get<Provenance>(); });
  }
  json negative = good;
  negative["seed"] = -1;
  expect_error(ErrorCode::kCorrupt, "seed", [&] { negative.get<Provenance>(); });
  expect_error(ErrorCode::kCorrupt, "no JSON object", [] { json::array().get<Provenance>(); });
  expect_error(ErrorCode::kCorrupt, "config", [] { json(Provenance{"1", "h", "{", 1}); });
}

// What a shell command prints, without the newline.
std::string output_of(const std::string& command) {
  std::string text(200, '\0');
  FILE* pipe = ::popen(command.c_str(), "r");
  text.resize(std::fread(text.data(), 1, text.size(), pipe));
  return ::pclose(pipe) == 0 ? text : "";
}

TEST(Provenance, HashesAsTheShellDoes) {
  const TempFolder folder;
  std::filesystem::create_directories(folder / "sub dir/deeper");
  test::spill(folder / "b", std::string(3000000, 'x'));
  test::spill(folder / "sub dir/a", "1");
  test::spill(folder / "sub dir/deeper/empty", "");
  test::spill(folder / "sub-file\nodd", "2");
  EXPECT_EQ(hash_file(folder / "b"), output_of("sha256sum " + (folder / "b").string()).substr(0, 64));
  const std::string all = output_of("cd " + folder.path().string() +
                                    " && find . -type f -printf '%P\\0' | LC_ALL=C sort -z |"
                                    " xargs -0 sha256sum -z | sha256sum");
  EXPECT_EQ(hash_folder(folder.path()), all.substr(0, 64));
  EXPECT_EQ(hash_path(folder.path()), hash_folder(folder.path()));
  EXPECT_EQ(hash_path(folder / "b"), hash_file(folder / "b"));
}

TEST(Provenance, FolderHashSeesNamesAndContents) {
  const TempFolder folder;
  test::spill(folder / "a", "1");
  const std::string before = hash_folder(folder.path());
  test::spill(folder / "a", "2");
  EXPECT_NE(hash_folder(folder.path()), before);
  test::spill(folder / "a", "1");
  EXPECT_EQ(hash_folder(folder.path()), before);
  std::filesystem::rename(folder / "a", folder / "b");
  EXPECT_NE(hash_folder(folder.path()), before);
  expect_error(ErrorCode::kNotFound, "gone", [&] { hash_folder(folder / "gone"); });
  expect_error(ErrorCode::kNotFound, "gone", [&] { hash_path(folder / "gone"); });
}

}  // namespace
}  // namespace brick::io
