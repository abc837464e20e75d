#include "brick/report/page_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "brick/io/json_file.h"

namespace brick::report {

using nlohmann::json;

json cleaned(const json& records) { return json::parse(io::compact_json(records)); }

const json& at(const json& object, const char* key) {
  static const json kNull;
  if (!object.is_object()) return kNull;
  const auto found = object.find(key);
  return found == object.end() ? kNull : *found;
}

const json& list(const json& object, const char* key) {
  static const json kEmpty = json::array();
  const json& found = at(object, key);
  return found.is_array() ? found : kEmpty;
}

std::optional<double> number(const json& value) {
  if (!value.is_number()) return std::nullopt;
  const auto found = value.get<double>();
  return std::isfinite(found) ? std::optional(found) : std::nullopt;
}

std::optional<double> number(const json& object, const char* key) { return number(at(object, key)); }

std::string text(const json& object, const char* key) {
  const json& found = at(object, key);
  return found.is_string() ? found.get<std::string>() : "";
}

std::optional<Ends> ends(const json& values) {
  if (!values.is_array() || values.size() < 2) return std::nullopt;
  const auto first = number(values.front()), last = number(values.back());
  if (!first || !last) return std::nullopt;
  return Ends{*first, *last};
}

std::string fixed(double value, int decimals) {
  constexpr double kLong = 1e4;  // beyond it a table's column would burst
  if (std::abs(value) >= kLong) return fmt::format("{:.3g}", value);
  const std::string shown = fmt::format("{:.{}f}", value, decimals);
  const bool is_zero = shown.find_first_of("123456789") == std::string::npos;
  return is_zero && shown[0] == '-' ? shown.substr(1) : shown;
}

std::string difference(double value, int decimals) {
  const std::string shown = fixed(value, decimals);
  return shown[0] == '-' ? shown : "+" + shown;
}

std::string count(double value) {
  std::string digits = fmt::format("{:.0f}", std::abs(value));
  for (auto place = static_cast<int64_t>(digits.size()) - 3; place > 0; place -= 3)
    digits.insert(static_cast<size_t>(place), 1, ',');
  return (value < 0 && digits != "0" ? "-" : "") + digits;
}

std::string bytes(double value) {
  constexpr std::array<const char*, 5> kUnits = {"bytes", "kB", "MB", "GB", "TB"};
  size_t unit = 0;
  // 999.5 would be written as 1000: it belongs to the next unit.
  for (; std::abs(value) >= 999.5 && unit + 1 < kUnits.size(); ++unit) value /= 1000;
  const int decimals = unit == 0 || std::abs(value) >= 99.95 ? 0 : std::abs(value) >= 9.995 ? 1 : 2;
  return fmt::format("{:.{}f} {}", value, decimals, kUnits[unit]);
}

std::string duration(double seconds) {
  if (seconds < 9.95) return fmt::format("{:.1f} s", seconds);
  const double whole = std::round(seconds);
  const auto minutes = std::floor(whole / 60), hours = std::floor(minutes / 60);
  if (minutes < 1) return fmt::format("{:.0f} s", whole);
  if (hours < 1) return fmt::format("{:.0f} min {:02.0f} s", minutes, whole - minutes * 60);
  return fmt::format("{} h {:02.0f} min", count(hours), minutes - hours * 60);
}

std::string percent(double fraction) {
  const std::string tenths = fmt::format("{:.1f}", fraction * 100);
  return (tenths.ends_with(".0") ? tenths.substr(0, tenths.size() - 2) : tenths) + " %";
}

std::string block_name(double sparsity) { return sparsity == 0 ? "whole (0 %)" : percent(sparsity); }

std::string plural(int64_t n, const char* one, const char* many) {
  return count(static_cast<double>(n)) + " " + (n == 1 ? one : many);
}

std::string enumerated(const std::vector<std::string>& parts) {
  std::string out;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) out += i + 1 == parts.size() ? " and " : ", ";
    out += parts[i];
  }
  return out;
}

Verdict Comparison::verdict() const {
  if (!has_interval()) return Verdict::kUnknown;
  return *high < 0 ? Verdict::kBetter : *low > 0 ? Verdict::kWorse : Verdict::kUnclear;
}

const char* word(Verdict verdict) {
  switch (verdict) {
    case Verdict::kBetter:
      return "better";
    case Verdict::kUnclear:
      return "no clear difference";
    case Verdict::kWorse:
      return "worse";
    case Verdict::kUnknown:
      break;
  }
  return kMissing;
}

Comparison compare(const json& client, const char* key, const char* loss, const char* reference) {
  const json& interval = at(at(client, "intervals"), key);
  Comparison comparison{number(interval, "mean"), number(interval, "low"), number(interval, "high"),
                        static_cast<int64_t>(number(interval, "n").value_or(0))};
  if (!comparison.mean) {
    comparison = {};
    const auto ours = number(at(client, "loss"), loss), theirs = number(at(client, "loss"), reference);
    if (ours && theirs) comparison.mean = *ours - *theirs;
  }
  return comparison;
}

std::string name_of(const json& object) {
  const std::string name = text(object, "name");
  return name.empty() ? "(without a name)" : name;
}

Palette::Palette(const json& run) {
  for (const char* key : {"blocks", "clients"})
    for (const json& entry : list(run, key))
      if (const auto sparsity = number(entry, "sparsity"); sparsity && *sparsity > 0) sparse_.push_back(*sparsity);
  std::sort(sparse_.begin(), sparse_.end());
  sparse_.erase(std::unique(sparse_.begin(), sparse_.end()), sparse_.end());
}

int Palette::slot(std::optional<double> sparsity) const {
  constexpr int64_t kColours = 5;
  if (!sparsity || *sparsity <= 0) return 0;
  return static_cast<int>(1 +
                          (std::lower_bound(sparse_.begin(), sparse_.end(), *sparsity) - sparse_.begin()) % kColours);
}

}  // namespace brick::report
