// The layout without a mask, by its own definition and by each implementation that this CPU can run, against the stored
// weights in double.
#include "brick/kernels/sparse_lanes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "brick/base/cpu.h"
#include "brick/base/parallel.h"
#include "brick/kernels/few_rows.h"
#include "brick/kernels/sparse_lanes_impl.h"
#include "kernels/test_util.h"

namespace brick::kernels {
namespace {

using tensor::Mask;
using tensor::Matrix;

constexpr double kTolerance = 1e-6;  // of the sum of magnitudes: integers are exact, sums of groups in float32

Matrix four_bit(const Grid& weight, const Mask& mask) {
  return Matrix::sparse(
      tensor::SparseMatrix::encode(weight.view(), mask.view(), tensor::SparseCoding::kQ4, tensor::DType::kQ4_1));
}

// Each weight is kept with that probability.
Mask random_mask(int64_t rows, int64_t cols, double density) {
  Mask mask(rows, cols);
  Rng rng(91, static_cast<uint64_t>(rows * 10000 + cols));
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) mask.set(r, c, rng.uniform() < density);
  return mask;
}

struct Split {
  std::vector<float> memory;
  SplitRow row;
  explicit Split(const std::vector<float>& x) : memory(static_cast<size_t>(split_floats(std::ssize(x)))) {
    row = split_row(x.data(), std::ssize(x), memory.data());
  }
  double value(int64_t c) const { return double{row.scale} * (128 * row.high[c] + row.low[c]); }
};

std::vector<float> random_row(int64_t cols, uint64_t stream) {
  Rng rng(92, stream);
  std::vector<float> x(static_cast<size_t>(cols));
  for (float& value : x) value = static_cast<float>(rng.normal());
  return x;
}

// Largest error of a row's product against the stored weights times the split activations, over the sum of magnitudes.
double error(const Matrix& weight, const SparseLanes& lanes, AddTiles add_tiles, const Split& x) {
  const tensor::Tensor expanded = weight.to_f32();
  double worst = 0;
  for (int64_t p = 0; p < lanes.panels(); ++p) {
    const SparseLanes::Panel& panel = lanes.panel(p);
    std::vector<float> sums(static_cast<size_t>(panel.end - panel.begin));
    add_tiles(panel, x.row, sums.data());
    for (int64_t r = panel.begin; r < panel.end; ++r) {
      double want = 0, magnitude = 1e-30;
      for (int64_t c = 0; c < weight.cols(); ++c) {
        const double term = double{expanded.f32()[r * weight.cols() + c]} * x.value(c);
        want += term;
        magnitude += std::fabs(term);
      }
      const double got = double{x.row.scale} * sums[static_cast<size_t>(r - panel.begin)];
      if (!std::isfinite(got)) return std::numeric_limits<double>::infinity();
      worst = std::max(worst, std::fabs(got - want) / magnitude);
    }
  }
  return worst;
}

void expect_right(const Matrix& weight, const std::vector<float>& x) {
  const SparseLanes lanes(weight.sparse_view());
  const Split split(x);
  expect_within("sparse lanes scalar", error(weight, lanes, kAddTilesScalar, split), kTolerance);
  if (has_avx2()) expect_within("sparse lanes", error(weight, lanes, kAddTilesAvx2, split), kTolerance);
}
void expect_right(const Matrix& weight) { expect_right(weight, random_row(weight.cols(), 3)); }

TEST(SparseLanes, MultipliesEveryShapeAndShareOfKeptWeights) {
  for (auto [rows, cols] : {std::pair<int64_t, int64_t>{1, 1},
                            {1, 576},
                            {7, 15},
                            {8, 16},
                            {9, 17},
                            {16, 40},
                            {33, 96},
                            {40, 200},
                            {3, 1536},
                            {65, 333}})
    for (double density : {0.0, 0.01, 0.25, 0.5, 0.75, 0.97, 1.0})
      expect_right(four_bit(Grid::random(rows, cols, 1), random_mask(rows, cols, density)));
}

TEST(SparseLanes, MultipliesEmptyFullAndLonelyRowsSideBySide) {
  Mask mask = random_mask(23, 700, 0.3);
  for (int64_t c = 0; c < 700; ++c) {
    mask.set(0, c, false);
    mask.set(1, c, true);
    mask.set(2, c, c == 699);
    mask.set(3, c, c == 0);
    mask.set(4, c, c == 0 || c == 699);  // farther than a window moves
    mask.set(22, c, false);
  }
  expect_right(four_bit(Grid::random(23, 700, 2), mask));
}

TEST(SparseLanes, MultipliesGroupsWhoseValuesAllHaveOneSignOrAreEqual) {
  Grid weight = Grid::random(9, 128, 3);
  for (int64_t c = 0; c < 128; ++c) {
    weight(0, c) = std::fabs(weight(0, c)) + 1;
    weight(1, c) = -std::fabs(weight(1, c)) - 1;
    weight(2, c) = 0.75f;
    weight(3, c) = 0;
  }
  expect_right(four_bit(weight, random_mask(9, 128, 0.6)));
}

// 31 times value 15 times the ends of both parts of x: (63, 63), (63, -64) and (0, 63).
TEST(SparseLanes, SumsOfAGroupDoNotOverflow) {
  Grid weight(1, 64, 1.0f);
  weight(0, 0) = 0.0f;  // the others have value 15
  Mask mask(1, 64);
  for (int64_t c = 0; c < 32; ++c) mask.set(0, c, true);
  for (const float part : {8127.0f, 8000.0f, 63.0f})
    for (const float sign : {1.0f, -1.0f}) {
      std::vector<float> x(64, sign * part / 8127.0f);
      x[63] = 1;  // pruned; sets the scale
      expect_right(four_bit(weight, mask), x);
    }
}

TEST(SparseLanes, SplitActivationsAreWithinHalfAStep) {
  for (int64_t cols : {1, 5, 64, 1000}) {
    const std::vector<float> x = random_row(cols, 4);
    const Split split(x);
    for (int64_t c = 0; c < cols; ++c) {
      EXPECT_LE(std::fabs(split.value(c) - x[static_cast<size_t>(c)]), 0.5001 * split.row.scale);
      EXPECT_LE(std::abs(split.row.high[c]), 63);
      EXPECT_TRUE(split.row.low[c] >= -64 && split.row.low[c] <= 63);
    }
    for (int64_t c = cols; c < cols + kSplitSlack; ++c) EXPECT_EQ(split.row.high[c] | split.row.low[c], 0);
  }
  EXPECT_EQ(Split(std::vector<float>(3)).value(1), 0);
}

// In either track: two groups a row make two tiles of a panel of all rows.
TEST(SparseLanes, NegativeControlAChangedValuePlaceOrMoveIsSeen) {
  const int before = threads();
  set_threads(1);
  const Matrix weight = four_bit(Grid::random(16, 200, 5), random_mask(16, 200, 0.3));
  const SparseLanes right(weight.sparse_view());
  for (const AddTiles add_tiles : {kAddTilesScalar, has_avx2() ? kAddTilesAvx2 : kAddTilesScalar}) {
    const auto panel = [](SparseLanes & lanes) -> auto& { return const_cast<SparseLanes::Panel&>(lanes.panel(0)); };
    const Split x(random_row(200, 3));
    for (int64_t track = 0; track < kTracks; ++track) {
      SparseLanes value = right, place = right, move = right;
      const auto entry = [&](SparseLanes & lanes) -> auto& {
        std::byte* first = panel(lanes).steps[0].entries + track * kTrackBytes;
        return *std::find_if(first, first + kTrackBytes, [](std::byte used) { return used != std::byte{0}; });
      };
      entry(value) ^= std::byte{0x40};
      entry(place) ^= std::byte{0x02};
      panel(move).heads[kMovesAt] ^= std::byte{0x01} << (4 * track);
      for (const SparseLanes& wrong : {value, place, move})
        EXPECT_GT(error(weight, wrong, add_tiles, x), 100 * kTolerance);
    }
  }
  set_threads(before);
}

Grid product(const Matrix& weight, const Grid& x, float beta, Compute compute = Compute::kF32) {
  Context context(compute);
  context.set_rounds_activations(true);
  Grid y(x.rows(), weight.rows(), beta != 0.0f ? 2.0f : std::numeric_limits<float>::quiet_NaN());
  linear(context, weight, x.view(), beta, y.view());
  EXPECT_TRUE(y.gaps_intact());
  return y;
}

PreparedWeights prepared(std::vector<const Matrix*> weights, bool rounds = true) {
  Context context;
  context.set_rounds_activations(rounds);
  return {context, weights};
}

// That the last bits differ proves that another kernel ran; half a step of 14 bits in the largest |x| bounds them.
TEST(PreparedWeights, AreUsedWhileTheyLive) {
  if (active_isa() < Isa::kAvx2) GTEST_SKIP() << "BRICK_ISA or this CPU has no AVX2";
  const Matrix weight = four_bit(Grid::random(37, 160, 6), random_mask(37, 160, 0.4)), copy = weight;
  const tensor::Tensor expanded = weight.to_f32();
  for (int64_t tokens : {1, 2, 4})
    for (float beta : {0.0f, 1.0f}) {
      const Grid x = Grid::random(tokens, 160, 7), before = product(weight, x, beta);
      {
        const PreparedWeights first = prepared({&weight});
        EXPECT_EQ(first.empty(), false);
        EXPECT_NE(first.extra_bytes(), 0);
        const Grid during = product(copy, x, beta);
        EXPECT_NE(during.memory(), before.memory());
        for (int64_t t = 0; t < tokens; ++t)
          for (int64_t r = 0; r < 37; ++r) {
            double largest = 0, magnitude = 0;
            for (int64_t c = 0; c < 160; ++c) {
              largest = std::max(largest, std::fabs(double{x(t, c)}));
              magnitude += std::fabs(double{expanded.f32()[r * 160 + c]});
            }
            EXPECT_LE(std::fabs(double{during(t, r)} - before(t, r)), 0.6 / 8127 * largest * magnitude);
          }
        const PreparedWeights second = prepared({&copy});
        EXPECT_EQ(second.extra_bytes(), first.extra_bytes());
      }
      EXPECT_EQ(product(weight, x, beta).memory(), before.memory());
    }
}

TEST(PreparedWeights, LeaveOtherWeightsAndExactProductsAlone) {
  const Matrix sparse = four_bit(Grid::random(8, 64, 8), random_mask(8, 64, 0.5));
  const Matrix plain =
      Matrix::sparse(tensor::SparseMatrix::encode(Grid::random(8, 64, 8).view(), random_mask(8, 64, 0.5).view(),
                                                  tensor::SparseCoding::kValues, tensor::DType::kBF16));
  EXPECT_TRUE(prepared({&plain}).empty());
  EXPECT_TRUE(prepared({&sparse}, false).empty());
  const PreparedWeights held = prepared({&sparse});
  const Grid x = Grid::random(1, 64, 9);
  Context exact;
  Grid y(1, 8), want(1, 8);
  linear(exact, sparse, x.view(), 0.0f, y.view());
  linear(exact, four_bit(Grid::random(8, 64, 8), random_mask(8, 64, 0.5)), x.view(), 0.0f, want.view());
  EXPECT_EQ(y.memory(), want.memory());
}

TEST(PreparedWeights, SeveralProductsOfOneInputEqualEachAlone) {
  const Matrix first = four_bit(Grid::random(24, 96, 1), random_mask(24, 96, 0.5)),
               second = four_bit(Grid::random(5, 96, 2), random_mask(5, 96, 0.2)),
               stored = four_bit(Grid::random(9, 96, 3), random_mask(9, 96, 0.3));
  const PreparedWeights held = prepared({&first, &second});
  const Grid x = Grid::random(3, 96, 4);
  Grid a(3, 24), b(3, 5), c(3, 9);
  Context context;
  context.set_rounds_activations(true);
  const std::vector<Product> products{{&first, 0.0f, a.view()}, {&stored, 0.0f, c.view()}, {&second, 0.0f, b.view()}};
  linear(context, products, x.view());
  EXPECT_EQ(a.memory(), product(first, x, 0.0f).memory());
  EXPECT_EQ(b.memory(), product(second, x, 0.0f).memory());
  EXPECT_EQ(c.memory(), product(stored, x, 0.0f).memory());
}

TEST(PreparedWeights, OfFourBitsAreUsedInBf16ArithmeticWhereActivationsAreRounded) {
  if (active_isa() < Isa::kAvx2) GTEST_SKIP() << "BRICK_ISA or this CPU has no AVX2";
  const Matrix weight = four_bit(Grid::random(37, 160, 6), random_mask(37, 160, 0.4));
  const Matrix* const all[] = {&weight};
  Context context(Compute::kBf16);
  EXPECT_TRUE(PreparedWeights(context, all).empty());
  context.set_rounds_activations(true);
  const Grid x = Grid::random(2, 160, 7), stored = product(weight, x, 0.0f, Compute::kBf16);
  const PreparedWeights held(context, all);
  EXPECT_FALSE(held.empty());
  const Grid laid_out = product(weight, x, 0.0f, Compute::kBf16);
  EXPECT_NE(laid_out.memory(), stored.memory());
  EXPECT_EQ(laid_out.memory(), product(weight, x, 0.0f).memory());
}

// Another number of threads makes other panels: other last bits, the same weights.
TEST(SparseLanes, AnyNumberOfPanelsMultiplies) {
  const int before = threads();
  const Matrix weight = four_bit(Grid::random(50, 300, 10), random_mask(50, 300, 0.3));
  for (int count : {1, 3, 8}) {
    set_threads(count);
    EXPECT_EQ(SparseLanes(weight.sparse_view()).panels(), count);
    expect_right(weight);
  }
  const Grid x = Grid::random(2, 300, 11);
  for (int made : {1, 3, 8}) {
    set_threads(made);
    const PreparedWeights held = prepared({&weight});
    const Grid want = product(weight, x, 1.0f);
    for (int used : {1, 2, 5}) {
      set_threads(used);
      EXPECT_EQ(product(weight, x, 1.0f).memory(), want.memory());  // whoever makes a panel's sums
    }
  }
  set_threads(before);
}

}  // namespace
}  // namespace brick::kernels
