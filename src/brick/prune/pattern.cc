#include "brick/prune/pattern.h"

#include <charconv>
#include <optional>

#include "brick/base/error.h"

namespace brick::prune {
namespace {

constexpr int64_t kLargestGroup = 64;

std::optional<int64_t> whole_number(std::string_view text) {
  int64_t value = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (problem != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

Pattern parse_pattern(std::string_view text) {
  if (text == "unstructured") return {};
  const size_t colon = text.find(':');
  if (colon != std::string_view::npos) {
    const auto drop = whole_number(text.substr(0, colon)), group = whole_number(text.substr(colon + 1));
    if (drop && group && *drop > 0 && *drop < *group && *group <= kLargestGroup) return {*drop, *group};
  }
  fail(ErrorCode::kInvalidInput,
       "pattern '{}': expected 'unstructured' or n:m, which drops n of every m inputs, with 0 < n < m <= {}", text,
       kLargestGroup);
}

std::string name(const Pattern& pattern) {
  return pattern.unstructured() ? "unstructured" : fmt::format("{}:{}", pattern.drop, pattern.group);
}

}  // namespace brick::prune
