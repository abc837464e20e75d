// The whole model, backward and optimizer against PEFT on a small Llama (tests/golden/make_peft_golden.py).
#include <gtest/gtest.h>

#include <cstdio>

#include "brick/base/cpu.h"
#include "brick/train/trainer.h"
#include "train/golden.h"
#include "train/gradients.h"

namespace brick::train {
namespace {

using model::Activations;
using model::Proj;

// Both sides are float32 and add the same at most 96 products in another order. Measured: angle 1e-12, norm
// 4e-7, losses 1e-6; the bounds leave room for other instruction sets.
constexpr double kAngle = 1e-9;         // 1 - cosine
constexpr double kNorm = 1e-5;          // relative
constexpr double kLoss = 1e-5;          // of about 5
constexpr float kPerturbation = 0.05f;  // of one weight, for the negative controls

// So that BRICK_ISA chooses what all tests of this program run on.
class IsaLimit : public testing::Environment {
  void SetUp() override {
    kernels::apply_isa_limit();
    std::printf("instruction set: %s\n", name(active_isa()));
  }
};
const testing::Environment* const kIsaLimit = testing::AddGlobalTestEnvironment(new IsaLimit);

const Golden& golden() {
  static const Golden loaded = load_golden();
  return loaded;
}

bool same_gradients(const model::Adapter& gradients) {
  const Difference worst = worst_difference(gradients, golden().gradients);
  return worst.angle <= kAngle && worst.norm <= kNorm;
}

TuneConfig golden_config() {
  TuneConfig config;
  config.lr = golden().learning_rate;
  config.schedule = "constant";
  config.warmup = 0;
  config.clip = 0;
  config.steps = static_cast<int64_t>(golden().step_losses.size());
  config.batch_records = 1;
  config.shuffle = false;
  return config;
}

// The largest difference of a step's loss from PEFT's.
double worst_step_loss(const TuneConfig& config, model::Adapter* trained = nullptr) {
  double worst = 0;
  TuneOptions options;
  options.init = &golden().adapter;
  options.on_step = [&](const StepRecord& step) {
    worst = std::max(worst, std::abs(step.loss - golden().step_losses.at(static_cast<size_t>(step.step - 1))));
  };
  kernels::Context context;
  TuneResult result = tune(golden().model, golden().sequences, config, options, context, silent_sink());
  EXPECT_EQ(result.steps, config.steps);
  if (trained != nullptr) *trained = std::move(result.adapter);
  return worst;
}

TEST(PeftParity, LossOfAPackedBatch) {
  const double loss = loss_and_gradients(golden().model, {&golden().adapter, true}, golden().sequences).loss;
  EXPECT_NEAR(loss, golden().loss, kLoss);
  std::printf("loss difference %.1e\n", std::abs(loss - golden().loss));
}

TEST(PeftParity, GradientOfEveryMatrix) {
  const model::Adapter gradients =
      loss_and_gradients(golden().model, {&golden().adapter, true}, golden().sequences).gradients;
  int64_t matrices = 0;
  for_each_pair(gradients, [&](int64_t layer, Proj proj, const model::LoraPair& pair) {
    const model::LoraPair& wanted = golden().gradients.at(layer, proj);
    for (char factor : {'A', 'B'}) {
      const Difference d = factor == 'A' ? difference(pair.a, wanted.a) : difference(pair.b, wanted.b);
      EXPECT_LE(d.angle, kAngle) << peft_name(layer, proj, factor);
      EXPECT_LE(d.norm, kNorm) << peft_name(layer, proj, factor);
      ++matrices;
    }
  });
  EXPECT_EQ(matrices, 2 * 7 * 2);
  const Difference worst = worst_difference(gradients, golden().gradients);
  std::printf("worst 1 - cosine %.1e, worst relative norm %.1e\n", worst.angle, worst.norm);
}

TEST(PeftParity, RecomputedActivationsGiveTheSameBits) {
  const model::AdapterUse use{&golden().adapter, true};
  const auto kept = loss_and_gradients(golden().model, use, golden().sequences, Activations::kKeep);
  const auto again = loss_and_gradients(golden().model, use, golden().sequences, Activations::kRecompute);
  EXPECT_EQ(kept.loss, again.loss);
  EXPECT_TRUE(same_bits(kept.gradients, again.gradients));
}

TEST(PeftParity, TwentySteps) {
  model::Adapter trained;
  const double worst = worst_step_loss(golden_config(), &trained);
  EXPECT_LE(worst, kLoss);
  const Difference after = worst_difference(trained, golden().after);
  EXPECT_LE(after.angle, kAngle);
  EXPECT_LE(after.norm, kNorm);
  std::printf("worst loss difference %.1e; adapter after: 1 - cosine %.1e, relative norm %.1e\n", worst, after.angle,
              after.norm);
}

// Negative controls: what must be seen.

TEST(PeftParity, SeesOneChangedWeight) {
  model::Model changed = golden().model;
  tensor::Tensor weight = changed.layers[1][Proj::kV].to_f32();
  weight.f32()[5] += kPerturbation;
  changed.layers[1][Proj::kV] = tensor::Matrix::dense(std::move(weight));
  const auto result = loss_and_gradients(changed, {&golden().adapter, true}, golden().sequences);
  EXPECT_FALSE(same_gradients(result.gradients));
  EXPECT_GT(std::abs(result.loss - golden().loss), kLoss);
}

TEST(PeftParity, SeesOneChangedFactor) {
  model::Adapter changed = golden().adapter.clone();
  changed.at(0, Proj::kGate).a.f32()[7] += kPerturbation;
  EXPECT_FALSE(same_gradients(loss_and_gradients(golden().model, {&changed, true}, golden().sequences).gradients));
}

TEST(PeftParity, SeesAnotherSupervision) {
  std::vector<data::TokenSequence> changed = golden().sequences;
  changed[1].supervised[15] = 1;
  EXPECT_FALSE(same_gradients(loss_and_gradients(golden().model, {&golden().adapter, true}, changed).gradients));
}

TEST(PeftParity, SeesAnotherOptimizer) {
  TuneConfig decayed = golden_config();
  decayed.weight_decay = 0.1;
  EXPECT_GT(worst_step_loss(decayed), kLoss);
  TuneConfig clipped = golden_config();
  clipped.clip = 0.1;  // AdamW forgives a constant scale, but not one that differs from step to step
  EXPECT_GT(worst_step_loss(clipped), kLoss);
}

}  // namespace
}  // namespace brick::train
