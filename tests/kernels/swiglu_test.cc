#include "brick/kernels/swiglu.h"

#include <gtest/gtest.h>

#include "kernels/reference.h"
#include "kernels/test_util.h"

namespace brick::kernels {
namespace {

// Highway's exponential is good to one unit in the last place; a division and four products follow.
constexpr double kTolerance = 1e-6;

struct Case {
  Grid gate, up, dy;
  Case(int64_t rows, int64_t cols, double deviation = 2.0)
      : gate(Grid::random(rows, cols, 1, deviation)),
        up(Grid::random(rows, cols, 2)),
        dy(Grid::random(rows, cols, 3)) {}

  Grid y() const {
    Grid out(gate.rows(), gate.cols());
    swiglu(gate.view(), up.view(), out.view());
    return out;
  }
  ref::Array<double> want_y() const { return ref::swiglu(gate.exact(), up.exact()); }
  std::pair<Grid, Grid> gradients() const {
    std::pair<Grid, Grid> out{{gate.rows(), gate.cols()}, {gate.rows(), gate.cols()}};
    swiglu_backward(gate.view(), up.view(), dy.view(), out.first.view(), out.second.view());
    return out;
  }
  ref::Array<double> want_dgate() const {
    return ref::gradient(gate.exact(), [&, u = ref::Array<ref::Complex>(up.exact())](const auto& g) {
      return ref::inner(dy.exact(), ref::swiglu(g, u));
    });
  }
  ref::Array<double> want_dup() const {
    return ref::gradient(up.exact(), [&, g = ref::Array<ref::Complex>(gate.exact())](const auto& u) {
      return ref::inner(dy.exact(), ref::swiglu(g, u));
    });
  }
};

class SwigluSizes : public ::testing::TestWithParam<int64_t> {};

TEST_P(SwigluSizes, ForwardMatchesDoubleReference) {
  for (int64_t rows : {1, 3, 20}) {
    const Case c(rows, GetParam());
    expect_within("swiglu", worst_error(c.y(), c.want_y()), kTolerance);
  }
}

TEST_P(SwigluSizes, GradientsMatchComplexStep) {
  const Case c(2, GetParam());
  const auto [dgate, dup] = c.gradients();
  expect_within("swiglu_backward gate", worst_error(dgate, c.want_dgate()), kTolerance);
  expect_within("swiglu_backward up", worst_error(dup, c.want_dup()), kTolerance);
}

TEST_P(SwigluSizes, GradientsMayLieOverTheirInputs) {
  const Case c(9, GetParam());
  const auto [dgate, dup] = c.gradients();
  Case over = c;
  swiglu_backward(over.gate.view(), over.up.view(), over.dy.view(), over.gate.view(), over.up.view());
  EXPECT_EQ(over.gate.memory(), dgate.memory());
  EXPECT_EQ(over.up.memory(), dup.memory());
}

INSTANTIATE_TEST_SUITE_P(Columns, SwigluSizes, ::testing::Values(1, 3, 8, 15, 16, 17, 64, 67));

// Far out, where exp(-g) leaves float32: each value on its own scale, in vector lanes and in the remainder.
TEST(Swiglu, SaturatesForLargeGates) {
  for (float g : {-1e30f, -1000.0f, -300.0f, -200.0f, -180.0f, -120.0f, -90.0f, -80.0f, 80.0f, 200.0f, 1e30f}) {
    Case c(1, 35);
    for (int64_t i = 0; i < 35; ++i) {
      c.gate(0, i) = g;
      c.up(0, i) = c.dy(0, i) = 1.0f;
    }
    const Grid y = c.y();
    const auto [dgate, dup] = c.gradients();
    for (int64_t i : {0, 34}) {
      const double silu = g < 0 ? 0.0 : double{g}, slope = g < 0 ? 0.0 : 1.0;
      EXPECT_NEAR(y(0, i), silu, 1e-30 + kTolerance * silu) << g;
      EXPECT_NEAR(dup(0, i), silu, 1e-30 + kTolerance * silu) << g;
      EXPECT_NEAR(dgate(0, i), slope, 1e-30 + kTolerance) << g;
    }
  }
}

TEST(Swiglu, NotANumberIsNotHidden) {
  Case c(1, 35);
  for (int64_t i : {3, 34}) c.gate(0, i) = std::nanf("");
  const Grid y = c.y();
  const auto [dgate, dup] = c.gradients();
  for (int64_t i : {3, 34}) {
    EXPECT_TRUE(std::isnan(y(0, i)));
    EXPECT_TRUE(std::isnan(dgate(0, i)));
    EXPECT_TRUE(std::isnan(dup(0, i)));
  }
  EXPECT_FALSE(std::isnan(y(0, 4)));
}

TEST(Swiglu, NegativeControlAPerturbedInputIsSeen) {
  const Case right(2, 67);
  for (int64_t column : {5, 66}) {
    Case wrong = right;
    wrong.gate(1, column) += 1e-3f;
    EXPECT_GT(worst_error(wrong.y(), right.want_y()), 2 * kTolerance);
    EXPECT_GT(worst_error(wrong.gradients().first, right.want_dgate()), 2 * kTolerance);
    EXPECT_GT(worst_error(wrong.gradients().second, right.want_dup()), 2 * kTolerance);
  }
}

}  // namespace
}  // namespace brick::kernels
