#include "brick/train/optimizer.h"

#include <gtest/gtest.h>

#include "model/tiny_model.h"
#include "train/gradients.h"

namespace brick::train {
namespace {

using model::Adapter;
using model::LoraPair;
using model::Proj;

constexpr double kRelative = 1e-5;  // a few float32 operations a step, over kSteps steps
constexpr double kAbsolute = 1e-7;  // of numbers near 0.1
constexpr double kRate = 1e-12;     // doubles
constexpr int kSteps = 5;

Adapter random_adapter(uint64_t seed) {
  Adapter adapter =
      model::make_adapter(model::tiny_model(), {.rank = 3, .targets = model::parse_targets("q_proj,down_proj")}, 0);
  model::randomise(adapter, seed);
  return adapter;
}

// Loshchilov and Hutter 2019, Algorithm 2, for one number in double.
struct Reference {
  double p, m = 0, v = 0;

  void step(int t, double g, double lr, const AdamWConfig& c) {
    m = c.beta1 * m + (1 - c.beta1) * g;
    v = c.beta2 * v + (1 - c.beta2) * g * g;
    const double m_hat = m / (1 - std::pow(c.beta1, t)), v_hat = v / (1 - std::pow(c.beta2, t));
    p = p - lr * (m_hat / (std::sqrt(v_hat) + c.epsilon) + c.weight_decay * p);
  }
};

// The largest difference from the reference after kSteps steps, in units of the tolerance.
double worst_excess(const AdamWConfig& config, const AdamWConfig& reference) {
  constexpr double kScale = 0.5, kLr = 1e-2;
  Adapter parameters = random_adapter(1);
  std::vector<Reference> wanted;
  for_each_pair(parameters, [&](int64_t, Proj, const LoraPair& pair) {
    for (auto part : {&LoraPair::a, &LoraPair::b})
      for (int64_t i = 0; i < (pair.*part).size(); ++i) wanted.push_back({(pair.*part).f32()[i]});
  });
  AdamW optimizer(parameters, config);
  for (int t = 1; t <= kSteps; ++t) {
    const Adapter gradients = random_adapter(uint64_t(10 + t));
    optimizer.step(parameters, gradients, kScale, kLr / t);
    size_t n = 0;
    for_each_pair(gradients, [&](int64_t, Proj, const LoraPair& pair) {
      for (auto part : {&LoraPair::a, &LoraPair::b})
        for (int64_t i = 0; i < (pair.*part).size(); ++i)
          wanted[n++].step(t, kScale * (pair.*part).f32()[i], kLr / t, reference);
    });
  }
  EXPECT_EQ(optimizer.steps(), kSteps);
  double worst = 0;
  size_t n = 0;
  for_each_pair(parameters, [&](int64_t, Proj, const LoraPair& pair) {
    for (auto part : {&LoraPair::a, &LoraPair::b})
      for (int64_t i = 0; i < (pair.*part).size(); ++i, ++n)
        worst = std::max(
            worst, std::abs((pair.*part).f32()[i] - wanted[n].p) / (kAbsolute + kRelative * std::abs(wanted[n].p)));
  });
  return worst;
}

TEST(AdamW, IsTheAlgorithmOfThePaper) {
  const AdamWConfig decayed{.weight_decay = 0.1}, other{.beta1 = 0.8, .beta2 = 0.95, .epsilon = 1e-3};
  EXPECT_LE(worst_excess({}, {}), 1);
  EXPECT_LE(worst_excess(decayed, decayed), 1);
  EXPECT_LE(worst_excess(other, other), 1);
  // Negative controls: each setting is seen.
  EXPECT_GT(worst_excess({}, decayed), 1);
  EXPECT_GT(worst_excess({}, {.beta1 = 0.89}), 1);
  EXPECT_GT(worst_excess({}, {.beta2 = 0.998}), 1);
  EXPECT_GT(worst_excess({}, {.epsilon = 1e-5}), 1);
}

TEST(AdamW, NormAndZeroOfGradients) {
  Adapter gradients = zeros_like(random_adapter(1));
  EXPECT_EQ(gradient_norm(gradients), 0);
  gradients.at(0, Proj::kQ).a.f32()[1] = 3;
  gradients.at(1, Proj::kDown).b.f32()[2] = -4;
  EXPECT_DOUBLE_EQ(gradient_norm(gradients), 5);
  gradients.at(0, Proj::kQ).a.f32()[0] = 1e30f;  // its square is no float32
  EXPECT_NEAR(gradient_norm(gradients) / 1e30f, 1, kRelative);
  gradients.at(1, Proj::kQ).a.f32()[0] = NAN;
  EXPECT_TRUE(std::isnan(gradient_norm(gradients)));
  zero(gradients);
  EXPECT_EQ(gradient_norm(gradients), 0);
}

TEST(LearningRate, WarmsUpThenFollowsItsSchedule) {
  constexpr double kLr = 0.4;
  for (const char* schedule : {"constant", "linear", "cosine"}) {
    // Four of forty steps warm up: a quarter of the way each.
    for (int64_t step = 0; step < 4; ++step)
      EXPECT_NEAR(learning_rate(schedule, kLr, 0.1, step, 40), 0.1 * double(step + 1), kRate) << schedule;
    EXPECT_NEAR(learning_rate(schedule, kLr, 0.1, 4, 40), kLr, kRate) << schedule;
    EXPECT_NEAR(learning_rate(schedule, kLr, 0, 0, 40), kLr, kRate) << schedule;
    EXPECT_NEAR(learning_rate(schedule, kLr, 0, 0, 1), kLr, kRate) << schedule;
    EXPECT_GT(learning_rate(schedule, kLr, 0.1, 39, 40), 0) << schedule;
    // All of it warm-up, and a share that rounds up to one step.
    EXPECT_NEAR(learning_rate(schedule, kLr, 1, 39, 40), kLr, kRate) << schedule;
    EXPECT_NEAR(learning_rate(schedule, kLr, 0.03, 0, 20), kLr, kRate) << schedule;
  }
  // Half-way and a quarter of the 36 steps after the warm-up.
  EXPECT_NEAR(learning_rate("constant", kLr, 0.1, 39, 40), kLr, kRate);
  EXPECT_NEAR(learning_rate("linear", kLr, 0.1, 22, 40), kLr / 2, kRate);
  EXPECT_NEAR(learning_rate("linear", kLr, 0.1, 13, 40), kLr * 0.75, kRate);
  EXPECT_NEAR(learning_rate("cosine", kLr, 0.1, 22, 40), kLr / 2, kRate);
  EXPECT_NEAR(learning_rate("cosine", kLr, 0.1, 13, 40), kLr * (0.5 + std::sqrt(0.125)), kRate);
}

TEST(ForeseenSteps, FillTheTime) {
  EXPECT_EQ(foreseen_steps(30, 1, 8), 225);
  EXPECT_EQ(foreseen_steps(30, 100, 900), 200);
  EXPECT_EQ(foreseen_steps(30, 100, 2000), 100);
  // At an even pace a run stops before the step that would not end in time.
  int64_t steps = 1;
  while (steps < foreseen_steps(1, steps, 7.0 * static_cast<double>(steps))) ++steps;
  EXPECT_EQ(steps, 8);
}

}  // namespace
}  // namespace brick::train
