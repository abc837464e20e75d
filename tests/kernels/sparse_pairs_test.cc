// The layout of two rows with two of every four columns, by each implementation that this CPU can run, against the
// stored weights in double.
#include "brick/kernels/sparse_pairs.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "brick/base/cpu.h"
#include "brick/base/parallel.h"
#include "brick/kernels/few_rows.h"
#include "brick/kernels/sparse_pairs_impl.h"
#include "kernels/test_util.h"

namespace brick::kernels {
namespace {

using tensor::DType;
using tensor::Mask;
using tensor::Matrix;

constexpr double kTolerance = 1e-6;  // of the sum of magnitudes: float32 sums

// Two of every four columns, any of the six choices.
Mask two_of_four(int64_t rows, int64_t cols) {
  Mask mask(rows, cols);
  Rng rng(93, static_cast<uint64_t>(rows * 10000 + cols));
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; c += 4)
      for (int64_t i = 0, kept = 0; i < 4; ++i) {
        const bool keep = rng.uniform() * static_cast<double>(4 - i) < static_cast<double>(2 - kept);
        mask.set(r, c + i, keep);
        kept += keep ? 1 : 0;
      }
  return mask;
}

Matrix sparse(const Mask& mask, DType dtype, uint64_t stream = 1) {
  return Matrix::sparse(tensor::SparseMatrix::encode(Grid::random(mask.rows(), mask.cols(), stream).view(), mask.view(),
                                                     tensor::SparseCoding::kValues, dtype));
}

// Largest error of a row's product with x [1, cols] over the sum of magnitudes.
double error(const Matrix& weight, const SparsePairs& pairs, PairDot dot, const Grid& x) {
  const tensor::Tensor expanded = weight.to_f32();
  double worst = 0;
  for (int64_t r = 0; r < weight.rows(); ++r) {
    double want = 0, magnitude = 1e-30;
    for (int64_t c = 0; c < weight.cols(); ++c) {
      const double term = double{expanded.f32()[r * weight.cols() + c]} * x(0, c);
      want += term;
      magnitude += std::fabs(term);
    }
    float got[2];
    dot(pairs.pair(r / 2), x.view().row(0), weight.cols(), got);
    if (!std::isfinite(got[r % 2])) return std::numeric_limits<double>::infinity();
    worst = std::max(worst, std::fabs(got[r % 2] - want) / magnitude);
  }
  return worst;
}

TEST(SparsePairs, MultipliesEveryShape) {
  for (auto [rows, cols] :
       {std::pair<int64_t, int64_t>{2, 16}, {4, 32}, {2, 48}, {6, 112}, {2, 128}, {4, 144}, {36, 576}, {10, 1536}})
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const Matrix weight = sparse(two_of_four(rows, cols), dtype);
      const SparsePairs pairs(weight.sparse_view());
      EXPECT_EQ(pairs.pairs(), rows / 2);
      const Grid x = Grid::random(1, cols, 2);
      const auto dot_of = [&](const PairKernels& kernels) { return dtype == DType::kF32 ? kernels.f32 : kernels.bf16; };
      expect_within("sparse pairs scalar", error(weight, pairs, dot_of(kPairsScalar), x), kTolerance);
      if (has_avx2()) expect_within("sparse pairs", error(weight, pairs, dot_of(kPairsAvx2), x), kTolerance);
    }
}

// As many bytes as the stored form and what pads the last block's places.
TEST(SparsePairs, TakeAValueAndTwoBitsForEachKeptWeight) {
  EXPECT_EQ(SparsePairs(sparse(two_of_four(4, 256), DType::kBF16).sparse_view()).bytes(), 4 * 128 * 9 / 4);
  EXPECT_EQ(SparsePairs(sparse(two_of_four(4, 256), DType::kF32).sparse_view()).bytes(), 4 * 128 * 17 / 4);
  EXPECT_EQ(SparsePairs(sparse(two_of_four(2, 16), DType::kBF16).sparse_view()).bytes(), 16 * 2 + 32);
}

TEST(SparsePairs, FitOnlyWhereEveryFourKeepTwo) {
  if (active_isa() < Isa::kAvx2) GTEST_SKIP() << "BRICK_ISA or this CPU has no AVX2";
  const auto fits = [](const Mask& mask, DType dtype) { return SparsePairs::fits(sparse(mask, dtype).sparse_view()); };
  for (int64_t cols : {16, 64, 80, 1536}) {
    const Mask right = two_of_four(6, cols);
    EXPECT_TRUE(fits(right, DType::kF32));
    EXPECT_TRUE(fits(right, DType::kBF16));
    EXPECT_FALSE(fits(right, DType::kF16));
    for (int64_t c : {int64_t{0}, cols - 1}) {
      Mask wrong = right;
      wrong.set(5, c, !right.kept(5, c));
      EXPECT_FALSE(fits(wrong, DType::kBF16));
    }
    Mask moved = right;  // as many kept in the row, not in its fours
    for (int64_t c = 0; c < 8; ++c) moved.set(5, c, c < 4);
    EXPECT_FALSE(fits(moved, DType::kBF16));
  }
  EXPECT_FALSE(fits(two_of_four(5, 64), DType::kBF16));  // an odd row
  EXPECT_FALSE(fits(two_of_four(2, 24), DType::kBF16));  // not in sixteens
}

TEST(SparsePairs, NegativeControlAChangedWeightOrPlaceIsSeen) {
  const Matrix weight = sparse(two_of_four(4, 160), DType::kBF16);
  const Grid x = Grid::random(1, 160, 2);
  for (const PairDot dot : {kPairsScalar.bf16, has_avx2() ? kPairsAvx2.bf16 : kPairsScalar.bf16})
    for (const int64_t at : {int64_t{0}, kPlacesBytes + 1}) {
      const SparsePairs pairs(weight.sparse_view());
      const_cast<std::byte*>(pairs.pair(1))[at] ^= std::byte{1};
      EXPECT_GT(error(weight, pairs, dot, x), 100 * kTolerance);
    }
}

Grid product(const Matrix& weight, const Grid& x, float beta, Compute compute = Compute::kF32) {
  Context context(compute);
  Grid y(x.rows(), weight.rows(), beta != 0.0f ? 2.0f : std::numeric_limits<float>::quiet_NaN());
  linear(context, weight, x.view(), beta, y.view());
  EXPECT_TRUE(y.gaps_intact());
  return y;
}

// That the last bits differ proves that another kernel ran. Context: float32.
TEST(PreparedWeights, LayOutTwoOfFourWhileTheyLive) {
  if (active_isa() < Isa::kAvx2) GTEST_SKIP() << "BRICK_ISA or this CPU has no AVX2";
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const Matrix weight = sparse(two_of_four(38, 176), dtype);
    const Matrix* const all[] = {&weight};
    for (int64_t tokens : {1, 2, 4})
      for (float beta : {0.0f, 1.0f}) {
        const Grid x = Grid::random(tokens, 176, 7), before = product(weight, x, beta);
        {
          const PreparedWeights prepared(Context(), all);
          // 19 pairs of 176 values and two blocks' places.
          EXPECT_EQ(prepared.extra_bytes(), 19 * (176 * tensor::info(dtype).block_bytes + 2 * 32) - weight.bytes());
          const Grid during = product(weight, x, beta);
          EXPECT_NE(during.memory(), before.memory());
          EXPECT_LE(worst_error(during, before.exact()), 1e-5);
        }
        EXPECT_EQ(product(weight, x, beta).memory(), before.memory());
      }
  }
}

TEST(PreparedWeights, OfTwoOfFourAreUsedInBf16ArithmeticToo) {
  if (active_isa() < Isa::kAvx2) GTEST_SKIP() << "BRICK_ISA or this CPU has no AVX2";
  const Matrix weight = sparse(two_of_four(38, 176), DType::kBF16);
  const Matrix* const all[] = {&weight};
  const Grid x = Grid::random(2, 176, 7), stored = product(weight, x, 0.0f, Compute::kBf16);
  const PreparedWeights held(Context(Compute::kBf16), all);
  const Grid laid_out = product(weight, x, 0.0f, Compute::kBf16);
  EXPECT_NE(laid_out.memory(), stored.memory());
  EXPECT_EQ(laid_out.memory(), product(weight, x, 0.0f).memory());
}

TEST(PreparedWeights, BothLayoutsInOneProduct) {
  const Matrix pairs = sparse(two_of_four(26, 96), DType::kBF16), stored = sparse(Mask(9, 96), DType::kBF16),
               lanes = Matrix::sparse(tensor::SparseMatrix::encode(
                   Grid::random(7, 96, 3).view(), two_of_four(7, 96).view(), tensor::SparseCoding::kQ4, DType::kQ4_1));
  const Grid x = Grid::random(3, 96, 4);
  const int before = threads();
  for (int count : {1, 2, 3}) {
    set_threads(count);
    Context context;
    context.set_rounds_activations(true);
    const Matrix* const all[] = {&pairs, &lanes};
    const PreparedWeights prepared(context, all);
    Grid a(3, 26), b(3, 9), c(3, 7), lone(3, 7);
    linear(context, std::vector<Product>{{&pairs, 0.0f, a.view()}, {&stored, 0.0f, b.view()}, {&lanes, 0.0f, c.view()}},
           x.view());
    linear(context, lanes, x.view(), 0.0f, lone.view());
    EXPECT_EQ(a.memory(), product(pairs, x, 0.0f).memory());
    EXPECT_EQ(b.memory(), Grid(3, 9, 0.0f).memory());
    EXPECT_EQ(c.memory(), lone.memory());
  }
  set_threads(before);
}

}  // namespace
}  // namespace brick::kernels
