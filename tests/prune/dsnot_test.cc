#include <gtest/gtest.h>

#include <tuple>

#include "problems.h"

namespace brick::prune {
namespace {

TEST(Dsnot, TradesPlacesTowardsAMeanOfZero) {
  // Two tokens; means (2, 1, 1, 0.1), variances (1, 1, 1, 0.01), norms sqrt(10), 2, 2, 0.1 sqrt(2)...
  const tensor::Tensor x = matrix_of(2, 4, {3, 2, 2, 0.2f, 1, 0, 0, 0});
  const tensor::Tensor weight = matrix_of(1, 4, {2, -1.5f, 1, 1});
  const InputStatistics inputs = statistics_of(x.mat(), Needs::kColumnNorms);
  EXPECT_NEAR(inputs.sums[0], 4.0, 1e-6);
  // Wanda drops columns 2 and 3, whose mean output is 1.1: too much. Column 3 comes back first (0.1 / 0.01 > 1 / 1),
  // then out goes column 1, of mean -1.5; the error is then -0.5 and nothing negative is left to come back.
  EXPECT_EQ(row_of(run("wanda", weight, inputs, 0.5).outcome.mask, 0), "1100");
  const Pruned pruned = run("dsnot", weight, inputs, 0.5);
  EXPECT_EQ(row_of(pruned.outcome.mask, 0), "1001");
  EXPECT_EQ(pruned.weight.mat()(0, 3), 1.0f);
}

// Wanda drops columns 1 and 3, the error is 0.5. Column 1 may come back for column 0, the other of its group: then it
// is 0.5 - 0.5 + 2, worse but of the same sign, and so the authors do it. In row 1 it would be 0.5 - 0.5 - 0.6.
TEST(Dsnot, GroupsTradeUntilTheErrorWouldChangeItsSign) {
  const tensor::Tensor x = matrix_of(2, 4, {1.5f, 1.5f, 1.5f, 1.5f, 0.5f, 0.5f, 0.5f, 0.5f});  // mean 1, variance 1/4
  const tensor::Tensor weight = matrix_of(2, 4, {2, 0.5f, 1, 0.0001f, -0.6f, 0.5f, 1, 0.0001f});
  const InputStatistics inputs = statistics_of(x.mat(), Needs::kColumnNorms);
  const Pruned pruned = run("dsnot", weight, inputs, 0.5, "1:2");
  EXPECT_EQ(row_of(run("wanda", weight, inputs, 0.5, "1:2").outcome.mask, 0), "1010");
  EXPECT_EQ(row_of(pruned.outcome.mask, 0).substr(0, 2), "01");
  EXPECT_EQ(row_of(pruned.outcome.mask, 1), "1010");
}

TEST(Dsnot, LeavesTheMatricesThatAreSkipped) {
  tensor::Tensor x = correlated_inputs(50, 70, 1);
  for (int64_t i = 0; i < x.size(); ++i) x.f32()[i] += 0.3f;
  const tensor::Tensor weight = random_matrix(9, 70, 2);
  const InputStatistics inputs = statistics_of(x.mat(), Needs::kColumnNorms);
  const tensor::Mask wanda = run("wanda", weight, inputs, 0.5).outcome.mask;
  for (const auto& [skip, attention_moves, mlp_moves] :
       {std::tuple("mlp", true, false), std::tuple("attention", false, true), std::tuple("none", true, true)}) {
    const MethodOptions options{.dsnot_skip = skip};
    EXPECT_EQ(differing(run("dsnot", weight, inputs, 0.5, "unstructured", options).outcome.mask, wanda) > 0,
              attention_moves)
        << skip;
    EXPECT_EQ(
        differing(run("dsnot", weight, inputs, 0.5, "unstructured", options, model::Proj::kUp).outcome.mask, wanda) > 0,
        mlp_moves)
        << skip;
  }
}

TEST(Dsnot, EachRowLosesTheSameCountAndEqualsItself) {
  tensor::Tensor x = correlated_inputs(50, 70, 1);
  const tensor::Tensor weight = random_matrix(9, 70, 2);
  for (int64_t i = 0; i < x.size(); ++i) x.f32()[i] += 0.3f;
  const InputStatistics inputs = statistics_of(x.mat(), Needs::kColumnNorms);
  for (const double sparsity : {0.1, 0.5, 0.75}) {
    const Pruned pruned = run("dsnot", weight, inputs, sparsity), again = run("dsnot", weight, inputs, sparsity);
    EXPECT_EQ(differing(pruned.outcome.mask, again.outcome.mask), 0);
    for (int64_t r = 0; r < 9; ++r)
      EXPECT_EQ(70 - pruned.outcome.mask.view().count_row(r), static_cast<int64_t>(70 * sparsity));
  }
}

TEST(Dsnot, BeatsWandaWhereInputsHaveMeans) {
  // Wide, as up to 50 weights of a row trade places.
  tensor::Tensor x = random_matrix(100, 1024, 1);
  for (int64_t i = 0; i < x.size(); ++i) x.f32()[i] = 0.3f * x.f32()[i] + 1.0f;
  const tensor::Tensor weight = random_matrix(8, 1024, 2);
  const InputStatistics inputs = statistics_of(x.mat(), Needs::kColumnNorms);
  for (const double sparsity : {0.5, 0.7}) {
    const auto error = [&](const char* method) {
      return squared_output_error(x.mat(), weight.mat(), run(method, weight, inputs, sparsity).weight.mat());
    };
    EXPECT_LT(error("dsnot"), error("wanda")) << sparsity;
  }
}

}  // namespace
}  // namespace brick::prune
