// Reconstruction on whole small models.
#include "brick/prune/reconstruct.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "brick/base/error.h"
#include "brick/prune/prune.h"
#include "model/tiny_model.h"
#include "problems.h"

namespace brick::prune {
namespace {

using model::Model;
using model::Proj;

// Fewer tokens than dimensions, so that inputs go together as those of real models do.
constexpr int64_t kVocab = 24;

Model small_model() {
  model::TinyOptions options;
  options.vocab = kVocab;
  return model::tiny_model(options);
}

struct Text {
  explicit Text(uint64_t seed, int count = 24, int64_t length = 24) {
    Rng rng(seed);
    for (int i = 0; i < count; ++i) {
      std::vector<int32_t>& ids = stored.emplace_back();
      for (int64_t t = 0; t < length + i % 3; ++t) ids.push_back(static_cast<int32_t>(rng.below(kVocab)));
    }
    windows.assign(stored.begin(), stored.end());
  }
  std::vector<std::vector<int32_t>> stored;
  std::vector<std::span<const int32_t>> windows;
};

PruneConfig config_of(const std::string& method, double sparsity = 0.5) {
  PruneConfig config;
  config.method = method;
  config.sparsity = sparsity;
  config.values = "f32";
  config.block_columns = 16;
  config.piece_tokens = 100;
  config.descent_batch = 50;
  config.descent_rate = 1e-3;
  return config;
}

Model run(const Model& parent, const Text& text, const PruneConfig& config, PruneReport* report = nullptr) {
  kernels::Context context;
  return prune(parent, text.windows, config, context, silent_sink(), report);
}

// Mean over tokens of the last layer's relative squared error on text that the calibration has not seen.
double error_of(const Model& block, const Model& parent) {
  const Text fresh(99);
  kernels::Context context;
  model::Transformer ours(block, context, 32), theirs(parent, context, 32);
  double sum = 0;
  int64_t count = 0;
  for (const std::span<const int32_t> window : fresh.windows) {
    const std::vector<int64_t> offsets{0, static_cast<int64_t>(window.size())};
    const tensor::ConstMatView x = ours.forward({window, offsets}), y = theirs.forward({window, offsets});
    for (int64_t t = 0; t < x.rows; ++t, ++count) {
      double whole = 0, wrong = 0;
      for (int64_t c = 0; c < x.cols; ++c) {
        whole += static_cast<double>(y(t, c)) * static_cast<double>(y(t, c));
        wrong += std::pow(static_cast<double>(x(t, c)) - static_cast<double>(y(t, c)), 2);
      }
      sum += wrong / whole;
    }
  }
  return sum / static_cast<double>(count);
}

void expect_same_bits(const Model& a, const Model& b) {
  for (size_t layer = 0; layer < a.layers.size(); ++layer)
    for (const Proj proj : model::kProjs) {
      const tensor::Tensor x = a.layers[layer][proj].to_f32(), y = b.layers[layer][proj].to_f32();
      ASSERT_EQ(std::memcmp(x.f32(), y.f32(), x.bytes().size()), 0) << layer << " " << name(proj);
    }
}

TEST(Reconstruct, LowersTheErrorOfEveryMethodAndKeepsFirstMasks) {
  const Model parent = small_model();
  const Text text(5);
  for (const char* method : {"magnitude", "wanda", "sparsegpt"}) {
    const Model plain = run(parent, text, config_of(method));
    PruneReport report;
    const Model better = run(parent, text, config_of(std::string(method) + "+reconstruct"), &report);
    EXPECT_LT(error_of(better, parent), 0.9 * error_of(plain, parent)) << method;
    EXPECT_EQ(report.stream_errors.size(), 2u);
    EXPECT_EQ(better.block.method, std::string(method) + "+reconstruct");
    // The first layer has the inputs that it has without reconstruction: its masks are the method's.
    for (const Proj proj : model::kProjs) {
      const tensor::MaskView a = plain.layers[0][proj].sparse_view().mask,
                             b = better.layers[0][proj].sparse_view().mask;
      EXPECT_EQ(std::memcmp(a.bytes().data(), b.bytes().data(), a.bytes().size()), 0) << method << name(proj);
    }
  }
}

// Least squares alone and descent alone help, and together more.
TEST(Reconstruct, BothPartsHelp) {
  const Model parent = small_model();
  const Text text(5);
  const auto error = [&](int64_t steps, int64_t epochs) {
    PruneConfig config = config_of("wanda+reconstruct", 0.6);
    config.refit_steps = steps;
    config.descent_epochs = epochs;
    return error_of(run(parent, text, config), parent);
  };
  const double nothing = error(0, 0), fitted = error(30, 0), descended = error(0, 8), both = error(30, 8);
  EXPECT_NEAR(nothing, error_of(run(parent, text, config_of("wanda", 0.6)), parent), 1e-12);
  EXPECT_LT(fitted, nothing);
  EXPECT_LT(descended, nothing);
  EXPECT_LT(both, fitted);
}

// Each half's targets hold its own bias, once.
TEST(Reconstruct, LeastSquaresHelpWhereOutputsHaveBiases) {
  Model parent = small_model();
  for (model::Layer& layer : parent.layers) {
    layer.o_bias.assign(static_cast<size_t>(parent.config.hidden), 0.5f);
    layer.down_bias.assign(static_cast<size_t>(parent.config.hidden), -0.5f);
  }
  const Text text(5);
  PruneConfig config = config_of("wanda+reconstruct");
  config.descent_epochs = 0;
  EXPECT_LT(error_of(run(parent, text, config), parent), 0.9 * error_of(run(parent, text, config_of("wanda")), parent));
}

TEST(Reconstruct, SameSeedSameBitsOtherSeedOtherOrder) {
  const Model parent = small_model();
  const Text text(5);
  PruneConfig config = config_of("owl+wanda+reconstruct");
  const Model first = run(parent, text, config);
  expect_same_bits(first, run(parent, text, config));
  config.seed = 1;
  const Model other = run(parent, text, config);
  const tensor::Tensor a = first.layers[0][Proj::kUp].to_f32(), b = other.layers[0][Proj::kUp].to_f32();
  EXPECT_NE(std::memcmp(a.f32(), b.f32(), a.bytes().size()), 0);
}

TEST(Reconstruct, AFamilyEqualsSingleRuns) {
  const Model parent = small_model();
  const Text text(5);
  const std::vector<double> sparsities{0, 0.25, 0.5};
  kernels::Context context;
  PruneConfig config = config_of("owl+sparsegpt+reconstruct");
  const std::vector<Model> family = prune_family(parent, text.windows, sparsities, config, context, silent_sink());
  for (size_t i = 1; i < sparsities.size(); ++i) {
    config.sparsity = sparsities[i];
    expect_same_bits(family[i], run(parent, text, config));
  }
}

TEST(Reconstruct, GoesWithGroupsAndIsRecorded) {
  const Model parent = small_model();
  PruneConfig config = config_of("magnitude+reconstruct");
  config.pattern = "2:4";
  const Model block = run(parent, Text(5), config);
  EXPECT_EQ(block.layers[1][Proj::kDown].nonzeros() * 2, 32 * 64);
  const auto json = nlohmann::json::parse(block.block.provenance);
  EXPECT_EQ(json["config"]["method"], "magnitude+reconstruct");
  EXPECT_EQ(json["config"]["reconstruct"]["refit_steps"], 15);
  EXPECT_EQ(json["config"]["calibration"]["tokens"], 24 * 25);
}

TEST(Reconstruct, NeedsTextAndValuesThatMayChange) {
  const Model parent = small_model();
  const auto code = [&](const Text& text, const PruneConfig& config, const Model& model) {
    try {
      run(model, text, config);
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode::kInterrupted;  // nothing was thrown
  };
  EXPECT_EQ(code(Text(5, 0), config_of("magnitude+reconstruct"), parent), ErrorCode::kInvalidInput);
  model::TinyOptions options;
  options.vocab = kVocab;
  options.dtype = tensor::DType::kQ4_1;
  PruneConfig config = config_of("wanda+reconstruct");
  config.values = "keep";
  EXPECT_EQ(code(Text(5), config, model::tiny_model(options)), ErrorCode::kUnsupported);
  config = config_of("wanda+reconstruct");
  config.descent_rate = -1;
  EXPECT_EQ(code(Text(5), config, parent), ErrorCode::kInvalidInput);
  config = config_of("owl+wanda");
  config.pattern = "2:4";
  EXPECT_EQ(code(Text(5), config, parent), ErrorCode::kInvalidInput);
}

// The bias of down comes after the feed-forward, whose fit it must not touch; o's bias lies before it.
TEST(Reconstruct, FitsTheFeedForwardToTheStreamWithoutItsBias) {
  const Text text(5);
  PruneConfig config = config_of("wanda+reconstruct");
  config.descent_epochs = 0;
  Model parent = model::tiny_model({.layers = 1, .vocab = kVocab});
  const Model plain = run(parent, text, config);
  parent.layers[0].down_bias.assign(32, 2.0f);
  const Model biased = run(parent, text, config);
  parent.layers[0].down_bias.clear();
  parent.layers[0].o_bias.assign(32, 2.0f);
  const Model moved = run(parent, text, config);
  const auto up = [](const Model& block) {
    const tensor::Tensor values = block.layers[0][Proj::kUp].to_f32();
    return std::vector<float>(values.f32(), values.f32() + values.size());
  };
  EXPECT_EQ(up(biased), up(plain));
  EXPECT_NE(up(moved), up(plain));
  EXPECT_EQ(biased.layers[0].down_bias, std::vector<float>(32, 2.0f));
}

}  // namespace
}  // namespace brick::prune
