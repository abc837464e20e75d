// Read-only bytes of a file, mapped; the ground that GGUF, safetensors and NumPy readers stand on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace brick::io {

// Immutable bytes with a name. Views into bytes() live as long as the MappedFile; readers therefore keep a
// shared_ptr to it. If another process shortens the file while it is mapped, touching the lost pages ends the
// process (SIGBUS): artifacts are replaced by renaming, never rewritten in place, so ours cannot do that.
class MappedFile {
 public:
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  // Takes ownership of `bytes`, for tests, fuzzing and data that came over a wire. `name` is for messages.
  static std::shared_ptr<const MappedFile> from_bytes(std::vector<std::byte> bytes, std::string name = "memory");

  std::span<const std::byte> bytes() const { return bytes_; }
  const std::string& name() const { return name_; }  // the path as given

  // Copies bytes() from `offset` on into `out`, without making the mapping's pages resident where the file is still at
  // its path. For files that are read here and there, many at a time: neither faults nor flushes of page tables.
  void copy(size_t offset, std::span<std::byte> out) const noexcept;

  // Tells the system that these pages are not needed for now, which lowers the resident set; they are read
  // again from the file when touched. `part` lies in bytes(). Does nothing for from_bytes().
  void drop_pages(std::span<const std::byte> part) const noexcept;

 private:
  friend std::shared_ptr<const MappedFile> map_file(const std::filesystem::path& path);
  MappedFile() = default;

  std::string name_;
  std::span<const std::byte> bytes_;
  std::vector<std::byte> owned_;  // empty for a mapped file
  void* mapping_ = nullptr;
  uint64_t device_ = 0, inode_ = 0;  // of the mapped file: another one may take its place
};

// Maps a regular file. Error(kNotFound) if missing, kInvalidInput for a folder, pipe or device, kCorrupt if
// empty, kIo if the system refuses.
std::shared_ptr<const MappedFile> map_file(const std::filesystem::path& path);

}  // namespace brick::io
