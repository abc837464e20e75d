// Where an artifact comes from: the hash of its parent, the tool, the configuration, the seed. No times and
// no host names, so that the same inputs give the same bytes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

namespace brick::io {

struct Provenance {
  std::string tool_version;  // "0.1.0"
  std::string parent_hash;   // of the model or artifact that this was made from; empty if of none
  std::string config;        // compact text of a JSON object; empty is written as {}
  uint64_t seed = 0;

  bool operator==(const Provenance&) const = default;
};

// {"config": {...}, "parent_hash": "...", "seed": 0, "tool_version": "..."}. from_json: Error(kCorrupt)
// naming the key that is missing or of another type.
void to_json(nlohmann::json& json, const Provenance& provenance);
void from_json(const nlohmann::json& json, Provenance& provenance);

// SHA-256 of a file's bytes, 64 lower-case hex digits (what `sha256sum` prints).
std::string hash_file(const std::filesystem::path& path);

// SHA-256 over the names and contents of all regular files below `folder` (links to files are followed, links
// to folders are not), sorted by relative name as bytes: what this prints there
//   find . -type f -printf '%P\0' | LC_ALL=C sort -z | xargs -0 sha256sum -z | sha256sum
std::string hash_folder(const std::filesystem::path& folder);

// The one that fits. Error(kNotFound) if nothing is there.
std::string hash_path(const std::filesystem::path& path);

}  // namespace brick::io
