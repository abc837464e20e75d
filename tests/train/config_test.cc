#include "brick/train/config.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "model/expect_error.h"

namespace brick::train {
namespace {

TEST(TuneConfig, DefaultsAreValid) { EXPECT_NO_THROW(TuneConfig().validate()); }

TEST(TuneConfig, ErrorsNameTheField) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN(), kInfinity = std::numeric_limits<double>::infinity();
  const std::vector<std::pair<std::string, std::function<void(TuneConfig&)>>> bad{
      {"rank = 0", [](TuneConfig& c) { c.rank = 0; }},
      {"rank = 4097", [](TuneConfig& c) { c.rank = 4097; }},
      {"alpha = 0", [](TuneConfig& c) { c.alpha = 0; }},
      {"alpha = nan", [](TuneConfig& c) { c.alpha = kNan; }},
      {"dropout = 1", [](TuneConfig& c) { c.dropout = 1; }},
      {"dropout = -0.1", [](TuneConfig& c) { c.dropout = -0.1; }},
      {"dropout = nan", [](TuneConfig& c) { c.dropout = kNan; }},
      {"lr = -1", [](TuneConfig& c) { c.lr = -1; }},
      {"lr = inf", [](TuneConfig& c) { c.lr = kInfinity; }},
      {"schedule = step", [](TuneConfig& c) { c.schedule = "step"; }},
      {"warmup = 1.5", [](TuneConfig& c) { c.warmup = 1.5; }},
      {"warmup = nan", [](TuneConfig& c) { c.warmup = kNan; }},
      {"weight_decay = -0.1", [](TuneConfig& c) { c.weight_decay = -0.1; }},
      {"clip = -1", [](TuneConfig& c) { c.clip = -1; }},
      {"epochs = 0", [](TuneConfig& c) { c.epochs = 0; }},
      {"epochs = inf", [](TuneConfig& c) { c.epochs = kInfinity; }},
      {"epochs = 1e+20", [](TuneConfig& c) { c.epochs = 1e20; }},
      {"steps = -1", [](TuneConfig& c) { c.steps = -1; }},
      {"batch_tokens = 1", [](TuneConfig& c) { c.batch_tokens = 1; }},
      {"batch_records = -1", [](TuneConfig& c) { c.batch_records = -1; }},
      {"accumulate = 0", [](TuneConfig& c) { c.accumulate = 0; }},
      {"length = 1", [](TuneConfig& c) { c.length = 1; }},
      {"loss = prompt", [](TuneConfig& c) { c.loss = "prompt"; }},
      {"memory = much", [](TuneConfig& c) { c.memory = "much"; }},
  };
  for (const auto& [message, spoil] : bad) {
    TuneConfig config;
    spoil(config);
    model::expect_error(ErrorCode::kInvalidInput, message, [&] { config.validate(); });
  }
  TuneConfig by_steps;  // then epochs do not matter
  by_steps.steps = 3;
  by_steps.epochs = 0;
  EXPECT_NO_THROW(by_steps.validate());
}

TEST(TuneConfig, FieldsAreNamedOnce) {
  std::vector<std::string> names;
  TuneConfig().fields([&](std::string_view name, auto&, std::string_view help) {
    EXPECT_EQ(std::count(names.begin(), names.end(), name), 0) << name;
    EXPECT_FALSE(help.empty()) << name;
    names.emplace_back(name);
  });
  EXPECT_EQ(names.size(), 21u);
}

}  // namespace
}  // namespace brick::train
