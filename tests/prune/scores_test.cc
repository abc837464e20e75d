// Magnitude and Wanda on matrices small enough to prune by hand.
#include <gtest/gtest.h>

#include "brick/base/error.h"
#include "problems.h"

namespace brick::prune {
namespace {

TEST(Magnitude, ThresholdIsOfTheWholeMatrix) {
  const tensor::Tensor weight = matrix_of(2, 4, {1, -2, 3, -4, 5, -6, 7, 8});
  // int(8 * 0.25) = 2: the value at index 2 of the sorted ones, 3, goes as well.
  const Pruned quarter = run("magnitude", weight, {}, 0.25);
  EXPECT_EQ(row_of(quarter.outcome.mask, 0), "0001");
  EXPECT_EQ(row_of(quarter.outcome.mask, 1), "1111");
  EXPECT_FLOAT_EQ(quarter.weight.mat()(0, 3), -4.0f);
}

TEST(Magnitude, TiesAtTheThresholdAllGo) {
  const tensor::Tensor weight = matrix_of(1, 6, {1, 2, -2, 2, 3, 4});
  EXPECT_EQ(row_of(run("magnitude", weight, {}, 0.2).outcome.mask, 0), "000011");
}

TEST(Magnitude, GroupsKeepTheLargest) {
  const tensor::Tensor weight = matrix_of(2, 4, {1, -2, 3, -4, -8, 7, 6, -5});
  const Pruned pruned = run("magnitude", weight, {}, 0.5, "2:4");
  EXPECT_EQ(row_of(pruned.outcome.mask, 0), "0011");
  EXPECT_EQ(row_of(pruned.outcome.mask, 1), "1100");
  EXPECT_EQ(row_of(run("magnitude", weight, {}, 0.25, "1:4").outcome.mask, 1), "1110");
}

TEST(Wanda, WeighsByTheNormOfTheInputs) {
  // Column norms 1, 10, 1, 0.1: scores 4 20 2 0.1 and 1 10 3 0.4.
  const tensor::Tensor x = matrix_of(2, 4, {1, 6, 0, 0.1f, 0, -8, 1, 0});
  const tensor::Tensor weight = matrix_of(2, 4, {4, 2, -2, 1, 1, -1, 3, 4});
  const InputStatistics inputs = statistics_of(x.mat(), Needs::kColumnNorms);
  EXPECT_NEAR(inputs.sum_squares[1], 100.0, 1e-4);
  const Pruned pruned = run("wanda", weight, inputs, 0.5);
  EXPECT_EQ(row_of(pruned.outcome.mask, 0), "1100");
  EXPECT_EQ(row_of(pruned.outcome.mask, 1), "0110");
  EXPECT_FLOAT_EQ(pruned.weight.mat()(0, 0), 4.0f);  // what is kept stays
  EXPECT_EQ(row_of(run("wanda", weight, inputs, 0.5, "1:2").outcome.mask, 0), "0110");
}

TEST(Wanda, EachRowLosesTheSameCount) {
  const tensor::Tensor x = correlated_inputs(50, 70, 1), weight = random_matrix(9, 70, 2);
  for (const double sparsity : {0.1, 0.5, 0.75, 0.99}) {
    const Pruned pruned = run("wanda", weight, statistics_of(x.mat(), Needs::kColumnNorms), sparsity);
    for (int64_t r = 0; r < 9; ++r)
      EXPECT_EQ(70 - pruned.outcome.mask.view().count_row(r), static_cast<int64_t>(70 * sparsity));
  }
}

TEST(Magnitude, LosesOneMoreThanTheShare) {
  const tensor::Tensor weight = random_matrix(9, 70, 2);
  for (const double sparsity : {0.1, 0.5, 0.75, 0.99})
    EXPECT_EQ(630 - run("magnitude", weight, {}, sparsity).outcome.mask.view().count(),
              static_cast<int64_t>(630 * sparsity) + 1);
}

TEST(AllMethods, EveryGroupOfAPatternIsExact) {
  const tensor::Tensor x = correlated_inputs(200, 64, 5), weight = random_matrix(12, 64, 6);
  for (const Method& method : methods()) {
    if (method.prune == nullptr) continue;  // a whole layer's: Prune.EveryMethodGivesARunnableBlock
    for (const auto& [pattern, group, kept] : {std::tuple{"2:4", 4, 2}, {"4:8", 8, 4}, {"1:4", 4, 3}, {"1:2", 2, 1}}) {
      const Pruned pruned = run(std::string(method.name), weight, statistics_of(x.mat(), Needs::kHessian),
                                parse_pattern(pattern).sparsity(), pattern, {0.01, 16});
      for (int64_t r = 0; r < 12; ++r) {
        for (int64_t c = 0; c < 64; c += group) {
          int count = 0;
          for (int64_t i = 0; i < group; ++i) count += pruned.outcome.mask.kept(r, c + i) ? 1 : 0;
          ASSERT_EQ(count, kept) << method.name << " " << pattern << " row " << r << " column " << c;
        }
      }
    }
  }
}

TEST(AllMethods, RefuseAWidthThatIsNoWholeNumberOfGroups) {
  const tensor::Tensor x = correlated_inputs(20, 6, 5), weight = random_matrix(3, 6, 6);
  for (const Method& method : methods()) {
    if (method.prune == nullptr) continue;
    try {
      run(std::string(method.name), weight, statistics_of(x.mat(), Needs::kHessian), 0.5, "2:4");
      ADD_FAILURE() << method.name;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidInput);
      EXPECT_NE(std::string(error.what()).find("w: its 6 inputs"), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace brick::prune
