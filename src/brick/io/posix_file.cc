#include "brick/io/posix_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <system_error>

#include "brick/base/error.h"

namespace brick::io {

Descriptor::~Descriptor() {
  if (value_ >= 0) ::close(value_);
}

std::string os_error(int error) { return std::generic_category().message(error); }

int open_for_reading(const std::filesystem::path& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) {
    const ErrorCode code = errno == ENOENT || errno == ENOTDIR ? ErrorCode::kNotFound : ErrorCode::kIo;
    fail(code, "{}: cannot open: {}", path.string(), os_error());
  }
  struct stat status {};
  if (::fstat(file, &status) == 0 && S_ISDIR(status.st_mode)) {
    ::close(file);
    fail(ErrorCode::kInvalidInput, "{}: is a folder, expected a file", path.string());
  }
  return file;
}

size_t read_some(int file, std::span<std::byte> buffer, std::string_view name) {
  for (;;) {
    const ssize_t got = ::read(file, buffer.data(), buffer.size());
    if (got >= 0) return static_cast<size_t>(got);
    if (errno != EINTR) fail(ErrorCode::kIo, "{}: cannot read: {}", name, os_error());
  }
}

void write_all(int file, std::span<const std::byte> bytes, std::string_view name) {
  while (!bytes.empty()) {
    const ssize_t put = ::write(file, bytes.data(), bytes.size());
    if (put >= 0)
      bytes = bytes.subspan(static_cast<size_t>(put));
    else if (errno != EINTR)
      fail(ErrorCode::kIo, "{}: cannot write: {}", name, os_error());
  }
}

void refuse_git_pointer(std::string_view content, std::string_view name) {
  if (content.starts_with("version https://git-lfs.github.com/spec/"))
    fail(ErrorCode::kCorrupt, "{}: is a Git LFS pointer, not the file itself; fetch that with git lfs pull", name);
}

std::string shown(std::string_view name) {
  constexpr size_t kLongest = 80;
  std::string text = "\"";
  for (char c : name.substr(0, kLongest)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7F)
      text += fmt::format("\\x{:02x}", byte);
    else
      text += c;
  }
  return text + (name.size() > kLongest ? "...\"" : "\"");
}

}  // namespace brick::io
