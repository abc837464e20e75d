#include "brick/io/provenance.h"

#include <algorithm>
#include <system_error>
#include <utility>
#include <vector>

#include "brick/base/error.h"
#include "brick/base/sha256.h"
#include "brick/io/json_file.h"
#include "brick/io/posix_file.h"

namespace brick::io {
namespace {

namespace fs = std::filesystem;

template <class T>
T get(const nlohmann::json& json, const char* key, bool (nlohmann::json::*is_type)() const noexcept,
      const char* wanted) {
  const auto found = json.find(key);
  if (found == json.end() || !((*found).*is_type)())
    fail(ErrorCode::kCorrupt, "provenance: \"{}\" is missing or no {}", key, wanted);
  return found->get<T>();
}

}  // namespace

void to_json(nlohmann::json& json, const Provenance& provenance) {
  json = {{"config",
           provenance.config.empty() ? nlohmann::json::object() : parse_json(provenance.config, "provenance: config")},
          {"parent_hash", provenance.parent_hash},
          {"seed", provenance.seed},
          {"tool_version", provenance.tool_version}};
}

void from_json(const nlohmann::json& json, Provenance& provenance) {
  if (!json.is_object()) fail(ErrorCode::kCorrupt, "provenance: is no JSON object");
  provenance.tool_version = get<std::string>(json, "tool_version", &nlohmann::json::is_string, "string");
  provenance.parent_hash = get<std::string>(json, "parent_hash", &nlohmann::json::is_string, "string");
  provenance.seed = get<uint64_t>(json, "seed", &nlohmann::json::is_number_unsigned, "unsigned integer");
  provenance.config = compact_json(get<nlohmann::json>(json, "config", &nlohmann::json::is_object, "object"));
}

std::string hash_file(const fs::path& path) {
  const Descriptor file(open_for_reading(path));
  std::vector<std::byte> buffer(size_t{1} << 20);
  Sha256 hash;
  while (const size_t got = read_some(file.get(), buffer, path.string()))
    hash.update(std::span<const std::byte>(buffer.data(), got));
  return hash.hex();
}

std::string hash_folder(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  fs::recursive_directory_iterator entry(folder, error);
  if (error) fail(ErrorCode::kNotFound, "{}: cannot list: {}", folder.string(), error.message());
  for (const fs::recursive_directory_iterator end; entry != end; entry.increment(error))
    if (entry->is_regular_file()) names.push_back(entry->path().lexically_relative(folder).generic_string());
  if (error) fail(ErrorCode::kIo, "{}: cannot list: {}", folder.string(), error.message());
  std::sort(names.begin(), names.end());
  Sha256 hash;
  for (const std::string& name : names) {
    hash.update(hash_file(folder / name) + "  " + name);
    hash.update(std::string_view("\0", 1));  // as `sha256sum -z`: no name can imitate two
  }
  return hash.hex();
}

std::string hash_path(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(path, error) ? hash_folder(path) : hash_file(path);
}

}  // namespace brick::io
