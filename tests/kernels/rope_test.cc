#include "brick/kernels/rope.h"

#include <gtest/gtest.h>

#include "kernels/reference.h"
#include "kernels/test_util.h"

namespace brick::kernels {
namespace {

// Two products and a sum of rounded sines and cosines; the angle is float32 on both sides.
constexpr double kTolerance = 5e-7;

struct Case {
  int64_t head_dim;
  std::vector<float> frequency;
  std::vector<int32_t> positions;
  Grid x;

  Case(int64_t heads, int64_t dim, std::vector<int32_t> at)
      : head_dim(dim), positions(std::move(at)), x(Grid::random(std::ssize(positions), heads * dim, 1)) {
    for (int64_t i = 0; i < dim / 2; ++i)
      frequency.push_back(
          static_cast<float>(std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(dim))));
  }
  RopeTable table() const { return make_rope_table(frequency, 4096); }
  ref::Array<double> want() const { return ref::rope(x.exact(), positions, frequency); }
  ref::Array<double> want_dx() const {  // x plays the part of dy
    return ref::gradient(x.exact(), [&](const ref::Array<ref::Complex>& z) {
      return ref::inner(x.exact(), ref::rope(z, positions, frequency));
    });
  }
  Grid turned() const {
    Grid out = x;
    rope(table(), positions.data(), head_dim, out.view());
    return out;
  }
  Grid turned_back() const {
    Grid out = x;
    rope_backward(table(), positions.data(), head_dim, out.view());
    return out;
  }
};

std::vector<Case> cases() {
  return {{1, 2, {0, 1, 2}}, {3, 8, {0, 5, 5, 4095, 0, 17}}, {2, 64, {1000, 1001, 3}}, {5, 6, {7, 8}}};
}

TEST(Rope, TableHoldsCosinesAndSinesOfEachPosition) {
  const RopeTable table = make_rope_table({1.0f, 0.25f, 0.01f}, 100);
  EXPECT_EQ(table.half, 3);
  ASSERT_EQ(table.cosines.size(), 300u);
  ASSERT_EQ(table.sines.size(), 300u);
  EXPECT_EQ(table.cosines[0], 1.0f);
  EXPECT_EQ(table.sines[0], 0.0f);
  EXPECT_NEAR(table.cosines[3 * 40 + 1], std::cos(10.0), kTolerance);
  EXPECT_NEAR(table.sines[3 * 99 + 2], std::sin(0.99), kTolerance);
}

TEST(Rope, ForwardMatchesDoubleReference) {
  for (const Case& c : cases()) expect_within("rope", worst_error(c.turned(), c.want()), kTolerance);
}

// <dy, rope(x)> with dy = x: its derivative in the second factor is the backward of x.
TEST(Rope, GradientMatchesComplexStep) {
  for (const Case& c : cases()) expect_within("rope_backward", worst_error(c.turned_back(), c.want_dx()), kTolerance);
}

TEST(Rope, BackwardUndoesForward) {
  for (const Case& c : cases()) {
    Grid there = c.turned();
    rope_backward(c.table(), c.positions.data(), c.head_dim, there.view());
    expect_within("rope there and back", worst_error(there, c.x.exact()), 2 * kTolerance);
  }
}

TEST(Rope, PositionZeroChangesNothing) {
  const Case c(2, 8, {0, 0});
  EXPECT_EQ(c.turned().memory(), c.x.memory());
}

TEST(Rope, NegativeControlAPerturbedInputOrPositionIsSeen) {
  const Case right(3, 8, {2, 5, 9});
  Case wrong = right;
  wrong.x(1, 5) += 1e-4f;
  EXPECT_GT(worst_error(wrong.turned(), right.want()), 10 * kTolerance);
  EXPECT_GT(worst_error(wrong.turned_back(), right.want_dx()), 10 * kTolerance);
  wrong = right;
  wrong.positions[2] = 8;
  EXPECT_GT(worst_error(wrong.turned(), right.want()), 10 * kTolerance);
  EXPECT_GT(worst_error(wrong.turned_back(), right.want_dx()), 10 * kTolerance);
}

}  // namespace
}  // namespace brick::kernels
