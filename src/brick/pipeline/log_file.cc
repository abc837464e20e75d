#include "brick/pipeline/log_file.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "brick/base/error.h"

namespace brick::pipeline {

void check_is_log(const std::filesystem::path& path, std::string_view key) {
  constexpr size_t kLongest = 1 << 16;  // of a log's first line
  if (!std::filesystem::is_regular_file(path)) return;
  std::ifstream file(path, std::ios::binary);
  std::string start(kLongest, '\0');
  file.read(start.data(), static_cast<std::streamsize>(start.size()));
  start.resize(static_cast<size_t>(file.gcount()));
  if (start.empty()) return;
  const nlohmann::json first = nlohmann::json::parse(start.substr(0, start.find('\n')), nullptr, false);
  const bool whole = first.is_object() || start.size() == kLongest || start.find('\n') != std::string::npos;
  if (!whole && (start == "{" || start.starts_with("{\""))) return;  // torn by a kill
  if (!first.is_object() || !first.contains(key))
    fail(ErrorCode::kExists, "{} is there already and is no log that --log writes: give the log another name",
         path.string());
}

}  // namespace brick::pipeline
