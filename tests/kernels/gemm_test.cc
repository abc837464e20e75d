#include "brick/kernels/gemm.h"

#include <gtest/gtest.h>

#include "brick/base/parallel.h"
#include "kernels/reference.h"
#include "kernels/test_util.h"

namespace brick::kernels {
namespace {

// float32 sums of at most 300 products.
constexpr double kTolerance = 2e-6;

double at(const Grid& m, Trans trans, int64_t r, int64_t c) { return trans == Trans::kYes ? m(c, r) : m(r, c); }

struct Case {
  Trans trans_a, trans_b;
  float alpha, beta;
  Grid a, b, start;
  int64_t inner;

  Case(Trans ta, Trans tb, int64_t m, int64_t n, int64_t k, float scale, float keep)
      : trans_a(ta),
        trans_b(tb),
        alpha(scale),
        beta(keep),
        a(ta == Trans::kYes ? Grid::random(k, m, 1) : Grid::random(m, k, 1)),
        b(tb == Trans::kYes ? Grid::random(n, k, 2) : Grid::random(k, n, 2)),
        start(keep == 0.0f ? Grid(m, n) : Grid::random(m, n, 3)),  // NaN where it must not be read
        inner(k) {}

  Grid run() const {
    Grid c = start;
    gemm(trans_a, trans_b, alpha, a.view(), b.view(), beta, c.view());
    return c;
  }
  ref::Array<double> want() const {
    ref::Array<double> out(start.rows(), start.cols());
    for (int64_t r = 0; r < out.rows; ++r)
      for (int64_t c = 0; c < out.cols; ++c) {
        double sum = 0;
        for (int64_t i = 0; i < inner; ++i) sum += at(a, trans_a, r, i) * at(b, trans_b, i, c);
        out(r, c) = double{alpha} * sum + (beta == 0.0f ? 0.0 : double{beta} * start(r, c));
      }
    return out;
  }
};

constexpr std::array kBoth{Trans::kNo, Trans::kYes};

TEST(Gemm, MatchesDoubleReferenceInEveryOrientation) {
  for (Trans ta : kBoth)
    for (Trans tb : kBoth)
      for (auto [m, n, k] : {std::array<int64_t, 3>{1, 1, 1},
                             {1, 33, 17},
                             {7, 1, 64},
                             {5, 7, 1},
                             {64, 64, 64},
                             {65, 130, 67},
                             {3, 300, 200},
                             {129, 31, 300}})
        for (auto [alpha, beta] : {std::pair<float, float>{1, 0}, {1, 1}, {0.25f, 0.5f}}) {
          const Case c(ta, tb, m, n, k, alpha, beta);
          expect_within("gemm", worst_error(c.run(), c.want()), kTolerance);
        }
}

TEST(Gemm, AnEmptySumIsZero) {
  for (Trans ta : kBoth)
    for (float beta : {0.0f, 1.0f}) {
      const Case c(ta, Trans::kNo, 3, 5, 0, 1.0f, beta);
      EXPECT_EQ(worst_error(c.run(), c.want()), 0.0);
    }
}

TEST(Gemm, EmptyResultsAreLeftAlone) {
  const Case no_rows(Trans::kNo, Trans::kNo, 0, 5, 3, 1.0f, 0.0f),
      no_cols(Trans::kNo, Trans::kYes, 5, 0, 3, 1.0f, 0.0f);
  EXPECT_TRUE(no_rows.run().gaps_intact());
  EXPECT_TRUE(no_cols.run().gaps_intact());
}

TEST(Gemm, WorksInsideAParallelRegion) {
  const Case c(Trans::kNo, Trans::kYes, 33, 65, 70, 1.0f, 1.0f);
  std::vector<double> errors(8, 1.0);
  parallel_for(8, [&](int64_t i) { errors[static_cast<size_t>(i)] = worst_error(c.run(), c.want()); });
  for (double error : errors) expect_within("gemm in parallel", error, kTolerance);
}

TEST(Gemm, NegativeControlOnePerturbedValueIsSeen) {
  const Case right(Trans::kYes, Trans::kNo, 33, 65, 70, 1.0f, 1.0f);
  Case wrong = right;
  wrong.b(69, 64) += 1e-2f;
  EXPECT_GT(worst_error(wrong.run(), right.want()), 10 * kTolerance);
}

}  // namespace
}  // namespace brick::kernels
