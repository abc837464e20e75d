// Compressed files and archives (libarchive).
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

namespace brick::io {

// More than this is not unpacked: a small file may claim to hold terabytes.
inline constexpr size_t kMostUnpackedBytes = size_t{1} << 30;

// The bytes of a file, unpacked where its name ends in .gz, .bz2 or .xz. Errors as read_text(), and kCorrupt for a
// compressed file that is damaged, cut short or larger than kMostUnpackedBytes.
std::string read_packed_text(const std::filesystem::path& path);

// Calls with the name and bytes of each regular file of a tar archive (compressed or not), in its order. Views live
// until `member` returns. Errors as read_packed_text(); kMostUnpackedBytes counts all members together.
using MemberFunction = std::function<void(std::string_view name, std::string_view bytes)>;
void for_each_member(const std::filesystem::path& path, const MemberFunction& member);

}  // namespace brick::io
