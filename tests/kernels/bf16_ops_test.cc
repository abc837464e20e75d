// Beside the same passes in float32 (norm.h, rope.h, swiglu.h) over the same rounded values.
#include "brick/kernels/bf16_ops.h"

#include <gtest/gtest.h>

#include <limits>
#include <numeric>

#include "brick/base/cpu.h"
#include "brick/kernels/norm.h"
#include "brick/kernels/swiglu.h"
#include "kernels/bf16_util.h"

namespace brick::kernels {
namespace {

constexpr double kRounding = 1.01 * kBf16Half;  // of the largest value: one rounding, and float32's

class Bf16Ops : public ::testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override {
    if (!has_bf16_arithmetic()) GTEST_SKIP() << "no bfloat16 arithmetic on " << name(active_isa());
  }
};

TEST_P(Bf16Ops, ConversionsRoundToNearestEven) {
  const Grid x = Grid::random(5, GetParam(), 1);
  Bf16Grid narrow(5, GetParam());
  to_bf16(x.view(), narrow.view());
  EXPECT_EQ(narrow.values().memory(), rounded(x).memory());
  Grid back(5, GetParam());
  to_f32(std::as_const(narrow).view(), back.view());
  EXPECT_EQ(back.memory(), narrow.values().memory());
}

TEST_P(Bf16Ops, InPlaceRowsStayWhereTheyWereWithZerosBehind) {
  Grid x = Grid::random(5, GetParam(), 1);
  const Grid want = rounded(x);
  const Bf16View y = to_bf16_in_place(x.view());
  for (int64_t r = 0; r < 5; ++r) {
    for (int64_t c = 0; c < GetParam(); ++c) EXPECT_EQ(tensor::bf16_to_f32(y(r, c)), want(r, c));
    EXPECT_EQ(y.row(r)[GetParam()], 0);
  }
}

TEST_P(Bf16Ops, TransposeFillsUpWithZeros) {
  for (const int64_t rows : {1, 5, 32, 45}) {
    const Bf16Grid x(Grid::random(rows, GetParam(), 1));
    for (const int64_t cols : {rows, rows + 7, rows + 64}) {
      Bf16Grid y(Grid(GetParam(), cols, 9.0f));
      transpose(x.view(), y.view());
      for (int64_t r = 0; r < GetParam(); ++r)
        for (int64_t c = 0; c < cols; ++c) ASSERT_EQ(y.view()(r, c), c < rows ? x.view()(c, r) : 0) << r << " " << c;
    }
  }
}

TEST_P(Bf16Ops, NormMatchesFloat32) {
  const Grid x = Grid::random(5, GetParam(), 1), weight = Grid::random(1, GetParam(), 2),
             dy = Grid::random(5, GetParam(), 3);
  Bf16Grid kept(5, GetParam()), y(5, GetParam()), again(5, GetParam());
  Grid want(5, GetParam());
  float rms[5], want_rms[5];
  rms_norm(x.view(), weight.view().row(0), 1e-5f, kept.view(), y.view(), rms);
  rms_norm(x.view(), weight.view().row(0), 1e-5f, want.view(), want_rms);
  expect_within("bf16 norm", worst_error(y.values(), want.exact()), kRounding);
  EXPECT_EQ(kept.values().memory(), rounded(x).memory());
  for (int r = 0; r < 5; ++r) EXPECT_NEAR(rms[r], want_rms[r], 1e-6 * want_rms[r]);
  rms_norm_again(std::as_const(kept).view(), weight.view().row(0), rms, again.view());
  expect_within("bf16 norm again", worst_error(again.values(), want.exact()), 2 * kRounding);

  Grid dx = Grid::random(5, GetParam(), 4), want_dx = dx;
  rms_norm_backward(std::as_const(kept).view(), weight.view().row(0), rms, dy.view(), dx.view());
  rms_norm_backward(rounded(x).view(), weight.view().row(0), rms, dy.view(), want_dx.view());
  expect_within("bf16 norm backward", worst_error(dx, want_dx.exact()), 2e-6);
}

TEST_P(Bf16Ops, RopeMatchesFloat32) {
  const int64_t head_dim = 2 * GetParam();
  std::vector<float> frequency(static_cast<size_t>(GetParam()));
  for (size_t i = 0; i < frequency.size(); ++i) frequency[i] = 1.0f / static_cast<float>(i + 1);
  const RopeTable table = make_rope_table(frequency, 8);
  const std::vector<int32_t> positions{0, 3, 7};
  Grid want = rounded(Grid::random(3, 2 * head_dim, 1));
  Bf16Grid x(want);
  const Grid before = want;
  rope(table, positions.data(), head_dim, x.view());
  rope(table, positions.data(), head_dim, want.view());
  expect_within("bf16 rope", worst_error(x.values(), want.exact()), kRounding);
  rope_backward(table, positions.data(), head_dim, x.view());
  expect_within("bf16 rope and back", worst_error(x.values(), before.exact()), 3 * kRounding);
}

TEST_P(Bf16Ops, SwigluMatchesFloat32) {
  const Grid gate = rounded(Grid::random(5, GetParam(), 1, 3.0)), up = rounded(Grid::random(5, GetParam(), 2));
  const Grid dy = rounded(Grid::random(5, GetParam(), 3));
  Bf16Grid g(gate), u(up), y(5, GetParam());
  Grid want(5, GetParam()), want_dg(5, GetParam()), want_du(5, GetParam());
  swiglu(std::as_const(g).view(), std::as_const(u).view(), y.view());
  swiglu(gate.view(), up.view(), want.view());
  swiglu_backward(gate.view(), up.view(), dy.view(), want_dg.view(), want_du.view());
  const Bf16Grid d(dy);
  swiglu_backward(g.view(), u.view(), d.view());
  expect_within("bf16 swiglu", worst_error(y.values(), want.exact()), kRounding);
  expect_within("bf16 swiglu dgate", worst_error(g.values(), want_dg.exact()), kRounding);
  expect_within("bf16 swiglu dup", worst_error(u.values(), want_du.exact()), kRounding);
}

INSTANTIATE_TEST_SUITE_P(Widths, Bf16Ops, ::testing::Values(1, 15, 16, 33, 64, 200));

TEST(Bf16OpsEdges, ExtremeGatesAndNumbersThatAreNoneComeThrough) {
  if (!has_bf16_arithmetic()) GTEST_SKIP() << "no bfloat16 arithmetic on " << name(active_isa());
  const float inf = std::numeric_limits<float>::infinity();
  Grid gate(1, 5), up(1, 5, 1.0f);
  const float values[] = {-500.0f, 500.0f, -inf, inf, std::numeric_limits<float>::quiet_NaN()};
  for (int64_t c = 0; c < 5; ++c) gate(0, c) = values[c];
  const Bf16Grid g(gate), u(up);
  Bf16Grid y(1, 5);
  swiglu(g.view(), u.view(), y.view());
  const Grid got = y.values();
  EXPECT_EQ(got(0, 0), 0.0f);
  EXPECT_EQ(got(0, 1), tensor::bf16_to_f32(tensor::f32_to_bf16(500.0f)));
  EXPECT_EQ(got(0, 3), inf);
  EXPECT_TRUE(std::isnan(got(0, 4)));
}

}  // namespace
}  // namespace brick::kernels
