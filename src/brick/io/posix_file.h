// Internal to io/: file descriptors with brick::Error, and names made safe for messages.
#pragma once

#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace brick::io {

// Closes a descriptor at the end of the scope.
class Descriptor {
 public:
  explicit Descriptor(int value = -1) : value_(value) {}
  ~Descriptor();
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return value_; }

 private:
  int value_;
};

std::string os_error(int error = errno);

// Opens for reading. Error(kNotFound) if missing, kInvalidInput for a folder, kIo otherwise.
int open_for_reading(const std::filesystem::path& path);

// Up to `buffer.size()` bytes; 0 at the end. Error(kIo).
size_t read_some(int file, std::span<std::byte> buffer, std::string_view name);

// All of `bytes`, or Error(kIo) with the system's reason.
void write_all(int file, std::span<const std::byte> bytes, std::string_view name);

// Error(kCorrupt) where `content`, of the file `name`, is what Git leaves in place of a large file it did not fetch.
void refuse_git_pointer(std::string_view content, std::string_view name);

// A name from a file as it may stand in a message: quoted, at most 80 bytes, control characters and bytes
// above ASCII as \xNN.
std::string shown(std::string_view name);

}  // namespace brick::io
