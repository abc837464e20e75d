#include "brick/report/statistics.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "brick/base/error.h"

namespace brick::report {
namespace {

// The continued fraction of DLMF 8.17.22, which converges fast for x < (a + 1) / (a + b + 2).
double beta_fraction(double x, double a, double b) {
  constexpr double kTiny = 1e-300, kPrecision = 1e-16;
  constexpr int kMostTerms = 10000;
  const auto away_from_zero = [](double value) { return std::abs(value) < kTiny ? kTiny : value; };
  double c = 1, d = 1 / away_from_zero(1 - (a + b) * x / (a + 1)), value = d;
  for (int m = 1; m <= kMostTerms; ++m) {
    const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    double factor = 1;
    for (const double term : {even, odd}) {
      d = 1 / away_from_zero(1 + term * d);
      c = away_from_zero(1 + term / c);
      factor = c * d;
      value *= factor;
    }
    if (std::abs(factor - 1) < kPrecision) break;
  }
  return value;
}

// I_x(a, b); y = 1 - x is passed, since it would lose digits where x is near 1.
double incomplete_beta(double x, double y, double a, double b) {
  if (x <= 0) return 0;
  if (y <= 0) return 1;
  const double log_front = std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) + a * std::log(x) + b * std::log(y);
  if (x < (a + 1) / (a + b + 2)) return std::exp(log_front) * beta_fraction(x, a, b) / a;
  return 1 - std::exp(log_front) * beta_fraction(y, b, a) / b;
}

}  // namespace

double mean(std::span<const double> values) {
  BRICK_ASSERT(!values.empty());
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

std::optional<double> standard_error(std::span<const double> values) {
  if (values.size() < 2) return std::nullopt;
  const double centre = mean(values), n = static_cast<double>(values.size());
  double squares = 0;
  for (const double value : values) squares += (value - centre) * (value - centre);
  return std::sqrt(squares / (n - 1) / n);
}

std::optional<Interval> mean_interval(std::span<const double> values, double confidence) {
  BRICK_ASSERT(confidence > 0 && confidence < 1);
  const std::optional<double> error = standard_error(values);
  if (!error) return std::nullopt;
  const double t = student_t_quantile((1 + confidence) / 2, static_cast<double>(values.size() - 1));
  const double centre = mean(values);
  return Interval{centre, centre - t * *error, centre + t * *error, *error, static_cast<int64_t>(values.size())};
}

std::optional<Interval> paired_difference(std::span<const double> a, std::span<const double> b, double confidence) {
  if (a.size() != b.size())
    fail(ErrorCode::kMismatch, "a paired difference needs the same records twice; found {} and {} values", a.size(),
         b.size());
  std::vector<double> differences;
  for (size_t i = 0; i < a.size(); ++i) differences.push_back(a[i] - b[i]);
  return mean_interval(differences, confidence);
}

double student_t_tail(double t, double degrees) {
  BRICK_ASSERT(t >= 0 && degrees > 0);
  // Through (t / sqrt(v))^2, as t^2 alone may overflow.
  const double ratio = t / std::sqrt(degrees), square = ratio * ratio;
  const double x = 1 / (1 + square), y = std::isinf(square) ? 1 : square / (1 + square);
  return incomplete_beta(x, y, degrees / 2, 0.5) / 2;
}

double student_t_quantile(double probability, double degrees) {
  BRICK_ASSERT(probability > 0 && probability < 1 && degrees > 0);
  const double tail = std::min(probability, 1 - probability);
  const double sign = probability < 0.5 ? -1 : 1;
  double low = 0, high = 1;
  while (student_t_tail(high, degrees) > tail) {
    low = high;
    high *= 2;
  }
  for (;;) {
    const double middle = low + (high - low) / 2;
    if (middle <= low || middle >= high) return sign * low;
    (student_t_tail(middle, degrees) > tail ? low : high) = middle;
  }
}

}  // namespace brick::report
