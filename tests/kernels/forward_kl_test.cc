#include "brick/kernels/forward_kl.h"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

#include "brick/kernels/cross_entropy.h"
#include "kernels/reference.h"
#include "kernels/test_util.h"

namespace brick::kernels {
namespace {

// Sums of up to a few thousand float32 exponentials, as in cross_entropy_test.cc.
constexpr double kTolerance = 2e-6;
constexpr double kNat = 1.0;

// The formula of the header, outcome by outcome; q [T, k + 1].
template <class T>
ref::Array<T> mixed_loss(const ref::Array<T>& logits, const std::vector<int32_t>& targets, int64_t k,
                         const std::vector<int32_t>& ids, const std::vector<float>& q, double share) {
  ref::Array<T> losses = ref::cross_entropy(logits, targets);
  for (int64_t t = 0; t < logits.rows; ++t) {
    T sum = 0, others = 0, kl = 0;
    std::vector<bool> listed(static_cast<size_t>(logits.cols));
    for (int64_t i = 0; i < k; ++i) listed[static_cast<size_t>(ids[static_cast<size_t>(t * k + i)])] = true;
    for (int64_t v = 0; v < logits.cols; ++v) sum += std::exp(logits(t, v));
    for (int64_t v = 0; v < logits.cols; ++v)
      if (!listed[static_cast<size_t>(v)]) others += std::exp(logits(t, v));
    for (int64_t i = 0; i <= k; ++i) {
      const double probability = q[static_cast<size_t>(t * (k + 1) + i)];
      if (probability == 0) continue;
      const T p = (i < k ? std::exp(logits(t, ids[static_cast<size_t>(t * k + i)])) : others) / sum;
      kl += probability * (std::log(probability) - std::log(p));
    }
    losses(t, 0) = (1 - share) * losses(t, 0) + share * kl;
  }
  return losses;
}

struct Case {
  Grid logits, teacher;
  int64_t k;
  double share;
  std::vector<int32_t> targets, ids;
  std::vector<float> q;
  static constexpr float kWeight = 0.3f;

  Case(int64_t rows, int64_t cols, int64_t top, double of_teacher)
      : logits(Grid::random(rows, cols, 1, 3.0)), teacher(Grid::random(rows, cols, 2, 3.0)), k(top), share(of_teacher) {
    Rng rng(53);
    for (int64_t t = 0; t < rows; ++t) targets.push_back(static_cast<int32_t>(rng.below(static_cast<uint64_t>(cols))));
    ids.resize(static_cast<size_t>(rows * k));
    q.resize(static_cast<size_t>(rows * (k + 1)));
    Grid scratch = teacher;
    top_tokens(scratch.view(), k, ids.data(), q.data());
    EXPECT_TRUE(scratch.gaps_intact());
    for (float& value : q) value = std::exp(value);
  }
  ref::Array<double> want_losses() const { return mixed_loss(logits.exact(), targets, k, ids, q, share); }
  ref::Array<double> want_gradient() const {
    ref::Array<double> dy(logits.rows(), 1);
    for (double& value : dy.values) value = kWeight;
    return ref::gradient(logits.exact(), [&](const ref::Array<ref::Complex>& z) {
      return ref::inner(dy, mixed_loss(z, targets, k, ids, q, share));
    });
  }
  Grid gradient(Grid* losses) const {
    Grid out = logits;
    std::vector<float> dense(static_cast<size_t>(logits.rows()));
    forward_kl_backward(out.view(), targets.data(), {k, ids.data(), q.data()}, static_cast<float>(share), kWeight,
                        dense.data());
    *losses = Grid(logits.rows(), 1);
    for (int64_t t = 0; t < logits.rows(); ++t) (*losses)(t, 0) = dense[static_cast<size_t>(t)];
    return out;
  }
};

TEST(ForwardKl, LossAndGradientMatchDoubleReference) {
  for (const int64_t cols : {3, 31, 67})
    for (const int64_t k : {int64_t{1}, cols / 2, cols})
      for (const double share : {0.0, 0.5, 1.0}) {
        const Case c(5, cols, k, share);
        Grid losses(0, 0);
        expect_within("forward_kl gradient", worst_error(c.gradient(&losses), c.want_gradient(), Case::kWeight),
                      kTolerance);
        expect_within("forward_kl loss", worst_error(losses, c.want_losses(), kNat), kTolerance);
      }
}

TEST(ForwardKl, NegativeControlAPerturbedTeacherIsSeen) {
  const Case right(5, 31, 8, 0.5);
  Case wrong = right;
  std::swap(wrong.q[0], wrong.q[8]);  // of the first row: the likeliest and the others
  Grid losses(0, 0);
  EXPECT_GT(worst_error(wrong.gradient(&losses), right.want_gradient(), Case::kWeight), 10 * kTolerance);
  EXPECT_GT(worst_error(losses, right.want_losses(), kNat), 10 * kTolerance);
}

TEST(ForwardKl, OfAllTokensIsTheWholeDivergence) {
  const Case c(4, 67, 67, 1.0);
  ref::Array<double> whole(4, 1);
  for (int64_t t = 0; t < 4; ++t) {
    double student = 0, teacher = 0;
    for (int64_t v = 0; v < 67; ++v)
      student += std::exp(double{c.logits(t, v)}), teacher += std::exp(double{c.teacher(t, v)});
    for (int64_t v = 0; v < 67; ++v)
      whole(t, 0) += std::exp(double{c.teacher(t, v)}) / teacher *
                     (c.teacher(t, v) - std::log(teacher) - c.logits(t, v) + std::log(student));
  }
  Grid losses(0, 0);
  c.gradient(&losses);
  expect_within("whole forward KL", worst_error(losses, whole, kNat), kTolerance);
  const Case few(4, 67, 8, 1.0);
  Grid bound(0, 0);
  few.gradient(&bound);
  for (int64_t t = 0; t < 4; ++t) {
    EXPECT_LT(bound(t, 0), losses(t, 0));
    EXPECT_GT(bound(t, 0), 0);
  }
}

TEST(ForwardKl, IsZeroAtTheTeacher) {
  Case c(3, 300, 16, 1.0);
  c.logits = c.teacher;
  Grid losses(0, 0);
  const Grid gradient = c.gradient(&losses);
  for (int64_t t = 0; t < 3; ++t) {
    EXPECT_NEAR(losses(t, 0), 0, kTolerance);
    for (int64_t v = 0; v < 300; ++v) EXPECT_NEAR(gradient(t, v), 0, kTolerance);
  }
}

TEST(ForwardKl, WithoutTheTeachersTermIsCrossEntropy) {
  const Case c(4, 67, 8, 0.0);
  Grid losses(0, 0), want = c.logits;
  const Grid gradient = c.gradient(&losses);
  std::vector<float> want_losses(4);
  cross_entropy_backward(want.view(), c.targets.data(), Case::kWeight, want_losses.data());
  for (int64_t t = 0; t < 4; ++t) EXPECT_NEAR(losses(t, 0), want_losses[static_cast<size_t>(t)], kTolerance * kNat);
  expect_within("forward_kl beside cross_entropy", worst_error(gradient, want.exact(), Case::kWeight), kTolerance);
}

// The others' probability is far below what one minus the listed ones' could say.
TEST(ForwardKl, SmallRestsKeepTheirDigits) {
  Case c(1, 40, 4, 1.0);
  for (int64_t v = 0; v < 40; ++v) c.logits(0, v) = -30.0f - 0.1f * static_cast<float>(v);
  for (int64_t i = 0; i < 4; ++i) c.logits(0, c.ids[static_cast<size_t>(i)]) = static_cast<float>(i);
  Grid losses(0, 0);
  expect_within("forward_kl of small rests", worst_error(c.gradient(&losses), c.want_gradient(), Case::kWeight),
                kTolerance);
  expect_within("forward_kl of small rests", worst_error(losses, c.want_losses(), kNat), kTolerance);
}

TEST(ForwardKl, LargeLogitsNeitherOverflowNorVanish) {
  Case c(1, 40, 4, 0.5);
  for (int64_t v = 0; v < 40; ++v) c.logits(0, v) = -1e4f;
  c.logits(0, c.ids[0]) = 1e4f;
  Grid losses(0, 0);
  const Grid gradient = c.gradient(&losses);
  EXPECT_TRUE(std::isfinite(losses(0, 0)));
  for (int64_t v = 0; v < 40; ++v) EXPECT_LE(std::abs(gradient(0, v)), 1.0f) << v;
}

TEST(ForwardKl, ANotANumberMakesTheLossOne) {
  for (const int64_t at : {0, 17, 39}) {
    Case c(1, 40, 4, 0.5);
    c.logits(0, at) = std::nanf("");
    Grid losses(0, 0);
    c.gradient(&losses);
    EXPECT_TRUE(std::isnan(losses(0, 0))) << at;
  }
}

TEST(TopTokens, AreTheLargestInOrder) {
  Grid logits = Grid::random(3, 500, 4);
  logits(1, 20) = logits(1, 400) = 9.0f;  // equal: the lower id first
  const Grid before = logits;
  constexpr int64_t kTop = 7;
  std::vector<int32_t> ids(3 * kTop);
  std::vector<float> logs(3 * (kTop + 1));
  top_tokens(logits.view(), kTop, ids.data(), logs.data());
  EXPECT_EQ(ids[kTop], 20);
  EXPECT_EQ(ids[kTop + 1], 400);
  for (int64_t t = 0; t < 3; ++t) {
    std::vector<int32_t> order(500);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return before(t, a) > before(t, b); });
    double sum = 0, listed = 0;
    for (int64_t v = 0; v < 500; ++v) sum += std::exp(double{before(t, v)});
    for (int64_t i = 0; i < kTop; ++i) {
      const auto at = static_cast<size_t>(t * (kTop + 1) + i);
      EXPECT_EQ(ids[static_cast<size_t>(t * kTop + i)], order[static_cast<size_t>(i)]);
      EXPECT_NEAR(logs[at], before(t, order[static_cast<size_t>(i)]) - std::log(sum), kTolerance);
      listed += std::exp(double{logs[at]});
    }
    EXPECT_NEAR(std::exp(logs[static_cast<size_t>(t * (kTop + 1) + kTop)]), 1 - listed, kTolerance);
  }
}

}  // namespace
}  // namespace brick::kernels
