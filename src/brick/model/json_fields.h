// Typed reading of a JSON object of someone else's, with errors that name the key.
#pragma once

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "brick/base/error.h"
#include "brick/io/json_file.h"

namespace brick::model {

// null counts as absent, as in transformers. Looks at `object` and `what` (the file, for messages), which
// must outlive it. A value of another type is an Error(kInvalidInput).
class JsonFields {
 public:
  using json = nlohmann::json;

  JsonFields(const json& object, std::string_view what) : object_(object), what_(what) {}

  const json* find(const char* key) const {
    const auto it = object_.find(key);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }
  int64_t integer(const char* key) const {
    const json* value = find(key);
    if (value == nullptr) fail(ErrorCode::kInvalidInput, "{}: {} is missing", what_, key);
    return to_integer(key, *value);
  }
  int64_t integer_or(const char* key, int64_t fallback) const {
    const json* value = find(key);
    return value == nullptr ? fallback : to_integer(key, *value);
  }
  double double_or(const char* key, double fallback) const {
    const json* value = find(key);
    if (value == nullptr) return fallback;
    if (!value->is_number() || !std::isfinite(value->get<double>())) wrong(key, *value, "a number");
    return value->get<double>();
  }
  float number_or(const char* key, float fallback) const { return static_cast<float>(double_or(key, fallback)); }
  bool flag_or(const char* key, bool fallback) const {
    const json* value = find(key);
    if (value == nullptr) return fallback;
    if (!value->is_boolean()) wrong(key, *value, "true or false");
    return value->get<bool>();
  }
  std::string text(const char* key) const {
    if (find(key) == nullptr) fail(ErrorCode::kInvalidInput, "{}: {} is missing", what_, key);
    return text_or(key, "");
  }
  std::string text_or(const char* key, const char* fallback) const {
    const json* value = find(key);
    if (value == nullptr) return fallback;
    if (!value->is_string()) wrong(key, *value, "a string");
    return value->get<std::string>();
  }
  // An id, or the first of a list of ids.
  std::optional<int32_t> token(const char* key) const {
    const json* value = find(key);
    if (value == nullptr || (value->is_array() && value->empty())) return std::nullopt;
    const int64_t id = to_integer(key, value->is_array() ? value->front() : *value);
    if (id < 0 || id > std::numeric_limits<int32_t>::max()) wrong(key, *value, "a token's id");
    return static_cast<int32_t>(id);
  }
  [[noreturn]] void refuse(const char* key, const std::string& supported) const {
    fail(ErrorCode::kUnsupported, "{}: {} = {} is not supported; {}", what_, key, io::compact_json(object_.at(key)),
         supported);
  }

  [[noreturn]] void wrong(const char* key, const json& value, const char* expected) const {
    fail(ErrorCode::kInvalidInput, "{}: {} is {}, expected {}", what_, key, io::compact_json(value), expected);
  }

 private:
  int64_t to_integer(const char* key, const json& value) const {
    if (!value.is_number_integer()) wrong(key, value, "an integer");
    if (value.is_number_unsigned() && value.get<uint64_t>() > std::numeric_limits<int64_t>::max())
      wrong(key, value, "a smaller integer");
    return value.get<int64_t>();
  }

  const json& object_;
  std::string_view what_;
};

}  // namespace brick::model
