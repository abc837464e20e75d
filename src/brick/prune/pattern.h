// Which weights a method may drop together.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace brick::prune {

// Unstructured, or `drop` of every `group` consecutive inputs of a row. "2:4" drops two of four, as in
// Wanda's and SparseGPT's code; "1:4" therefore keeps three.
struct Pattern {
  int64_t drop = 0, group = 0;

  bool unstructured() const { return group == 0; }
  double sparsity() const { return static_cast<double>(drop) / static_cast<double>(group); }  // n:m only
  bool operator==(const Pattern&) const = default;
};

// "unstructured" or "n:m" with 0 < n < m <= 64. Error(kInvalidInput) otherwise.
Pattern parse_pattern(std::string_view text);
std::string name(const Pattern& pattern);

}  // namespace brick::prune
