#include "brick/io/packed_file.h"

#include <archive.h>
#include <archive_entry.h>

#include <algorithm>
#include <array>
#include <memory>

#include "brick/base/error.h"
#include "brick/io/text_file.h"

namespace brick::io {
namespace {

constexpr std::array<std::string_view, 3> kCompressed{".gz", ".bz2", ".xz"};

struct Closer {
  void operator()(archive* reader) const { archive_read_free(reader); }
};
using Reader = std::unique_ptr<archive, Closer>;

[[noreturn]] void damaged(archive* reader, const std::string& name) {
  const char* reason = archive_error_string(reader);
  fail(ErrorCode::kCorrupt, "{}: cannot be unpacked: {}", name, reason != nullptr ? reason : "damaged or cut short");
}

// `packed` must outlive the reader.
Reader open_packed(std::string_view packed, const std::string& name, int (*format)(archive*)) {
  Reader reader(archive_read_new());
  if (reader == nullptr) fail(ErrorCode::kIo, "{}: no memory to unpack it", name);
  for (const auto filter : {archive_read_support_filter_gzip, archive_read_support_filter_bzip2,
                            archive_read_support_filter_xz, archive_read_support_filter_none, format})
    if (filter(reader.get()) != ARCHIVE_OK) damaged(reader.get(), name);
  if (archive_read_open_memory(reader.get(), packed.data(), packed.size()) != ARCHIVE_OK) damaged(reader.get(), name);
  return reader;
}

// False at the end of the archive.
bool next_entry(archive* reader, archive_entry*& entry, const std::string& name) {
  const int status = archive_read_next_header(reader, &entry);
  if (status != ARCHIVE_OK && status != ARCHIVE_EOF) damaged(reader, name);
  return status == ARCHIVE_OK;
}

// The current entry's bytes; `room` shrinks by them.
std::string entry_bytes(archive* reader, const std::string& name, size_t& room) {
  constexpr size_t kPiece = 1 << 16;
  std::string out;
  std::string piece(kPiece, '\0');
  while (true) {
    const la_ssize_t count = archive_read_data(reader, piece.data(), piece.size());
    if (count < 0) damaged(reader, name);
    if (count == 0) return out;
    if (static_cast<size_t>(count) > room)
      fail(ErrorCode::kCorrupt, "{}: unpacks to more than {} bytes", name, kMostUnpackedBytes);
    room -= static_cast<size_t>(count);
    out.append(piece, 0, static_cast<size_t>(count));
  }
}

}  // namespace

std::string read_packed_text(const std::filesystem::path& path) {
  const std::string name = path.string(), bytes = read_text(path);
  if (std::find(kCompressed.begin(), kCompressed.end(), path.extension().string()) == kCompressed.end()) return bytes;
  const Reader reader = open_packed(bytes, name, archive_read_support_format_raw);
  archive_entry* entry = nullptr;
  size_t room = kMostUnpackedBytes;
  if (!next_entry(reader.get(), entry, name)) fail(ErrorCode::kCorrupt, "{}: cannot be unpacked: empty file", name);
  // The raw format takes what no filter knows for plain bytes.
  if (archive_filter_count(reader.get()) < 2)
    fail(ErrorCode::kCorrupt, "{}: cannot be unpacked: not a {} file", name, path.extension().string().substr(1));
  return entry_bytes(reader.get(), name, room);
}

void for_each_member(const std::filesystem::path& path, const MemberFunction& member) {
  const std::string name = path.string(), bytes = read_text(path);
  const Reader reader = open_packed(bytes, name, archive_read_support_format_tar);
  archive_entry* entry = nullptr;
  size_t room = kMostUnpackedBytes;
  while (next_entry(reader.get(), entry, name)) {
    if (archive_entry_filetype(entry) != AE_IFREG) continue;
    const char* member_name = archive_entry_pathname(entry);
    const std::string text = entry_bytes(reader.get(), name, room);
    member(member_name != nullptr ? member_name : "", text);
  }
}

}  // namespace brick::io
