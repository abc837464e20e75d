#include "brick/io/atomic_output.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <thread>

#include "io/temp_files.h"

namespace brick::io {
namespace {

namespace fs = std::filesystem;
using test::expect_error;
using Names = std::vector<std::string>;

TEST(AtomicFile, AppearsWhole) {
  const TempFolder folder;
  {
    AtomicFile file(folder / "new/out", false);
    file.write("half");
    EXPECT_FALSE(fs::exists(folder / "new/out"));
    file.write(std::string(1000000, 'x'));
    file.write(" done");
    EXPECT_EQ(file.written(), 1000009u);
    file.commit();
  }
  EXPECT_EQ(test::slurp(folder / "new/out"), "half" + std::string(1000000, 'x') + " done");
  EXPECT_FALSE(fs::exists(folder / "new" / ".out.tmp"));
}

TEST(AtomicFile, WithoutCommitNothingIsLeft) {
  const TempFolder folder;
  { AtomicFile(folder / "out").write("half"); }
  EXPECT_TRUE(folder.names().empty());
}

TEST(AtomicFile, ExistingNeedsForce) {
  const TempFolder folder;
  write_file_atomic(folder / "out", "old", false);
  expect_error(ErrorCode::kExists, "out: exists; pass --force", [&] { AtomicFile(folder / "out"); });
  { AtomicFile(folder / "out", true).write("never committed"); }
  EXPECT_EQ(test::slurp(folder / "out"), "old");
  write_file_atomic(folder / "out", "new", true);
  EXPECT_EQ(test::slurp(folder / "out"), "new");
  EXPECT_EQ(folder.names(), Names{"out"});
}

TEST(AtomicFile, OutputThatAppearsMeanwhileIsKept) {
  const TempFolder folder;
  AtomicFile file(folder / "out");
  file.write("mine");
  test::spill(folder / "out", "theirs");
  expect_error(ErrorCode::kExists, "--force", [&] { file.commit(); });
  EXPECT_EQ(test::slurp(folder / "out"), "theirs");
}

TEST(AtomicFile, ReplacesALinkNotItsTarget) {
  const TempFolder folder;
  test::spill(folder / "target", "old");
  fs::create_symlink("target", folder / "link");
  write_file_atomic(folder / "link", "new", true);
  EXPECT_EQ(test::slurp(folder / "target"), "old");
  EXPECT_EQ(test::slurp(folder / "link"), "new");
  fs::create_symlink("nowhere", folder / "broken");
  write_file_atomic(folder / "broken", "new", true);
  EXPECT_EQ(test::slurp(folder / "broken"), "new");
}

TEST(AtomicFile, RefusesDevicesAndOddNames) {
  expect_error(ErrorCode::kInvalidInput, "pipe or device", [] { AtomicFile("/dev/null", true); });
  for (const char* name : {"", ".", "..", "/", "a/.."})
    expect_error(ErrorCode::kInvalidInput, "is no name", [&] { AtomicFile(name, true); });
}

// Limits the size of files that the process may write, which fails as a full disk does.
class SmallDisk {
 public:
  explicit SmallDisk(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit small{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &small);
  }
  ~SmallDisk() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  void (*handler_)(int);
  rlimit before_{};
};

TEST(AtomicFile, FullDiskLeavesTheOldFile) {
  const TempFolder folder;
  write_file_atomic(folder / "out", "old", false);
  for (const size_t piece : {size_t{1000}, size_t{1} << 20}) {
    const SmallDisk disk(100000);
    expect_error(ErrorCode::kIo, "out: cannot write", [&] {
      AtomicFile file(folder / "out", true);
      const std::string text(piece, 'x');
      for (size_t sum = 0; sum < (size_t{1} << 20); sum += piece) file.write(text);
      file.commit();
    });
  }
  EXPECT_EQ(test::slurp(folder / "out"), "old");
  EXPECT_EQ(folder.names(), Names{"out"});
}

TEST(AtomicFolder, AppearsWhole) {
  const TempFolder folder;
  {
    AtomicFolder out(folder / "out/");
    EXPECT_EQ(out.destination(), folder / "out");
    test::spill(out.path() / "a", "1");
    fs::create_directory(out.path() / "sub");
    write_file_atomic(out.path() / "sub/b", "2");
    EXPECT_FALSE(fs::exists(folder / "out"));
    out.commit();
  }
  EXPECT_EQ(test::slurp(folder / "out/a") + test::slurp(folder / "out/sub/b"), "12");
  EXPECT_EQ(folder.names(), Names{"out"});
}

TEST(AtomicFolder, WithoutCommitNothingIsLeft) {
  const TempFolder folder;
  {
    const AtomicFolder out(folder / "out");
    test::spill(out.path() / "a", "1");
  }
  EXPECT_TRUE(folder.names().empty());
}

TEST(AtomicFolder, ForceReplacesTheWholeFolder) {
  const TempFolder folder;
  fs::create_directory(folder / "out");
  test::spill(folder / "out/old", "old");
  expect_error(ErrorCode::kExists, "out: exists; pass --force", [&] { AtomicFolder(folder / "out"); });
  {
    AtomicFolder out(folder / "out", true);
    test::spill(out.path() / "new", "new");
    EXPECT_TRUE(fs::exists(folder / "out/old"));
    out.commit();
  }
  EXPECT_TRUE(fs::exists(folder / "out/new"));
  EXPECT_FALSE(fs::exists(folder / "out/old"));
  EXPECT_EQ(folder.names(), Names{"out"});
}

TEST(AtomicFolder, ForceReplacesAFileButNoFileAFolder) {
  const TempFolder folder;
  test::spill(folder / "out", "file");
  AtomicFolder(folder / "out", true).commit();
  EXPECT_TRUE(fs::is_directory(folder / "out"));
  expect_error(ErrorCode::kInvalidInput, "out: is a folder", [&] { write_file_atomic(folder / "out", "file", true); });
  EXPECT_EQ(folder.names(), Names{"out"});
}

TEST(CheckOutput, TellsBeforeTheWorkWhereNothingCanBeMade) {
  const TempFolder folder;
  check_output(folder / "new/folders/out", false);
  test::spill(folder / "file", "x");
  for (const char* below : {"file/out", "file/new/out"})
    expect_error(ErrorCode::kInvalidInput, "file is no folder", [&] { check_output(folder / below, true); });
  for (const char* name : {"", "."})
    expect_error(ErrorCode::kInvalidInput, "is no name", [&] { check_output(name, false); });
  if (::geteuid() == 0) return;  // may write anywhere
  fs::create_directory(folder / "closed");
  fs::permissions(folder / "closed", fs::perms::owner_read | fs::perms::owner_exec);
  expect_error(ErrorCode::kIo, "cannot write into", [&] { check_output(folder / "closed/new/out", false); });
}

TEST(AtomicFolder, NeverReplacesWhatHoldsTheWorkingOrHomeFolder) {
  expect_error(ErrorCode::kInvalidInput, "working or home",
               [] { AtomicFolder(fs::current_path().parent_path() / fs::current_path().filename(), true); });
  if (fs::current_path().has_relative_path())
    expect_error(ErrorCode::kInvalidInput, "working or home",
                 [] { AtomicFolder(fs::path("/") / *fs::current_path().relative_path().begin(), true); });
}

TEST(CheckOutput, NeverReplacesWhatHoldsAnInput) {
  const TempFolder folder;
  const fs::path inside = fs::path(folder.folder("model")) / "data.jsonl";
  std::ofstream(inside) << "{}";
  fs::create_directory_symlink(folder / "model", folder / "link");
  for (const fs::path& output : {folder / "model", fs::path(folder.file("model/")), folder.path()})
    for (const fs::path& input : {inside, folder / "link" / "data.jsonl"})
      expect_error(ErrorCode::kInvalidInput, "the input", [&] { check_output(output, true, {"", input}); });
  check_output(folder / "other", true, {inside});
  check_output(folder / "mod", true, {inside});
  check_output(folder / "model" / "block", true, {folder / "model"});  // inside an input
  check_is_elsewhere(folder / "absent", inside, "the log");
  expect_error(ErrorCode::kInvalidInput, "the log",
               [&] { check_is_elsewhere(folder / "absent", folder / "absent" / "log", "the log"); });
}

TEST(CheckOutput, NeverReplacesAPartOfAnInput) {
  const TempFolder folder;
  const fs::path model = folder.folder("model");
  for (const char* name :
       {"model.safetensors", "model.safetensors.index.json", "config.json", "tokenizer.json", "a.json"})
    std::ofstream(model / name) << "{}";
  for (const char* name : {"model.safetensors", "model.safetensors.index.json", "config.json", "tokenizer.json"})
    expect_error(ErrorCode::kInvalidInput, "part of the input", [&] { check_output(model / name, true, {model}); });
  check_output(model / "a.json", true, {model});
  check_output(model / "config.json", true, {folder / "other"});
}

TEST(CheckOutput, TellsOfNamesThatAreTooLong) {
  const TempFolder folder;
  expect_error(ErrorCode::kInvalidInput, "too long", [&] { check_output(folder / std::string(300, 'x'), false); });
}

// The id of a process that has ended.
pid_t dead_process() {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  ::waitpid(child, nullptr, 0);
  return child;
}

TEST(AtomicFolder, RemovesWhatADeadProcessLeft) {
  const TempFolder folder;
  const std::string dead = ".out.tmp-" + std::to_string(dead_process()) + ".0";
  const std::string ours = ".out.tmp-" + std::to_string(::getpid()) + ".999999";  // of an earlier life of this id
  const std::string alive = ".out.tmp-" + std::to_string(::getppid()) + ".0";
  const Names others{alive, ".out.tmp-mine", ".other.tmp-" + std::to_string(dead_process()) + ".0"};
  for (const std::string& name : {dead, ours, alive, others[1], others[2]}) {
    fs::create_directory(folder / name);
    test::spill(folder / name / "half", "x");
  }
  {
    const AtomicFolder first(folder / "out");
    EXPECT_FALSE(fs::exists(folder / dead));
    EXPECT_FALSE(fs::exists(folder / ours));
    for (const std::string& name : others) EXPECT_TRUE(fs::exists(folder / name)) << name;
    const AtomicFolder second(folder / "out");  // the first one's is in use
    EXPECT_TRUE(fs::exists(first.path()));
    EXPECT_NE(first.path(), second.path());
  }
  EXPECT_EQ(folder.names().size(), others.size());
}

TEST(AtomicFolder, BringsBackAnOldOutputThatWasDisplaced) {
  const TempFolder folder;
  const std::string displaced = ".out.old-" + std::to_string(dead_process()) + ".0";
  fs::create_directory(folder / displaced);
  expect_error(ErrorCode::kExists, "--force", [&] { AtomicFolder(folder / "out"); });
  EXPECT_EQ(folder.names(), Names{"out"});
  fs::create_directory(folder / displaced);
  { const AtomicFolder out(folder / "out", true); }
  EXPECT_EQ(folder.names(), Names{"out"});
}

TEST(AtomicFolder, KilledProcessLeavesTheOldOutput) {
  const TempFolder folder;
  fs::create_directory(folder / "out");
  test::spill(folder / "out/old", "old");
  const pid_t child = ::fork();
  if (child == 0) {
    AtomicFolder out(folder / "out", true);
    test::spill(out.path() / "new", "new");
    std::raise(SIGKILL);
  }
  ::waitpid(child, nullptr, 0);
  EXPECT_EQ(folder.names().size(), 2u);  // the old output and a leftover
  EXPECT_EQ(test::slurp(folder / "out/old"), "old");
  AtomicFolder(folder / "out", true).commit();
  EXPECT_EQ(folder.names(), Names{"out"});
}

TEST(AppendLine, Appends) {
  const TempFolder folder;
  append_line_durable(folder / "m.jsonl", "{\"a\":1}");
  append_line_durable(folder / "m.jsonl", "{\"a\":2}");
  EXPECT_EQ(test::slurp(folder / "m.jsonl"), "{\"a\":1}\n{\"a\":2}\n");
}

TEST(AppendLine, StartsANewLineAfterHalfOfOne) {
  const TempFolder folder;
  test::spill(folder / "m.jsonl", "{\"a\":1}\n{\"a\"");
  append_line_durable(folder / "m.jsonl", "{\"a\":2}");
  EXPECT_EQ(test::slurp(folder / "m.jsonl"), "{\"a\":1}\n{\"a\"\n{\"a\":2}\n");
}

TEST(AppendLine, FullDiskLeavesNoHalfLine) {
  expect_error(ErrorCode::kIo, "/dev/full: cannot write: No space left", [] { append_line_durable("/dev/full", "x"); });
  const TempFolder folder;
  test::spill(folder / "m.jsonl", "1\n");
  {
    const SmallDisk disk(10);
    expect_error(ErrorCode::kIo, "cannot write",
                 [&] { append_line_durable(folder / "m.jsonl", std::string(100, 'x')); });
  }
  EXPECT_EQ(test::slurp(folder / "m.jsonl"), "1\n");
}

TEST(AppendLine, LinesOfSeveralThreadsStayWhole) {
  const TempFolder folder;
  std::vector<std::thread> writers;
  for (const char c : {'a', 'b', 'c'})
    writers.emplace_back([&folder, c] {
      for (int i = 0; i < 20; ++i) append_line_durable(folder / "m", std::string(50, c));
    });
  for (std::thread& writer : writers) writer.join();
  const std::string text = test::slurp(folder / "m");
  ASSERT_EQ(text.size(), 3u * 20 * 51);
  for (size_t at = 0; at < text.size(); at += 51) EXPECT_EQ(text.substr(at, 51), std::string(50, text[at]) + "\n");
}

}  // namespace
}  // namespace brick::io
