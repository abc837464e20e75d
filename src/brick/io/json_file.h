// JSON from files and text, with brick::Error instead of the library's exceptions and bounded nesting.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace brick::io {

struct JsonLimits {
  int depth = 128;                 // arrays and objects inside each other
  bool refuse_duplicates = false;  // a key twice in an object; otherwise the last wins, as in Python
};

// `what` names the source in messages: a path, "line 7 of data.jsonl". Error(kCorrupt) with line and byte
// where the text is not JSON (comments are not), nests too deep, or repeats a key.
nlohmann::json parse_json(std::string_view text, std::string_view what, const JsonLimits& limits = {});
nlohmann::json read_json_file(const std::filesystem::path& path, const JsonLimits& limits = {});

// The text of a file that people read: indented by 2, a newline at the end, keys sorted. Invalid UTF-8 in a
// string becomes U+FFFD.
std::string json_text(const nlohmann::json& value);
// One line without the newline, for JSONL and provenance.
std::string compact_json(const nlohmann::json& value);

// Atomic. An existing file without `force` is an Error(kExists).
void write_json_file(const std::filesystem::path& path, const nlohmann::json& value, bool force = false);

}  // namespace brick::io
