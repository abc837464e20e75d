// RIA by hand, and where it should win.
#include <gtest/gtest.h>

#include "problems.h"

namespace brick::prune {
namespace {

TEST(Ria, WeighsSharesOfRowAndColumn) {
  // Row sums 10 and 2, column sums 5, 3 and 4; ||x||^(1/2) = 1, 2, 1.
  //   row 0: 4/10 + 4/5 = 1.2, (2/10 + 2/3) 2 = 1.73, 4/10 + 4/4 = 1.4
  //   row 1: 1/2 + 1/5 = 0.7, (1/2 + 1/3) 2 = 1.67, 0
  const tensor::Tensor x = matrix_of(1, 3, {1, 4, 1});
  const tensor::Tensor weight = matrix_of(2, 3, {4, -2, 4, -1, 1, 0});
  const InputStatistics inputs = statistics_of(x.mat(), Needs::kColumnNorms);
  // int(6 * 0.34) = 2: up to the value at index 2, 1.2.
  const Pruned pruned = run("ria", weight, inputs, 0.34);
  EXPECT_EQ(row_of(pruned.outcome.mask, 0), "011");
  EXPECT_EQ(row_of(pruned.outcome.mask, 1), "010");
  EXPECT_EQ(pruned.weight.mat()(0, 1), -2.0f);  // what is kept stays
  // Wanda would have dropped one of each row.
  EXPECT_EQ(row_of(run("wanda", weight, inputs, 0.34).outcome.mask, 1), "110");
}

TEST(Ria, LosesOneMoreThanTheShare) {
  const tensor::Tensor x = correlated_inputs(50, 70, 1), weight = random_matrix(9, 70, 2);
  for (const double sparsity : {0.1, 0.5, 0.75, 0.99}) {
    const Pruned pruned = run("ria", weight, statistics_of(x.mat(), Needs::kColumnNorms), sparsity);
    EXPECT_EQ(630 - pruned.outcome.mask.view().count(), static_cast<int64_t>(630 * sparsity) + 1);
  }
}

TEST(Ria, EmptyRowsAndColumnsGoFirst) {
  const tensor::Tensor x = matrix_of(1, 3, {1, 1, 0});
  const tensor::Tensor weight = matrix_of(2, 3, {0, 0, 0, 0, 2, 3});
  EXPECT_EQ(row_of(run("ria", weight, statistics_of(x.mat(), Needs::kColumnNorms), 0.7).outcome.mask, 1), "010");
}

TEST(Ria, SameInputsSameMask) {
  const tensor::Tensor x = correlated_inputs(50, 70, 1), weight = random_matrix(40, 70, 2);
  const InputStatistics inputs = statistics_of(x.mat(), Needs::kColumnNorms);
  EXPECT_EQ(differing(run("ria", weight, inputs, 0.5).outcome.mask, run("ria", weight, inputs, 0.5).outcome.mask), 0);
}

// Rows of unlike scale whose weight lies in few entries or in many: to keep as many of each, as Wanda does, leaves more
// of the outputs' relative error.
TEST(Ria, BeatsWandaWhereRowsDiffer) {
  const int64_t rows = 24, cols = 96;
  const tensor::Tensor x = random_matrix(300, cols, 1);
  tensor::Tensor weight = random_matrix(rows, cols, 2);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      float& w = weight.mat()(r, c);
      w = r % 2 == 0 ? w * w * w : std::copysign(1.0f, w);
      w *= r % 3 == 0 ? 0.2f : 1.0f;
    }
  }
  const InputStatistics inputs = statistics_of(x.mat(), Needs::kColumnNorms);
  const auto relative_error = [&](const char* method) {
    const Pruned pruned = run(method, weight, inputs, 0.5);
    const tensor::Tensor zero = tensor::matrix(1, cols);
    double sum = 0;
    for (int64_t r = 0; r < rows; ++r) {
      const tensor::ConstMatView row = weight.mat().row_range(r, r + 1);
      sum += squared_output_error(x.mat(), row, pruned.weight.mat().row_range(r, r + 1)) /
             squared_output_error(x.mat(), row, zero.mat());
    }
    return sum / static_cast<double>(rows);
  };
  EXPECT_LT(relative_error("ria"), relative_error("wanda"));
}

}  // namespace
}  // namespace brick::prune
