#include "brick/kernels/cross_entropy.h"

#include <gtest/gtest.h>

#include "kernels/reference.h"
#include "kernels/test_util.h"

namespace brick::kernels {
namespace {

// A sum of up to a few thousand exponentials, each good to a unit in the last place, and a logarithm.
constexpr double kTolerance = 2e-6;
constexpr double kNat = 1.0;  // a loss is compared in nats: below one, the rounding of a sum near one remains

struct Case {
  Grid logits;
  std::vector<int32_t> targets;
  float weight;

  Case(int64_t rows, int64_t cols, double deviation = 3.0)
      : logits(Grid::random(rows, cols, 1, deviation)), weight(0.7f / static_cast<float>(rows)) {
    Rng rng(52);
    for (int64_t t = 0; t < rows; ++t)
      targets.push_back(static_cast<int32_t>(t == 0 ? cols - 1 : rng.below(static_cast<uint64_t>(cols))));
  }
  ref::Array<double> want_losses() const { return ref::cross_entropy(logits.exact(), targets); }
  ref::Array<double> want_gradient() const {
    ref::Array<double> dy(logits.rows(), 1);
    for (int64_t t = 0; t < dy.rows; ++t) dy(t, 0) = weight;
    return ref::gradient(logits.exact(), [&](const ref::Array<ref::Complex>& z) {
      return ref::inner(dy, ref::cross_entropy(z, targets));
    });
  }
  Grid losses() const {
    Grid scratch = logits, out(logits.rows(), 1);
    std::vector<float> dense(static_cast<size_t>(logits.rows()));
    cross_entropy(scratch.view(), targets.data(), dense.data());
    for (int64_t t = 0; t < logits.rows(); ++t) out(t, 0) = dense[static_cast<size_t>(t)];
    EXPECT_TRUE(scratch.gaps_intact());
    return out;
  }
  Grid gradient(std::vector<float>* dense) const {
    Grid out = logits;
    dense->assign(static_cast<size_t>(logits.rows()), -1.0f);
    cross_entropy_backward(out.view(), targets.data(), weight, dense->data());
    return out;
  }
};

class CrossEntropySizes : public ::testing::TestWithParam<int64_t> {};

TEST_P(CrossEntropySizes, LossesMatchDoubleReference) {
  for (int64_t rows : {1, 2, 9}) {
    const Case c(rows, GetParam());
    expect_within("cross_entropy", worst_error(c.losses(), c.want_losses(), kNat), kTolerance);
  }
}

TEST_P(CrossEntropySizes, GradientMatchesComplexStep) {
  const Case c(5, GetParam());
  std::vector<float> losses;
  expect_within("cross_entropy_backward", worst_error(c.gradient(&losses), c.want_gradient()), kTolerance);
  for (int64_t t = 0; t < 5; ++t) EXPECT_EQ(losses[static_cast<size_t>(t)], c.losses()(t, 0));
}

INSTANTIATE_TEST_SUITE_P(Vocabulary, CrossEntropySizes, ::testing::Values(2, 3, 16, 31, 67, 300));

TEST(CrossEntropy, OneTokenHasNoLoss) {
  const Case c(2, 1);
  EXPECT_EQ(c.losses()(0, 0), 0.0f);
  std::vector<float> losses;
  EXPECT_EQ(c.gradient(&losses)(0, 0), 0.0f);
}

TEST(CrossEntropy, LargeVocabulary) {
  const Case c(3, 32003);
  expect_within("cross_entropy of 32003", worst_error(c.losses(), c.want_losses(), kNat), kTolerance);
}

TEST(CrossEntropy, LargeLogitsNeitherOverflowNorVanish) {
  Case c(2, 40, 1.0);
  for (int64_t v = 0; v < 40; ++v) {
    c.logits(0, v) += 1e4f;
    c.logits(1, v) = v == 7 ? 500.0f : -500.0f;
  }
  c.targets = {3, 8};
  expect_within("cross_entropy of large logits", worst_error(c.losses(), c.want_losses(), kNat), kTolerance);
}

// The target is the certain one: the loss is the logarithm of a sum near one, however large the logits.
TEST(CrossEntropy, SmallLossesOfLargeLogitsKeepTheirDigits) {
  constexpr double kSumRounding = 3e-7;  // two units of the float32 sum
  Case c(1, 20, 0.0);
  c.targets = {5};
  for (float base : {0.0f, 1000.0f, -3e5f}) {
    for (int64_t v = 0; v < 20; ++v) c.logits(0, v) = base + (v == 5 ? 8.0f : 0.0f);
    EXPECT_NEAR(c.losses()(0, 0), std::log1p(19 * std::exp(-8.0)), kSumRounding) << base;
  }
}

TEST(CrossEntropy, MinusInfinityIsNoProbability) {
  Case c(1, 40, 1.0);
  c.targets = {3};
  c.logits(0, 7) = c.logits(0, 39) = -std::numeric_limits<float>::infinity();
  expect_within("cross_entropy with -inf", worst_error(c.losses(), c.want_losses(), kNat), kTolerance);
  std::vector<float> losses;
  const Grid gradient = c.gradient(&losses);
  EXPECT_EQ(gradient(0, 7), 0.0f);
  EXPECT_EQ(gradient(0, 39), 0.0f);
}

TEST(CrossEntropy, ANotANumberMakesTheLossOne) {
  for (int64_t at : {0, 5, 17, 39}) {
    Case c(1, 40);
    c.targets = {8};
    c.logits(0, at) = std::nanf("");
    EXPECT_TRUE(std::isnan(c.losses()(0, 0))) << at;
  }
}

TEST(CrossEntropy, NegativeControlAPerturbedLogitIsSeen) {
  const Case right(5, 67);
  std::vector<float> losses;
  for (int64_t row : {0, 4}) {
    Case wrong = right;
    wrong.logits(row, right.targets[static_cast<size_t>(row)]) += 0.5f;
    EXPECT_GT(worst_error(wrong.losses(), right.want_losses(), kNat), 10 * kTolerance);
    EXPECT_GT(worst_error(wrong.gradient(&losses), right.want_gradient()), 10 * kTolerance);
  }
}

}  // namespace
}  // namespace brick::kernels
