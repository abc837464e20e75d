// Typed access to the metadata of a GGUF file.
#include <concepts>
#include <type_traits>
#include <utility>

#include "brick/base/error.h"
#include "brick/io/gguf.h"
#include "brick/io/posix_file.h"

namespace brick::io {
namespace {

template <class T>
constexpr bool kIsInteger = std::integral<T> && !std::same_as<T, bool>;

[[noreturn]] void wrong_type(const GgufFile& file, std::string_view key, const GgufValue& value,
                             std::string_view wanted) {
  fail(ErrorCode::kInvalidInput, "{}: metadata {} is {}, expected {}", file.name(), shown(key), type_name(value),
       wanted);
}

[[noreturn]] void absent(const GgufFile& file, std::string_view key) {
  fail(ErrorCode::kNotFound, "{}: has no metadata {}", file.name(), shown(key));
}

template <class T>
std::optional<T> get_integer(const GgufFile& file, std::string_view key, std::string_view wanted) {
  const GgufValue* value = file.find(key);
  if (value == nullptr) return std::nullopt;
  return std::visit(
      [&]<class V>(const V& number) -> T {
        if constexpr (kIsInteger<V>) {
          if (!std::in_range<T>(number))
            fail(ErrorCode::kInvalidInput, "{}: metadata {} is {}, which is no {}", file.name(), shown(key), number,
                 wanted);
          return static_cast<T>(number);
        } else {
          wrong_type(file, key, *value, wanted);
        }
      },
      *value);
}

// The alternative T of the value; nullptr if the key is absent.
template <class T>
const T* find_as(const GgufFile& file, std::string_view key, std::string_view wanted) {
  const GgufValue* value = file.find(key);
  if (value == nullptr) return nullptr;
  const T* typed = std::get_if<T>(value);
  if (typed == nullptr) wrong_type(file, key, *value, wanted);
  return typed;
}

template <class T>
const T& require_as(const GgufFile& file, std::string_view key, const T* found) {
  if (found == nullptr) absent(file, key);
  return *found;
}

template <class T>
T require_value(const GgufFile& file, std::string_view key, std::optional<T> found) {
  if (!found) absent(file, key);
  return *std::move(found);
}

}  // namespace

const GgufValue* GgufFile::find(std::string_view key) const {
  const auto found = metadata_index_.find(key);
  return found == metadata_index_.end() ? nullptr : &metadata_[found->second].second;
}

std::optional<uint32_t> GgufFile::get_u32(std::string_view key) const {
  return get_integer<uint32_t>(*this, key, "u32");
}
std::optional<uint64_t> GgufFile::get_u64(std::string_view key) const {
  return get_integer<uint64_t>(*this, key, "u64");
}
std::optional<int64_t> GgufFile::get_i64(std::string_view key) const { return get_integer<int64_t>(*this, key, "i64"); }

std::optional<float> GgufFile::get_f32(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (const float* single = std::get_if<float>(value)) return *single;
  if (const double* wide = std::get_if<double>(value)) return static_cast<float>(*wide);
  wrong_type(*this, key, *value, "f32");
}

std::optional<bool> GgufFile::get_bool(std::string_view key) const {
  const bool* value = find_as<bool>(*this, key, "bool");
  return value != nullptr ? std::optional(*value) : std::nullopt;
}

std::optional<std::string> GgufFile::get_str(std::string_view key) const {
  const std::string* value = find_as<std::string>(*this, key, "string");
  return value != nullptr ? std::optional(*value) : std::nullopt;
}

std::string GgufFile::str_or(std::string_view key, std::string_view fallback) const {
  return get_str(key).value_or(std::string(fallback));
}

uint32_t GgufFile::require_u32(std::string_view key) const { return require_value(*this, key, get_u32(key)); }
uint64_t GgufFile::require_u64(std::string_view key) const { return require_value(*this, key, get_u64(key)); }
int64_t GgufFile::require_i64(std::string_view key) const { return require_value(*this, key, get_i64(key)); }
float GgufFile::require_f32(std::string_view key) const { return require_value(*this, key, get_f32(key)); }
bool GgufFile::require_bool(std::string_view key) const { return require_value(*this, key, get_bool(key)); }
std::string GgufFile::require_str(std::string_view key) const { return require_value(*this, key, get_str(key)); }

const std::vector<std::string_view>* GgufFile::find_strings(std::string_view key) const {
  return find_as<std::vector<std::string_view>>(*this, key, "array of string");
}
const std::vector<float>* GgufFile::find_floats(std::string_view key) const {
  return find_as<std::vector<float>>(*this, key, "array of f32");
}

std::optional<std::vector<int64_t>> GgufFile::get_ints(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  return std::visit(
      [&]<class V>(const V& array) -> std::vector<int64_t> {
        if constexpr (requires { typename V::allocator_type; } && !std::same_as<V, std::string>) {
          if constexpr (kIsInteger<typename V::value_type>) {
            for (const auto number : array)
              if (!std::in_range<int64_t>(number))
                fail(ErrorCode::kInvalidInput, "{}: metadata {} holds {}, which is no i64", name(), shown(key), number);
            return {array.begin(), array.end()};
          }
        }
        wrong_type(*this, key, *value, "array of integers");
      },
      *value);
}

const std::vector<std::string_view>& GgufFile::require_strings(std::string_view key) const {
  return require_as(*this, key, find_strings(key));
}
const std::vector<float>& GgufFile::require_floats(std::string_view key) const {
  return require_as(*this, key, find_floats(key));
}
std::vector<int64_t> GgufFile::require_ints(std::string_view key) const {
  return require_value(*this, key, get_ints(key));
}

}  // namespace brick::io
