#include "brick/report/statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <vector>

#include "brick/base/error.h"
#include "brick/base/rng.h"

namespace brick::report {
namespace {

// lgamma's own error, a few units in the last place of values up to about 6,000.
constexpr double kRelative = 1e-11;
// Here lgamma's values are near 6e6 and cancel.
constexpr double kRelativeAtMillion = 1e-8;

struct TailCase {
  double t, degrees, tail;
};

// 40 digits of mpmath 1.3's betainc, rounded.
constexpr TailCase kTails[] = {{0.5, 1, 0.35241638234956673},     {1, 2, 0.21132486540518712},
                               {2, 3, 0.069662984279421588},      {12.5, 4, 0.0001178080234463499},
                               {1.96, 79, 0.026760992329303036},  {3, 1000, 0.0013833545221190962},
                               {1e-6, 7, 0.49999961500854917},    {40, 30, 6.8630225972032014e-28},
                               {1e10, 1, 3.1830988618379067e-11}, {2.5, 0.5, 0.20048526452664659}};

TEST(StudentT, TailAgreesWithExactValues) {
  for (const TailCase& c : kTails)
    EXPECT_NEAR(student_t_tail(c.t, c.degrees), c.tail, kRelative * c.tail) << c.t << " " << c.degrees;
  EXPECT_NEAR(student_t_tail(1.7, 1e6), 0.044565618245174385, kRelativeAtMillion);
  EXPECT_DOUBLE_EQ(student_t_tail(0, 5), 0.5);
  EXPECT_EQ(student_t_tail(1e300, 3), 0.0);
}

TEST(StudentT, TailIsNotTheNormals) {  // the negative control of the comparison above
  const double normal = 0.5 * std::erfc(1.96 / std::sqrt(2.0));
  EXPECT_GT(std::abs(student_t_tail(1.96, 79) - normal), 1e-3);
}

TEST(StudentT, QuantileAgreesWithExactValues) {
  EXPECT_NEAR(student_t_quantile(0.975, 1), 12.706204736174705, 1e-10);
  EXPECT_NEAR(student_t_quantile(0.975, 2), 4.3026527297494639, 1e-10);
  EXPECT_NEAR(student_t_quantile(0.975, 9), 2.2621571627982055, 1e-10);
  EXPECT_NEAR(student_t_quantile(0.995, 29), 2.7563859036706055, 1e-10);
  EXPECT_NEAR(student_t_quantile(0.975, 79), 1.9904502102301289, 1e-10);
  EXPECT_NEAR(student_t_quantile(0.5, 4), 0.0, 1e-10);
}

TEST(StudentT, QuantileInvertsTheTailAndIsOdd) {
  for (const double degrees : {1.0, 2.0, 5.0, 30.0, 500.0})
    for (const double p : {0.6, 0.9, 0.975, 0.999, 0.9999999}) {
      const double t = student_t_quantile(p, degrees);
      EXPECT_NEAR(student_t_tail(t, degrees), 1 - p, 1e-12);
      EXPECT_NEAR(student_t_quantile(1 - p, degrees), -t, 1e-7 * t);  // 1 - p is rounded
    }
}

TEST(StandardError, IsThatOfTheSample) {
  const std::vector<double> values{2, 4, 4, 4, 5, 5, 7, 9};
  EXPECT_DOUBLE_EQ(mean(values), 5);
  EXPECT_DOUBLE_EQ(*standard_error(values), std::sqrt(32.0 / 7 / 8));
  EXPECT_FALSE(standard_error(std::vector<double>{1}));
  EXPECT_FALSE(standard_error({}));
}

TEST(StandardError, KeepsItsDigitsFarFromZero) {
  const std::vector<double> values{1e9 + 1, 1e9 + 2, 1e9 + 3};
  EXPECT_DOUBLE_EQ(*standard_error(values), std::sqrt(1.0 / 3));
}

TEST(PairedDifference, SeesWhatSeparateIntervalsDoNot) {
  std::vector<double> a, b;
  for (int i = 0; i < 10; ++i) {
    b.push_back(10 * i);
    a.push_back(10 * i + 1 + 0.1 * (i % 2));
  }
  const auto paired = paired_difference(a, b);
  ASSERT_TRUE(paired);
  EXPECT_EQ(paired->n, 10);
  EXPECT_NEAR(paired->mean, 1.05, 1e-12);
  EXPECT_NEAR(paired->standard_error, 0.1 / 6, 1e-9);  // sd of 0, .1 five times each is .1 / 2 * sqrt(10 / 9)
  EXPECT_NEAR(paired->high - paired->mean, 2.2621571627982055 * paired->standard_error, 1e-12);
  EXPECT_NEAR(paired->mean - paired->low, paired->high - paired->mean, 1e-12);
  EXPECT_TRUE(paired->excludes_zero());
  EXPECT_GT(mean_interval(b)->high, mean_interval(a)->low);
}

TEST(PairedDifference, NeedsTheSameRecords) {
  EXPECT_FALSE(paired_difference(std::vector<double>{1}, std::vector<double>{2}));
  try {
    paired_difference(std::vector<double>{1, 2}, std::vector<double>{2});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kMismatch);
  }
}

TEST(MeanInterval, CoversAsOftenAsItSays) {
  constexpr int kTrials = 4000;
  Rng rng(1);
  int covered = 0;
  for (int trial = 0; trial < kTrials; ++trial) {
    std::vector<double> values(6);
    for (double& value : values) value = 3 + rng.normal();
    const Interval interval = *mean_interval(values, 0.9);
    covered += interval.low < 3 && 3 < interval.high;
  }
  // Five standard errors of a binomial share; a normal quantile in place of Student's would give 0.84.
  EXPECT_NEAR(covered / double{kTrials}, 0.9, 5 * std::sqrt(0.9 * 0.1 / kTrials));
}

}  // namespace
}  // namespace brick::report
