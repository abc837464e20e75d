#include "brick/data/records.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "brick/base/error.h"
#include "brick/io/json_file.h"
#include "brick/io/text_file.h"
#include "brick/text/utf8.h"

namespace brick::data {
namespace {

using nlohmann::json;

constexpr std::string_view kSpace = " \t\r\n";
constexpr io::JsonLimits kLimits{.depth = 128, .refuse_duplicates = true};
constexpr std::string_view kForms =
    "\"messages\", \"conversations\", \"instruction\" and \"response\", or \"prompt\" and \"completion\"";
using Roles = std::array<std::string_view, 3>;
constexpr Roles kRoles{"system", "user", "assistant"};

// A value from the file as it may stand in a message: its JSON in ASCII, cut at a length that fits a line.
std::string shown(const json& value) {
  constexpr size_t kLongest = 60;
  std::string text = value.dump(-1, ' ', true);
  if (text.size() > kLongest) text = text.substr(0, kLongest) + "...";
  return text;
}

std::string keys_of(const json& object) {
  constexpr size_t kMost = 8;
  std::string keys;
  size_t count = 0;
  for (const auto& item : object.items()) {
    if (++count > kMost) return keys + ", ...";
    keys += (keys.empty() ? "" : ", ") + shown(item.key());
  }
  return keys.empty() ? "none" : keys;
}

// The value at `key`; nullptr if absent or null.
const json* find(const json& object, const char* key) {
  const auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

[[noreturn]] void missing(const json& object, std::string_view key, std::string_view where) {
  fail(ErrorCode::kInvalidInput, "{}: key \"{}\" is missing or null (keys found: {})", where, key, keys_of(object));
}

std::string as_string(const json& value, std::string_view key, std::string_view where) {
  if (!value.is_string())
    fail(ErrorCode::kInvalidInput, "{}: key \"{}\" is {} {}; it must be a string", where, key, value.type_name(),
         shown(value));
  return value.get<std::string>();
}

std::string required(const json& object, const char* key, std::string_view where) {
  const json* value = find(object, key);
  if (value == nullptr) missing(object, key, where);
  return as_string(*value, key, where);
}

// The value under one of two names of the same thing; empty if there is none.
std::pair<const char*, const json*> either(const json& object, const char* name, const char* alias,
                                           std::string_view where) {
  const json* value = find(object, name);
  const json* other = find(object, alias);
  if (value != nullptr && other != nullptr)
    fail(ErrorCode::kInvalidInput, "{}: has both \"{}\" and \"{}\", which mean the same; remove one", where, name,
         alias);
  return other == nullptr ? std::pair(name, value) : std::pair(alias, other);
}

// A key with a list of messages, and what its members call their role, its values and their content.
struct MessageForm {
  const char *list, *role, *content;
  Roles roles;
};
constexpr MessageForm kChat{"messages", "role", "content", kRoles};
constexpr MessageForm kShareGpt{"conversations", "from", "value", {"system", "human", "gpt"}};

text::Message read_message(const json& value, const MessageForm& form, bool first, std::string_view where) {
  if (!value.is_object())
    fail(ErrorCode::kInvalidInput, "{}: is {} {}; it must be an object with \"{}\" and \"{}\"", where,
         value.type_name(), shown(value), form.role, form.content);
  const std::string name = required(value, form.role, where);
  const auto role = std::find(form.roles.begin(), form.roles.end(), name);
  if (role == form.roles.end())
    fail(ErrorCode::kInvalidInput, "{}: key \"{}\" is {}; it must be one of {}", where, form.role, shown(name),
         fmt::join(form.roles, ", "));
  if (role == form.roles.begin() && !first)
    fail(ErrorCode::kInvalidInput, "{}: key \"{}\" is \"{}\", which only the first message may be", where, form.role,
         name);
  return {std::string(kRoles[static_cast<size_t>(role - form.roles.begin())]), required(value, form.content, where)};
}

std::vector<text::Message> read_messages(const json& list, const MessageForm& form, std::string_view where) {
  if (!list.is_array())
    fail(ErrorCode::kInvalidInput, "{}: key \"{}\" is {} {}; it must be an array", where, form.list, list.type_name(),
         shown(list));
  if (list.empty()) fail(ErrorCode::kInvalidInput, "{}: key \"{}\" is an empty array", where, form.list);
  std::vector<text::Message> messages;
  for (const json& value : list) {
    const std::string place = fmt::format("{}: {}[{}]", where, form.list, messages.size());
    messages.push_back(read_message(value, form, messages.empty(), place));
  }
  if (messages.back().role != "assistant")
    fail(ErrorCode::kInvalidInput, "{}: the last message's role is \"{}\"; a record must end with an assistant message",
         where, messages.back().role);
  return messages;
}

std::vector<text::Message> read_instruction(const json& object, std::string_view where) {
  std::string instruction = required(object, "instruction", where);
  const auto [context_key, context] = either(object, "context", "input", where);
  const auto [response_key, response] = either(object, "response", "output", where);
  if (response == nullptr) missing(object, response_key, where);
  if (context != nullptr)
    if (const std::string text = as_string(*context, context_key, where); !text.empty()) instruction += "\n\n" + text;
  return {{"user", std::move(instruction)}, {"assistant", as_string(*response, response_key, where)}};
}

std::vector<text::Message> read_prompt(const json& prompt, const json& object, std::string_view where) {
  return {{"user", as_string(prompt, "prompt", where)}, {"assistant", required(object, "completion", where)}};
}

Record read_record(const json& value, std::string_view where) {
  if (!value.is_object())
    fail(ErrorCode::kInvalidInput, "{}: is {} {}; a record is an object with {}", where, value.type_name(),
         shown(value), kForms);
  Record record;
  if (const json* messages = find(value, kChat.list))
    record.messages = read_messages(*messages, kChat, where);
  else if (const json* conversations = find(value, kShareGpt.list))
    record.messages = read_messages(*conversations, kShareGpt, where);
  else if (find(value, "instruction") != nullptr)
    record.messages = read_instruction(value, where);
  else if (const json* prompt = find(value, "prompt"))
    record.messages = read_prompt(*prompt, value, where);
  else
    fail(ErrorCode::kInvalidInput, "{}: is no record, an object with {} (keys found: {})", where, kForms,
         keys_of(value));
  if (const json* category = find(value, "category")) record.category = as_string(*category, "category", where);
  return record;
}

// The parser's "line 1" is always the record's own line, whose number `where` has.
json parse_line(std::string_view line, const std::string& where) {
  try {
    return io::parse_json(line, where, kLimits);
  } catch (const Error& error) {
    std::string message = error.what();
    constexpr std::string_view kLine = "line 1, ";
    if (const size_t at = message.find(kLine, where.size()); at != std::string::npos) message.erase(at, kLine.size());
    throw Error(error.code(), message + " (JSONL has one whole record a line)");
  }
}

void check_utf8(int64_t number, std::string_view line, const std::string& file) {
  const size_t end = text::valid_end(line, 0);
  if (end < line.size())
    fail(ErrorCode::kCorrupt, "line {} of {}: byte {} (0x{:02X}) is not valid UTF-8; save the file as UTF-8", number,
         file, end + 1, static_cast<uint8_t>(line[end]));
}

}  // namespace

std::vector<Record> load_records(const std::filesystem::path& path) {
  const std::string file = path.string(), whole = io::read_text(path);
  std::string_view text = whole;
  if (text.starts_with(io::kByteOrderMark)) text.remove_prefix(io::kByteOrderMark.size());
  io::for_each_line_in(text, [&](int64_t number, std::string_view line) { check_utf8(number, line, file); });

  std::vector<Record> records;
  const size_t first = text.find_first_not_of(kSpace);
  if (first != std::string_view::npos && text[first] == '[') {
    for (const json& value : io::parse_json(text, file, kLimits))
      records.push_back(read_record(value, fmt::format("element [{}] of {}", records.size(), file)));
  } else {
    io::for_each_line_in(text, [&](int64_t number, std::string_view line) {
      if (line.find_first_not_of(kSpace) == std::string_view::npos) return;
      const std::string where = fmt::format("line {} of {}", number, file);
      records.push_back(read_record(parse_line(line, where), where));
    });
  }
  if (records.empty()) fail(ErrorCode::kInvalidInput, "{}: holds no records ({} bytes)", file, whole.size());
  return records;
}

}  // namespace brick::data
