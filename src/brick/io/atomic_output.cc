#include "brick/io/atomic_output.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <system_error>
#include <utility>
#include <vector>

#include "brick/base/error.h"
#include "brick/io/posix_file.h"

namespace brick::io {
namespace {

namespace fs = std::filesystem;

constexpr size_t kBuffer = size_t{1} << 18;

fs::path parent_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

fs::path tidy(const fs::path& path) {
  fs::path tidied = path.lexically_normal();
  if (!tidied.has_filename()) tidied = tidied.parent_path();
  const fs::path name = tidied.filename();
  if (name.empty() || name == "." || name == "..")
    fail(ErrorCode::kInvalidInput, "{}: is no name for an output", path.string());
  return tidied;
}

bool present(const fs::path& path) {
  struct stat status {};
  return ::lstat(path.c_str(), &status) == 0;
}

// Whether `folder` is `inner` or holds it.
bool holds(const fs::path& folder, const fs::path& inner) {
  std::error_code error;
  const fs::path outer = fs::weakly_canonical(folder, error);
  if (error) return false;
  const fs::path candidate = fs::weakly_canonical(inner, error);
  if (error) return false;
  auto part = candidate.begin();
  for (const fs::path& expected : outer)
    if (part == candidate.end() || *part++ != expected) return false;
  return true;
}

// Whether a file of this name in a model's or adapter's folder is read with it.
bool is_read_with_a_folder(const fs::path& path) {
  const std::string name = path.filename().string();
  return name.ends_with(".safetensors") || name.ends_with(".index.json") || name.ends_with("config.json") ||
         name.ends_with("tokenizer.json");
}

// ".name.<kind>-": temporary outputs ("tmp") and displaced old ones ("old").
std::string hidden_prefix(const fs::path& path, std::string_view kind) {
  return fmt::format(".{}.{}-", path.filename().string(), kind);
}

fs::path temporary_for(const fs::path& path) {
  static std::atomic<int> counter{0};
  return parent_of(path) / fmt::format("{}{}.{}", hidden_prefix(path, "tmp"), ::getpid(), counter++);
}

// Whether the process that made ".name.tmp-<pid>.<n>" is gone. A live one holds a lock on it, which tells
// apart a process that happens to have the same id (in another container, or later).
bool abandoned(const fs::path& leftover, std::string_view suffix) {
  pid_t owner = 0;
  const auto [rest, error] = std::from_chars(suffix.data(), suffix.data() + suffix.size(), owner);
  if (error != std::errc() || owner <= 0 || rest == suffix.data() + suffix.size() || *rest != '.') return false;
  const bool ours = owner == ::getpid();
  if (!ours && (::kill(owner, 0) == 0 || errno != ESRCH)) return false;
  const Descriptor file(::open(leftover.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (file.get() < 0) return !ours;
  if (::flock(file.get(), LOCK_EX | LOCK_NB) == 0) return true;
  return !ours && errno != EWOULDBLOCK;
}

void remove_leftovers(const fs::path& path) {
  const std::string temporary = hidden_prefix(path, "tmp"), old = hidden_prefix(path, "old");
  std::vector<fs::path> abandoned_temporaries, displaced;
  std::error_code error;
  for (fs::directory_iterator entry(parent_of(path), error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name.starts_with(temporary) && abandoned(entry->path(), std::string_view(name).substr(temporary.size())))
      abandoned_temporaries.push_back(entry->path());
    if (name.starts_with(old) && abandoned(entry->path(), std::string_view(name).substr(old.size())))
      displaced.push_back(entry->path());
  }
  for (const fs::path& leftover : abandoned_temporaries) fs::remove_all(leftover, error);
  // An old output is displaced only while the new one moves in; without either, the old one comes back.
  for (const fs::path& leftover : displaced) {
    if (present(path))
      fs::remove_all(leftover, error);
    else
      ::rename(leftover.c_str(), path.c_str());
  }
}

// Error where nothing can be made at `path`: told before the work rather than after it.
void check_place(const fs::path& path) {
  std::error_code error;
  fs::path folder = parent_of(path);
  while (!fs::exists(folder, error) && folder != parent_of(folder)) folder = parent_of(folder);
  if (!fs::is_directory(folder, error))
    fail(ErrorCode::kInvalidInput, "{}: {} is no folder", path.string(), folder.string());
  if (::access(folder.c_str(), W_OK | X_OK) != 0)
    fail(ErrorCode::kIo, "{}: cannot write into {}: {}", path.string(), folder.string(), os_error());
}

void prepare(const fs::path& path, bool force) {
  std::error_code error;
  fs::create_directories(parent_of(path), error);
  if (error) fail(ErrorCode::kIo, "{}: cannot create its folder: {}", path.string(), error.message());
  remove_leftovers(path);
  check_output(path, force);
}

void sync_descriptor(int file, const fs::path& path) {
  if (::fsync(file) != 0 && errno != EINVAL && errno != EROFS)
    fail(ErrorCode::kIo, "{}: cannot write to the disk: {}", path.string(), os_error());
}

void sync_path(const fs::path& path) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) fail(ErrorCode::kIo, "{}: cannot open: {}", path.string(), os_error());
  sync_descriptor(file.get(), path);
}

[[noreturn]] void cannot_place(const fs::path& path) {
  if (errno == EEXIST || errno == ENOTEMPTY)
    fail(ErrorCode::kExists, "{}: exists; pass --force to replace it", path.string());
  fail(ErrorCode::kIo, "{}: cannot put the finished output in place: {}", path.string(), os_error());
}

bool lacks_flag() { return errno == EINVAL || errno == ENOSYS || errno == ENOTSUP; }

// For file systems that cannot exchange two names: the old output steps aside, and comes back if the new one
// cannot move in.
void displace(const fs::path& temporary, const fs::path& path) {
  const fs::path old = parent_of(path) / fmt::format("{}{}.0", hidden_prefix(path, "old"), ::getpid());
  if (::rename(path.c_str(), old.c_str()) != 0) cannot_place(path);
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    const int reason = errno;
    ::rename(old.c_str(), path.c_str());
    errno = reason;
    cannot_place(path);
  }
  std::error_code error;
  fs::remove_all(old, error);
}

void replace(const fs::path& temporary, const fs::path& path) {
  const bool plain_files = !fs::is_directory(fs::symlink_status(path)) && !fs::is_directory(temporary);
  if (!present(path) || plain_files) {
    if (::rename(temporary.c_str(), path.c_str()) != 0) cannot_place(path);
    return;
  }
  if (::renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, path.c_str(), RENAME_EXCHANGE) != 0) {
    if (!lacks_flag()) cannot_place(path);
    return displace(temporary, path);
  }
  sync_path(parent_of(path));  // before the old one goes
  std::error_code error;
  fs::remove_all(temporary, error);
}

void install(const fs::path& temporary, const fs::path& path, bool force) {
  if (force) {
    replace(temporary, path);
  } else if (::renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, path.c_str(), RENAME_NOREPLACE) != 0) {
    if (!lacks_flag()) cannot_place(path);
    check_output(path, false);
    if (::rename(temporary.c_str(), path.c_str()) != 0) cannot_place(path);
  }
  sync_path(parent_of(path));
}

}  // namespace

void check_output(const fs::path& output, bool force, const std::vector<fs::path>& inputs) {
  const fs::path path = tidy(output);
  if (!present(path)) {
    if (errno == ENAMETOOLONG)
      fail(ErrorCode::kInvalidInput, "{}...: the name is too long for an output", path.string().substr(0, 80));
    return check_place(path);
  }
  std::error_code error;
  const fs::file_type type = fs::status(path, error).type();
  if (type != fs::file_type::regular && type != fs::file_type::directory && type != fs::file_type::not_found)
    fail(ErrorCode::kInvalidInput, "{}: is a pipe or device; give the name of a file or folder", path.string());
  if (!force) fail(ErrorCode::kExists, "{}: exists; pass --force to replace it", path.string());
  const char* home = std::getenv("HOME");
  if (holds(path, fs::current_path(error)) || (home != nullptr && *home != '\0' && holds(path, home)))
    fail(ErrorCode::kInvalidInput, "{}: holds the working or home folder and will not be replaced", path.string());
  for (const fs::path& input : inputs) {
    if (input.empty()) continue;
    check_is_elsewhere(path, input, "the input");
    if (type == fs::file_type::regular && is_read_with_a_folder(path) && holds(input, path))
      fail(ErrorCode::kInvalidInput, "{}: is a part of the input {}; give the output another name", path.string(),
           input.string());
  }
  check_place(path);
}

void check_is_elsewhere(const fs::path& outer, const fs::path& inner, std::string_view what) {
  if (holds(tidy(outer), inner))
    fail(ErrorCode::kInvalidInput, "{} {} lies where the output {} will be: give one of them another place", what,
         inner.string(), outer.string());
}

fs::path beside(const fs::path& path, std::string_view suffix) {
  fs::path out = tidy(path);
  out += suffix;
  return out;
}

AtomicFile::AtomicFile(const fs::path& path, bool force) : path_(tidy(path)), force_(force) {
  prepare(path_, force);
  if (fs::is_directory(fs::symlink_status(path_)))
    fail(ErrorCode::kInvalidInput, "{}: is a folder; give the name of a file", path_.string());
  temporary_ = temporary_for(path_);
  file_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (file_ < 0) fail(ErrorCode::kIo, "{}: cannot create: {}", path_.string(), os_error());
  ::flock(file_, LOCK_EX | LOCK_NB);
}

AtomicFile::~AtomicFile() {
  if (file_ < 0) return;
  ::unlink(temporary_.c_str());
  ::close(file_);
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  BRICK_ASSERT(file_ >= 0);
  if (buffer_.size() + bytes.size() > kBuffer) flush();
  if (bytes.size() > kBuffer)
    write_all(file_, bytes, path_.string());
  else
    buffer_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  written_ += bytes.size();
}

void AtomicFile::write(std::string_view text) { write(std::as_bytes(std::span(text))); }

void AtomicFile::flush() {
  write_all(file_, std::as_bytes(std::span(buffer_)), path_.string());
  buffer_.clear();
}

void AtomicFile::commit() {
  BRICK_ASSERT(file_ >= 0);
  flush();
  sync_descriptor(file_, path_);
  install(temporary_, path_, force_);
  ::close(std::exchange(file_, -1));
}

AtomicFolder::AtomicFolder(const fs::path& path, bool force) : path_(tidy(path)), force_(force) {
  prepare(path_, force);
  temporary_ = temporary_for(path_);
  if (::mkdir(temporary_.c_str(), 0777) != 0) fail(ErrorCode::kIo, "{}: cannot create: {}", path_.string(), os_error());
  lock_ = ::open(temporary_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (lock_ >= 0) ::flock(lock_, LOCK_EX | LOCK_NB);
}

AtomicFolder::~AtomicFolder() {
  if (!temporary_.empty()) {
    std::error_code error;
    fs::remove_all(temporary_, error);
  }
  if (lock_ >= 0) ::close(lock_);
}

void AtomicFolder::commit() {
  BRICK_ASSERT(!temporary_.empty());
  std::error_code error;
  for (fs::recursive_directory_iterator entry(temporary_, error), end; !error && entry != end; entry.increment(error))
    if (!entry->is_symlink()) sync_path(entry->path());
  if (error) fail(ErrorCode::kIo, "{}: cannot list: {}", temporary_.string(), error.message());
  sync_path(temporary_);
  install(temporary_, path_, force_);
  temporary_.clear();
}

void write_file_atomic(const fs::path& path, std::string_view text, bool force) {
  AtomicFile file(path, force);
  file.write(text);
  file.commit();
}

void append_line_durable(const fs::path& path, std::string_view line) {
  BRICK_ASSERT(line.find('\n') == std::string_view::npos);
  const Descriptor file(::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
  struct stat status {};
  if (file.get() < 0 || ::fstat(file.get(), &status) != 0)
    fail(ErrorCode::kIo, "{}: cannot open: {}", path.string(), os_error());
  const bool regular = S_ISREG(status.st_mode);
  std::string text(line);
  text += '\n';
  // A crash may have left half a line: it stays one line of its own.
  char last = '\n';
  if (regular && status.st_size > 0 && ::pread(file.get(), &last, 1, status.st_size - 1) == 1 && last != '\n')
    text.insert(0, 1, '\n');
  try {
    write_all(file.get(), std::as_bytes(std::span(text)), path.string());
  } catch (const Error&) {
    if (regular && ::ftruncate(file.get(), status.st_size) != 0) throw;
    throw;
  }
  if (::fdatasync(file.get()) != 0 && errno != EINVAL && errno != EROFS)
    fail(ErrorCode::kIo, "{}: cannot write to the disk: {}", path.string(), os_error());
}

}  // namespace brick::io
