#include "brick/kernels/sparse_product.h"

#include <gtest/gtest.h>

#include "brick/tensor/mask.h"
#include "kernels/test_util.h"

namespace brick::kernels {
namespace {

constexpr double kTolerance = 1e-6;  // of the sum of magnitudes: float32 sums in two orders

struct Case {
  tensor::Mask mask;
  Grid weight;

  Case(int64_t rows, int64_t cols, double density) : mask(rows, cols), weight(rows, cols) {
    Rng rng(91, static_cast<uint64_t>(rows * 4096 + cols));
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < cols; ++c) {
        const bool keep = rng.uniform() < density;
        mask.set(r, c, keep);
        weight(r, c) = keep ? static_cast<float>(rng.normal()) : 0.0f;
      }
  }
  KeptRows rows(int64_t first, int64_t last) const {
    return {mask.view(), first, last,
            [this](int64_t r, float* out) { std::copy_n(weight.view().row(r), mask.cols(), out); }};
  }
};

// The worst |got - want| over want's sum of magnitudes, want = x W^T + beta y for W's rows [first, last), or x W.
double worst_product_error(const Case& c, int64_t first, int64_t last, bool by_column, int64_t tokens, float beta) {
  const int64_t rows = last - first, cols = c.mask.cols();
  const int64_t inputs = by_column ? rows : cols, outputs = by_column ? cols : rows;
  const Grid x = Grid::random(tokens, inputs, 5), before = Grid::random(tokens, outputs, 6);
  Grid y = beta == 0.0f ? Grid(tokens, outputs) : before;  // NaN where nothing of it may be read
  const KeptRows kept = c.rows(first, last);
  std::vector<float> memory(static_cast<size_t>(list_floats(kept)));
  std::vector<float> gathered(static_cast<size_t>(block_floats(tokens, inputs)));
  const KeptLists lists = by_column ? list_by_column(kept, memory.data()) : list_by_row(kept, memory.data());
  sparse_product(lists, block_tokens(x.view(), gathered.data()), beta, y.view());
  double worst = 0;
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t o = 0; o < outputs; ++o) {
      double want = beta == 0.0f ? 0.0 : before(t, o), magnitude = 1;
      for (int64_t i = 0; i < inputs; ++i) {
        const double term =
            static_cast<double>(x(t, i)) * (by_column ? c.weight(first + i, o) : c.weight(first + o, i));
        want += term;
        magnitude += std::fabs(term);
      }
      const double error = std::fabs(y(t, o) - want) / magnitude;
      if (!(error <= worst)) worst = error;
    }
  return y.gaps_intact() ? worst : std::numeric_limits<double>::infinity();
}

TEST(SparseProduct, AgreesWithTheDenseDefinition) {
  if (!has_sparse_product()) GTEST_SKIP() << "this CPU has no AVX2, or BRICK_ISA forbids it";
  for (const auto& [rows, cols] :
       {std::pair<int64_t, int64_t>{1, 1}, {8, 64}, {13, 70}, {96, 40}, {200, 131}, {70, 450}, {450, 70}})
    for (const double density : {0.0, 0.25, 1.0})
      for (const int64_t tokens : {1, 31, 32, 33, 70})
        for (const bool by_column : {false, true})
          for (const float beta : {0.0f, 1.0f}) {
            const Case c(rows, cols, density);
            expect_within("sparse_product", worst_product_error(c, 0, rows, by_column, tokens, beta), kTolerance);
            expect_within("sparse_product of some rows",
                          worst_product_error(c, rows / 3, rows, by_column, tokens, beta), kTolerance);
          }
}

TEST(SparseProduct, NegativeControlAForgottenWeightIsSeen) {
  if (!has_sparse_product()) GTEST_SKIP() << "this CPU has no AVX2, or BRICK_ISA forbids it";
  Case c(16, 64, 0.5);
  for (int64_t i = 0; i < 64; ++i)
    if (c.mask.kept(3, i)) {
      c.mask.set(3, i, false);  // the weight's matrix still has it
      break;
    }
  EXPECT_GT(worst_product_error(c, 0, 16, false, 40, 0.0f), 10 * kTolerance);
  EXPECT_GT(worst_product_error(c, 0, 16, true, 40, 0.0f), 10 * kTolerance);
}

// The worst |g - dy^T x| over its sum of magnitudes, at the kept weights of rows [first, rows).
double worst_sampled_error(const Case& c, int64_t first, bool by_column, int64_t tokens, float perturb = 0) {
  const int64_t rows = c.mask.rows(), cols = c.mask.cols();
  Grid x = Grid::random(tokens, cols, 7), dy = Grid::random(tokens, rows - first, 8);
  const KeptRows kept{c.mask.view(), first, rows};
  std::vector<float> memory(static_cast<size_t>(list_floats(kept)));
  std::vector<float> x_memory(static_cast<size_t>(block_floats(tokens, cols)));
  std::vector<float> dy_memory(static_cast<size_t>(block_floats(tokens, rows - first)));
  const TokenBlocks inputs = block_tokens(x.view(), x_memory.data()),
                    outputs = block_tokens(dy.view(), dy_memory.data());
  const KeptLists lists = by_column ? list_by_column(kept, memory.data()) : list_by_row(kept, memory.data());
  std::vector<float> g(static_cast<size_t>(list_count(kept)), -1.0f);
  sampled_product(lists, by_column ? inputs : outputs, by_column ? outputs : inputs, g.data());
  x(0, 0) += perturb;
  double worst = 0;
  int64_t listed = 0;
  for (int64_t s = 0; s < lists.stretches; ++s)
    for (int64_t o = 0; o < lists.outputs; ++o)
      for (int64_t k = 0; k < lists.kept(s, o); ++k) {
        ++listed;
        const int64_t place = lists.begin[s * lists.outputs + o] + k;
        const int64_t i = lists.weights[place].offset / kTokensAtATime, r = by_column ? i : o, col = by_column ? o : i;
        if (!c.mask.kept(first + r, col)) return std::numeric_limits<double>::infinity();
        double want = 0, magnitude = 1;
        for (int64_t t = 0; t < tokens; ++t) {
          want += static_cast<double>(dy(t, r)) * x(t, col);
          magnitude += std::fabs(static_cast<double>(dy(t, r)) * x(t, col));
        }
        const double error = std::fabs(g[static_cast<size_t>(place)] - want) / magnitude;
        if (!(error <= worst)) worst = error;
      }
  return listed == kept.count() ? worst : std::numeric_limits<double>::infinity();
}

TEST(SampledProduct, AgreesWithTheDenseDefinition) {
  if (!has_sparse_product()) GTEST_SKIP() << "this CPU has no AVX2, or BRICK_ISA forbids it";
  for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{1, 1}, {13, 70}, {96, 40}, {70, 450}})
    for (const double density : {0.0, 0.25, 1.0})
      for (const int64_t tokens : {1, 31, 32, 70})
        for (const int64_t first : {int64_t{0}, rows / 3})
          for (const bool by_column : {false, true})
            expect_within("sampled_product", worst_sampled_error(Case(rows, cols, density), first, by_column, tokens),
                          kTolerance);
}

TEST(SparseAndSampledProduct, IsBothProducts) {
  if (!has_sparse_product()) GTEST_SKIP() << "this CPU has no AVX2, or BRICK_ISA forbids it";
  for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{1, 1}, {13, 70}, {96, 140}, {450, 70}})
    for (const double density : {0.0, 0.25, 1.0})
      for (const int64_t tokens : {1, 32, 70})
        for (const float beta : {0.0f, 1.0f}) {
          const Case c(rows, cols, density);
          const KeptRows kept = c.rows(0, rows);
          std::vector<float> memory(static_cast<size_t>(list_floats(kept)));
          std::vector<float> x_memory(static_cast<size_t>(block_floats(tokens, cols)));
          std::vector<float> dy_memory(static_cast<size_t>(block_floats(tokens, rows)));
          const KeptLists lists = list_by_column(kept, memory.data());
          const Grid x = Grid::random(tokens, cols, 7), dy = Grid::random(tokens, rows, 8);
          const TokenBlocks u = block_tokens(x.view(), x_memory.data()), v = block_tokens(dy.view(), dy_memory.data());
          const Grid before = Grid::random(tokens, cols, 9);
          Grid want_y = before, y = before;
          std::vector<float> want_g(static_cast<size_t>(lists.count())), g(want_g.size(), -1.0f);
          sparse_product(lists, v, beta, want_y.view());
          sampled_product(lists, u, v, want_g.data());
          sparse_and_sampled_product(lists, u, v, beta, y.view(), g.data());
          for (size_t k = 0; k < g.size(); ++k) EXPECT_NEAR(g[k], want_g[k], 1e-4);
          for (int64_t t = 0; t < tokens; ++t)
            for (int64_t i = 0; i < cols; ++i) EXPECT_NEAR(y(t, i), want_y(t, i), 1e-4);
          EXPECT_TRUE(y.gaps_intact());
        }
}

TEST(SampledProduct, NegativeControlAPerturbedInputIsSeen) {
  if (!has_sparse_product()) GTEST_SKIP() << "this CPU has no AVX2, or BRICK_ISA forbids it";
  EXPECT_GT(worst_sampled_error(Case(16, 64, 1.0), 0, true, 40, 0.1f), 10 * kTolerance);
}

}  // namespace
}  // namespace brick::kernels
