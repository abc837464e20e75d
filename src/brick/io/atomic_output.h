// Outputs that exist whole or not at all. Work goes to a hidden sibling, `.name.tmp-<pid>.<n>`, which is
// renamed into place when complete; what a dead process left there is removed by the next run for that path.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace brick::io {

// Error(kExists) "... exists; pass --force" unless `path` is free or `force`; kInvalidInput for what names no output,
// is or holds the working or home folder or one of `inputs` (empty ones aside), or is a file that a folder among them
// is read with; that or kIo where nothing can be made.
void check_output(const std::filesystem::path& path, bool force, const std::vector<std::filesystem::path>& inputs = {});
// Error(kInvalidInput) where `inner` is `outer` or lies in it: the output `outer` would take it away. `what` names it.
void check_is_elsewhere(const std::filesystem::path& outer, const std::filesystem::path& inner, std::string_view what);

// `path`, without a slash at its end, with `suffix`: where what belongs to an output lies until that is whole.
std::filesystem::path beside(const std::filesystem::path& path, std::string_view suffix);

// A file, never in a folder's place. Parent folders are created. Errors of writing, a full disk too, name the path.
class AtomicFile {
 public:
  explicit AtomicFile(const std::filesystem::path& path, bool force = false);
  ~AtomicFile();  // without commit(): removes the temporary file
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  uint64_t written() const { return written_; }
  // Flushes to the disk and renames into place. Call once, last.
  void commit();

 private:
  void flush();

  std::filesystem::path path_, temporary_;
  bool force_;
  int file_ = -1;
  uint64_t written_ = 0;
  std::string buffer_;
};

// A folder. Write below path(), then commit().
class AtomicFolder {
 public:
  explicit AtomicFolder(const std::filesystem::path& path, bool force = false);
  ~AtomicFolder();  // without commit(): removes the temporary folder
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;

  const std::filesystem::path& path() const { return temporary_; }    // where to write
  const std::filesystem::path& destination() const { return path_; }  // where it will be
  // Flushes every file to the disk and renames into place. With force an existing output is swapped out
  // and then deleted. Call once, last.
  void commit();

 private:
  std::filesystem::path path_, temporary_;
  bool force_;
  int lock_ = -1;
};

void write_file_atomic(const std::filesystem::path& path, std::string_view text, bool force = true);

// Appends `line` and a newline in one write and waits for the disk, for metrics.jsonl. `line` has no newline
// of its own.
void append_line_durable(const std::filesystem::path& path, std::string_view line);

}  // namespace brick::io
