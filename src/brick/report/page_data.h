// What the page and the table read from a run's records, and how they write numbers. Used inside report/
// only.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace brick::report {

// Once through text: bytes that are not UTF-8 become U+FFFD, what is no number becomes null.
nlohmann::json cleaned(const nlohmann::json& records);
// The member, or null where there is none (or no object); it lives as long as `object`.
const nlohmann::json& at(const nlohmann::json& object, const char* key);
// The elements of an array member; none where it is no array.
const nlohmann::json& list(const nlohmann::json& object, const char* key);
std::optional<double> number(const nlohmann::json& value);  // none unless a finite number
std::optional<double> number(const nlohmann::json& object, const char* key);
std::string text(const nlohmann::json& object, const char* key);  // empty unless a string
// The finite numbers at both ends of a list; none if it has fewer than two elements or an end is missing.
struct Ends {
  double first = 0, last = 0;
};
std::optional<Ends> ends(const nlohmann::json& values);

// Numbers as text. kMissing stands for what was not measured.
inline constexpr const char* kMissing = "not measured";
std::string fixed(double value, int decimals);                     // 1.842, -0.031; 1.23e+04 where that would be long
std::string difference(double value, int decimals = 3);            // always signed
std::string count(double value);                                   // 12,345
std::string bytes(double value);                                   // 1.23 MB, powers of 1000
std::string duration(double seconds);                              // 12 min 30 s
std::string percent(double fraction);                              // 0.25 -> 25 %
std::string block_name(double sparsity);                           // 25 %, "whole (0 %)" for 0
std::string plural(int64_t n, const char* one, const char* many);  // 1 office, 4 offices
// a, b and c
std::string enumerated(const std::vector<std::string>& parts);

// A paired difference and what it says; lower is better, so below zero LEGO wins.
enum class Verdict { kUnknown, kBetter, kUnclear, kWorse };
struct Comparison {
  std::optional<double> mean, low, high;
  int64_t n = 0;
  bool has_interval() const { return low && high; }
  Verdict verdict() const;
  // The mean is against LEGO, whether or not the interval is.
  bool mean_is_worse() const { return mean && *mean > 0; }
};
const char* word(Verdict verdict);

// intervals[key] of a client; where it is absent, the mean alone: the difference of the two losses named.
Comparison compare(const nlohmann::json& client, const char* key, const char* loss, const char* reference);
inline Comparison lego_minus_local(const nlohmann::json& client) {
  return compare(client, "lego_minus_local", "block_lego", "block_local");
}
inline Comparison lego_minus_untuned(const nlohmann::json& client) {
  return compare(client, "lego_minus_untuned", "block_lego", "block_untuned");
}
inline Comparison llm_minus_untuned(const nlohmann::json& client) {
  return compare(client, "llm_lego_minus_untuned", "llm_lego", "llm_untuned");
}

std::string name_of(const nlohmann::json& object);  // "(without a name)" where it says none

// The sparsities of a run, rising, each with its own colour of page.css: 0 for the whole model, 1 to 5 for
// the blocks.
class Palette {
 public:
  explicit Palette(const nlohmann::json& run);
  int slot(std::optional<double> sparsity) const;

 private:
  std::vector<double> sparse_;
};

}  // namespace brick::report
