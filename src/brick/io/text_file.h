// Plain text from files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

namespace brick::io {

inline constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";  // of UTF-8

// The whole file (a pipe is fine too), bytes as they are. Error(kNotFound) if missing, kInvalidInput for a
// folder, kIo if the system refuses. An empty file is an empty string.
std::string read_text(const std::filesystem::path& path);

// Calls with lines numbered from 1, without "\n" or "\r\n" at the end, and without a byte order mark. The
// text after the last newline is a line if it is not empty. Views live until `line` returns.
void for_each_line_in(std::string_view text, const std::function<void(int64_t number, std::string_view line)>& line);

}  // namespace brick::io
