#include "brick/io/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "brick/base/error.h"
#include "brick/io/posix_file.h"

namespace brick::io {

MappedFile::~MappedFile() {
  if (mapping_ != nullptr) ::munmap(mapping_, bytes_.size());
}

std::shared_ptr<const MappedFile> MappedFile::from_bytes(std::vector<std::byte> bytes, std::string name) {
  std::shared_ptr<MappedFile> file(new MappedFile);
  file->name_ = std::move(name);
  file->owned_ = std::move(bytes);
  file->bytes_ = file->owned_;
  return file;
}

void MappedFile::copy(size_t offset, std::span<std::byte> out) const noexcept {
  const std::span<const std::byte> part = bytes_.subspan(offset, out.size());
  if (mapping_ != nullptr) {
    const Descriptor file(::open(name_.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat status {};
    if (file.get() >= 0 && ::fstat(file.get(), &status) == 0 && status.st_dev == device_ && status.st_ino == inode_ &&
        ::pread(file.get(), out.data(), out.size(), static_cast<off_t>(offset)) == static_cast<ssize_t>(out.size()))
      return;
  }
  std::copy(part.begin(), part.end(), out.begin());
  drop_pages(bytes_);  // the system maps more than what is touched
}

void MappedFile::drop_pages(std::span<const std::byte> part) const noexcept {
  if (mapping_ == nullptr || part.empty()) return;
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<uintptr_t>(part.data()) + page - 1) / page * page;
  const auto end = (reinterpret_cast<uintptr_t>(part.data()) + part.size()) / page * page;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

std::shared_ptr<const MappedFile> map_file(const std::filesystem::path& path) {
  std::shared_ptr<MappedFile> file(new MappedFile);
  file->name_ = path.string();
  // A pipe without a writer would block open(), so the kind is looked at first.
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode))
    fail(ErrorCode::kInvalidInput, "{}: is a pipe or device, expected a file on disk", path.string());
  const Descriptor descriptor(open_for_reading(path));
  if (::fstat(descriptor.get(), &status) != 0) fail(ErrorCode::kIo, "{}: cannot read: {}", path.string(), os_error());
  if (status.st_size == 0) fail(ErrorCode::kCorrupt, "{}: is empty", path.string());
  const auto size = static_cast<size_t>(status.st_size);
  void* const address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor.get(), 0);
  if (address == MAP_FAILED) fail(ErrorCode::kIo, "{}: cannot map: {}", path.string(), os_error());
  file->mapping_ = address;
  file->device_ = status.st_dev;
  file->inode_ = status.st_ino;
  file->bytes_ = {static_cast<const std::byte*>(address), size};
  refuse_git_pointer({static_cast<const char*>(address), size}, file->name_);
  return file;
}

}  // namespace brick::io
