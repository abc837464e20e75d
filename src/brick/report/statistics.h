// Means over records or rounds, and how sure they are.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

namespace brick::report {

double mean(std::span<const double> values);  // at least one value

// sqrt(sum (x - mean)^2 / (n - 1)) / sqrt(n); none for fewer than two values.
std::optional<double> standard_error(std::span<const double> values);

struct Interval {
  double mean = 0;
  double low = 0, high = 0;
  double standard_error = 0;
  int64_t n = 0;
  bool excludes_zero() const { return low > 0 || high < 0; }
};

// mean -+ t * standard_error, t being the (1 + confidence) / 2 quantile of Student's t with n - 1 degrees of
// freedom (Student 1908): exact for normal values, a good approximation for means of many. None for fewer
// than two values. confidence in (0, 1).
std::optional<Interval> mean_interval(std::span<const double> values, double confidence = 0.95);

// The same for a[i] - b[i]: two models on the same records, where what is hard for both cancels.
// Errors: kMismatch if the sizes differ.
std::optional<Interval> paired_difference(std::span<const double> a, std::span<const double> b,
                                          double confidence = 0.95);

// P(T > t) for t >= 0: I_x(v/2, 1/2) / 2 with x = v / (v + t^2), v degrees of freedom > 0 and I the
// regularised incomplete beta function by its continued fraction (NIST DLMF 8.17.5 and 8.17.22, Lentz's
// method). Tested against exact values to a relative 1e-11.
double student_t_tail(double t, double degrees);

// The t with P(T <= t) = probability, in (0, 1), by bisection of the tail.
double student_t_quantile(double probability, double degrees);

}  // namespace brick::report
