// Logs of JSON lines, which are told from the files that a slip may name.
#pragma once

#include <filesystem>
#include <string_view>

namespace brick::pipeline {

// Error(kExists) for a file that is not empty and does not begin with a line that is a JSON object with `key`, or the
// start of such a line and no more: --force replaces a log, but nothing else.
void check_is_log(const std::filesystem::path& path, std::string_view key);

}  // namespace brick::pipeline
