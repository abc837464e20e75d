#include "brick/kernels/norm.h"

#include <gtest/gtest.h>

#include "kernels/reference.h"
#include "kernels/test_util.h"

namespace brick::kernels {
namespace {

// Sums of at most a few hundred float32 terms in vector lanes, a square root, a division and three products.
constexpr double kTolerance = 2e-6;
constexpr float kEps = 1e-5f;

struct Case {
  Grid x, weight, dy, start;
  Case(int64_t rows, int64_t cols, double deviation = 1.0)
      : x(Grid::random(rows, cols, 1, deviation)),
        weight(Grid::random(1, cols, 2)),
        dy(Grid::random(rows, cols, 3)),
        start(Grid::random(rows, cols, 4)) {}

  ref::Array<double> want_y() const { return ref::rms_norm(x.exact(), weight.exact(), kEps); }
  ref::Array<double> want_dx() const {
    ref::Array<double> out = ref::gradient(x.exact(), [&](const ref::Array<ref::Complex>& z) {
      return ref::inner(dy.exact(), ref::rms_norm(z, weight.exact(), kEps));
    });
    for (size_t i = 0; i < out.values.size(); ++i) out.values[i] += start.exact().values[i];
    return out;
  }
  Grid y(std::vector<float>* inverse_rms) const {
    Grid out(x.rows(), x.cols());
    inverse_rms->resize(static_cast<size_t>(x.rows()));
    rms_norm(x.view(), weight.view().data, kEps, out.view(), inverse_rms->data());
    return out;
  }
  Grid dx() const {
    std::vector<float> inverse_rms;
    y(&inverse_rms);
    Grid out = start;
    rms_norm_backward(x.view(), weight.view().data, inverse_rms.data(), dy.view(), out.view());
    return out;
  }
};

class RmsNormSizes : public ::testing::TestWithParam<int64_t> {};

TEST_P(RmsNormSizes, ForwardMatchesDoubleReference) {
  for (int64_t rows : {1, 5, 40}) {
    const Case c(rows, GetParam());
    std::vector<float> inverse_rms;
    expect_within("rms_norm", worst_error(c.y(&inverse_rms), c.want_y()), kTolerance);
  }
}

TEST_P(RmsNormSizes, GradientIsAddedAndMatchesComplexStep) {
  const Case c(3, GetParam());
  expect_within("rms_norm_backward", worst_error(c.dx(), c.want_dx()), kTolerance);
}

INSTANTIATE_TEST_SUITE_P(Columns, RmsNormSizes, ::testing::Values(1, 3, 7, 8, 16, 17, 31, 64, 67, 130));

TEST(RmsNorm, TinyRowsAreHeldByEps) {
  const Case c(4, 33, 1e-4);  // the mean square is far below eps
  std::vector<float> inverse_rms;
  expect_within("rms_norm", worst_error(c.y(&inverse_rms), c.want_y()), kTolerance);
  expect_within("rms_norm_backward", worst_error(c.dx(), c.want_dx()), kTolerance);
}

TEST(RmsNorm, ZeroRowsStayZero) {
  const Case c(2, 20, 0.0);
  std::vector<float> inverse_rms;
  const Grid y = c.y(&inverse_rms);
  for (int64_t i = 0; i < 20; ++i) EXPECT_EQ(y(1, i), 0.0f);
  EXPECT_NEAR(inverse_rms[0], 1 / std::sqrt(kEps), 1e-3);
}

TEST(RmsNorm, NegativeControlAPerturbedInputIsSeen) {
  const Case right(3, 67);
  Case wrong = right;
  wrong.x(1, 5) += 1e-3f;
  std::vector<float> inverse_rms;
  EXPECT_GT(worst_error(wrong.y(&inverse_rms), right.want_y()), 10 * kTolerance);
  EXPECT_GT(worst_error(wrong.dx(), right.want_dx()), 10 * kTolerance);
  wrong = right;
  wrong.weight(0, 66) += 1e-3f;  // in the last, partial vector
  EXPECT_GT(worst_error(wrong.y(&inverse_rms), right.want_y()), 10 * kTolerance);
  EXPECT_GT(worst_error(wrong.dx(), right.want_dx()), 10 * kTolerance);
}

}  // namespace
}  // namespace brick::kernels
