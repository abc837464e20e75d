// Structured methods on whole models, and masks on what they leave.
#include "brick/prune/structured.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "brick/model/load.h"
#include "brick/model/save.h"
#include "brick/prune/registry.h"
#include "model/expect_error.h"
#include "whole_models.h"

namespace brick::prune {
namespace {

using model::Model;
using model::Proj;

PruneConfig structured(const std::string& method, double sparsity = 0.5, const std::string& values = "f32") {
  PruneConfig config = config_of(method, sparsity, values);
  config.width_multiple = 8;
  config.protect_first = config.protect_last = 0;
  return config;
}

// All methods, and LLM-Pruner's channels.
std::vector<PruneConfig> every_method(const std::string& values = "f32") {
  std::vector<PruneConfig> configs;
  for (const StructuredMethod& method : structured_methods())
    configs.push_back(structured(std::string(method.name), 0.5, values));
  configs.push_back(structured("llm-pruner", 0.5, values));
  configs.back().mode = "channel";
  return configs;
}

Model four_layers(uint64_t seed = 0) { return model::tiny_model({.layers = 4, .seed = seed}); }

double difference(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
  return std::sqrt(sum);
}

TEST(Structured, EveryMethodGivesASmallerBlockThatCanBeSaved) {
  const Model parent = four_layers();
  for (const PruneConfig& config : every_method()) {
    PruneReport report;
    const StructureNeeds needs = parse_recipe(config.method).structured->needs(config);
    const Model block = run(parent, Text(), config, &report);
    EXPECT_NEAR(report.sparsity, 0.5, 0.01) << config.method;
    EXPECT_NEAR(static_cast<double>(block.linear_parameters()), 0.5 * static_cast<double>(parent.linear_parameters()),
                0.01 * static_cast<double>(parent.linear_parameters()));
    EXPECT_TRUE(report.matrices.empty());
    EXPECT_TRUE(report.notes.empty());
    EXPECT_EQ(block.block.method, config.method);
    EXPECT_EQ(block.block.pattern, "structured");
    EXPECT_EQ(block.block.parent, model::fingerprint(parent));
    EXPECT_TRUE(block.block.mask_hash.empty());
    ASSERT_EQ(block.block.cut.has_value(), !needs.rotates);
    if (!needs.rotates) {
      EXPECT_EQ(block.block.cut->parent_layers, 4);
      EXPECT_EQ(block.block.cut->stream.has_value(), needs.narrows);
    }
    EXPECT_EQ(model::fingerprint(block) == block.block.parent, !needs.rotates);
    for (const float x : outputs(block)) ASSERT_TRUE(std::isfinite(x));
    EXPECT_NE(outputs(block), outputs(parent));

    const TempFolder folder;
    model::save_block(block, folder.path().string());
    const Model loaded = model::load_model(folder.path().string(), {.tokenizer = false});
    EXPECT_EQ(model::cut_hash(loaded), model::cut_hash(block));
    EXPECT_EQ(outputs(loaded), outputs(block));
  }
}

TEST(Structured, FamilyEqualsSingleRunsBitForBit) {
  const Model parent = four_layers();
  const Text text;
  const std::vector<double> sparsities{0.25, 0, 0.5};
  for (PruneConfig config : every_method("bf16")) {
    kernels::Context context;
    const std::vector<Model> family = prune_family(parent, text.windows, sparsities, config, context, silent_sink());
    ASSERT_EQ(family.size(), 3u);
    for (size_t i = 0; i < sparsities.size(); ++i) {
      config.sparsity = sparsities[i];
      const Model single = run(parent, text, config);
      expect_same_bits(family[i], single);
      EXPECT_EQ(model::cut_hash(family[i]), model::cut_hash(single));
      EXPECT_EQ(outputs(family[i]), outputs(single));
    }
    EXPECT_EQ(outputs(family[1]), outputs(parent));
    EXPECT_EQ(model::cut_hash(family[1]), "");
  }
}

TEST(Structured, PiecesOfTextOnlyRound) {
  const Model parent = four_layers();
  for (PruneConfig config : every_method()) {
    const Model first = run(parent, Text(), config);
    config.piece_tokens = 1000;
    const Model whole = run(parent, Text(), config);
    EXPECT_EQ(model::cut_hash(first), model::cut_hash(whole)) << config.method;
    EXPECT_LT(difference(outputs(first), outputs(whole)), 1e-3);
  }
}

// Inputs of a weight of the dense model, [N, in].
std::vector<std::vector<float>> inputs_of(const Model& model, const Text& text, int64_t layer, Proj proj) {
  kernels::Context context;
  model::Transformer transformer(model, context, 100);
  std::vector<std::vector<float>> rows;
  for (const std::span<const int32_t> window : text.windows) {
    tensor::Tensor x = tensor::matrix(static_cast<int64_t>(window.size()), model.config.hidden);
    const std::vector<int64_t> offsets{0, static_cast<int64_t>(window.size())};
    transformer.embed(window, x.mat());
    for (int64_t l = 0; l <= layer; ++l)
      transformer.layer_forward(l, offsets, x.mat(), [&](int64_t at, Proj of, tensor::ConstMatView inputs) {
        for (int64_t t = 0; at == layer && of == proj && t < inputs.rows; ++t)
          rows.emplace_back(inputs.row(t), inputs.row(t) + inputs.cols);
      });
  }
  return rows;
}

struct ColumnMoments {
  std::vector<double> mean, variance;
};

ColumnMoments moments(const std::vector<std::vector<float>>& rows) {
  ColumnMoments out;
  for (size_t c = 0; c < rows[0].size(); ++c) {
    double mean = 0, square = 0;
    for (const auto& row : rows) mean += static_cast<double>(row[c]) / static_cast<double>(rows.size());
    for (const auto& row : rows) square += std::pow(static_cast<double>(row[c]) - mean, 2);
    out.mean.push_back(mean);
    out.variance.push_back(square / static_cast<double>(rows.size()));
  }
  return out;
}

TEST(Flap, RemovesNeuronsOfLeastFluctuationAndKeepsTheirMean) {
  const Model parent = four_layers(3);
  const Text text(40);
  const Model block = run(parent, text, structured("flap", 0.4));
  int64_t layers_cut = 0;
  for (size_t layer = 0; layer < 4; ++layer) {
    const std::vector<int32_t>& kept = block.block.cut->layers[layer].neurons;
    EXPECT_EQ(kept.size() % 8, 0u);
    const ColumnMoments x = moments(inputs_of(parent, text, static_cast<int64_t>(layer), Proj::kDown));
    const tensor::Tensor weight = parent.layers[layer][Proj::kDown].to_f32();
    double most_removed = 0, least_kept = 1e30;
    std::vector<double> lost(32);
    for (int64_t c = 0; c < 64; ++c) {
      double norm = 0;
      for (int64_t r = 0; r < 32; ++r) norm += std::pow(static_cast<double>(weight.mat()(r, c)), 2);
      const double worth = x.variance[static_cast<size_t>(c)] * norm;
      if (std::binary_search(kept.begin(), kept.end(), c)) {
        least_kept = std::min(least_kept, worth);
        continue;
      }
      most_removed = std::max(most_removed, worth);
      for (int64_t r = 0; r < 32; ++r)
        lost[static_cast<size_t>(r)] += static_cast<double>(weight.mat()(r, c)) * x.mean[static_cast<size_t>(c)];
    }
    EXPECT_LT(most_removed, least_kept);
    const std::vector<float>& bias = block.layers[layer].down_bias;
    if (kept.size() == 64) {
      EXPECT_TRUE(bias.empty());
      continue;
    }
    ++layers_cut;
    ASSERT_EQ(bias.size(), 32u);
    for (size_t r = 0; r < 32; ++r) EXPECT_NEAR(bias[r], lost[r], 1e-5);
  }
  EXPECT_GT(layers_cut, 1);
}

TEST(Flap, RemovesHeadsThatAlwaysSayTheSame) {
  Model parent = four_layers();
  // Key/value head 1 of layer 2 gives next to nothing.
  tensor::Tensor values = parent.layers[2][Proj::kV].to_f32();
  for (int64_t i = 8 * 32; i < 16 * 32; ++i) values.f32()[i] *= 1e-3f;
  parent.layers[2][Proj::kV] = tensor::Matrix::dense(std::move(values));
  const Model block = run(parent, Text(), structured("flap", 0.5));
  EXPECT_EQ(block.block.cut->layers[2].kv_heads, (std::vector<int32_t>{0}));
  EXPECT_EQ(block.block.cut->layers[2].heads, (std::vector<int32_t>{0, 1}));
  EXPECT_EQ(block.layers[2].o_bias.size(), 32u);
}

std::vector<float> stream_of(const Model& model, const Text& text) {
  kernels::Context context;
  model::Transformer transformer(model, context, 100);
  std::vector<float> out;
  for (const std::span<const int32_t> window : text.windows) {
    const std::vector<int64_t> offsets{0, static_cast<int64_t>(window.size())};
    const tensor::ConstMatView x = transformer.forward({window, offsets});
    out.insert(out.end(), x.data, x.data + x.rows * x.cols);
  }
  return out;
}

TEST(Flap, BiasesBringTheBlockNearerToTheModel) {
  for (const uint64_t seed : {1u, 2u, 3u}) {
    const Model parent = model::tiny_model({.layers = 1, .seed = seed});
    const Text text(40);
    const Model block = run(parent, text, structured("flap", 0.5));
    Model without = block;
    without.layers[0].o_bias.clear();
    without.layers[0].down_bias.clear();
    const std::vector<float> want = stream_of(parent, text);
    EXPECT_LT(difference(stream_of(block, text), want), difference(stream_of(without, text), want));
  }
}

TEST(Flap, AddsToBiasesThatAreThere) {
  const Text text;
  const Model once = run(four_layers(), text, structured("flap", 0.25));
  const Model twice = run(once, text, structured("flap", 0.25));
  EXPECT_EQ(twice.block.method, "flap+flap");
  EXPECT_EQ(twice.block.cut->layers[0].parent.ffn, 64);
  for (size_t layer = 0; layer < 4; ++layer)
    EXPECT_TRUE(
        std::includes(once.block.cut->layers[layer].neurons.begin(), once.block.cut->layers[layer].neurons.end(),
                      twice.block.cut->layers[layer].neurons.begin(), twice.block.cut->layers[layer].neurons.end()));
  EXPECT_LT(static_cast<double>(twice.linear_parameters()), 0.6 * 4 * 9216);
}

TEST(ShortGpt, RemovesTheLayerThatTurnsLeast) {
  Model parent = four_layers();
  for (const Proj proj : {Proj::kO, Proj::kDown}) {
    tensor::Tensor weight = parent.layers[1][proj].to_f32();
    for (int64_t i = 0; i < weight.size(); ++i) weight.f32()[i] *= 1e-3f;
    parent.layers[1][proj] = tensor::Matrix::dense(std::move(weight));
  }
  const Model block = run(parent, Text(), structured("shortgpt", 0.25));
  ASSERT_EQ(block.layers.size(), 3u);
  EXPECT_EQ(block.config.layers, 3);
  std::vector<int64_t> kept;
  for (const model::LayerCut& cut : block.block.cut->layers) kept.push_back(cut.layer);
  EXPECT_EQ(kept, (std::vector<int64_t>{0, 2, 3}));
  EXPECT_LT(difference(outputs(block), outputs(parent)), 0.02 * difference(outputs(parent), std::vector<float>(320)));
  EXPECT_EQ(run(parent, Text(), structured("shortgpt", 0.99)).layers.size(), 1u);
}

TEST(ShortGpt, SaysWhatWholeLayersCameTo) {
  PruneReport report;
  run(four_layers(), Text(), structured("shortgpt", 0.4), &report);
  EXPECT_EQ(report.sparsity, 0.5);
  ASSERT_EQ(report.notes.size(), 1u);
  EXPECT_NE(report.notes[0].find("50.0 % of the linear weights instead of 40.0 %"), std::string::npos);
}

TEST(ShortGpt, LeavesMasksAndQuantisedWeightsAsTheyAre) {
  model::TinyOptions options{.layers = 4, .dtype = tensor::DType::kQ4_1};
  const Model masked = run(model::tiny_model(options), Text(), config_of("wanda", 0.5, "keep"));
  const Model block = run(masked, Text(), structured("shortgpt", 0.25, "keep"));
  EXPECT_EQ(block.block.method, "wanda+shortgpt");
  ASSERT_EQ(block.layers.size(), 3u);
  EXPECT_EQ(block.block.mask_hash, model::mask_hash(block));
  EXPECT_TRUE(block.layers[0][Proj::kUp].is_sparse());
}

TEST(MixedPruning, MasksWhatStructuredMethodsLeave) {
  const Model parent = four_layers();
  for (const StructuredMethod& first : structured_methods()) {
    const Model cut = run(parent, Text(), structured(std::string(first.name), 0.25));
    for (const char* second : {"magnitude", "wanda", "sparsegpt", "owl+wanda", "wanda+reconstruct"}) {
      PruneConfig config = config_of(second);
      config.descent_epochs = 1;
      PruneReport report;
      const Model block = run(cut, Text(), config, &report);
      EXPECT_EQ(block.block.method, std::string(first.name) + "+" + second);
      EXPECT_NEAR(report.sparsity, 0.5, 0.03);
      EXPECT_EQ(model::cut_hash(block), model::cut_hash(cut));
      EXPECT_FALSE(block.block.mask_hash.empty());
      for (size_t layer = 0; layer < block.layers.size(); ++layer) {
        EXPECT_EQ(block.layers[layer].shape, cut.layers[layer].shape);
        EXPECT_EQ(block.layers[layer].down_bias, cut.layers[layer].down_bias);
        for (const tensor::Matrix& weight : block.layers[layer].projections) EXPECT_TRUE(weight.is_sparse());
      }
      const auto settings = nlohmann::json::parse(block.block.provenance)["config"];
      EXPECT_NE(settings["pruned_before"].get<std::string>().find(first.name), std::string::npos);

      const TempFolder folder;
      model::save_block(block, folder.path().string());
      EXPECT_EQ(outputs(model::load_model(folder.path().string(), {.tokenizer = false})), outputs(block));
    }
  }
}

// What a block records is what bore on it.
TEST(Structured, RecordsTheSettingsThatItsMethodReads) {
  const Model parent = model::tiny_model({.layers = 3, .ffn = 128});
  const auto settings_of = [&](const PruneConfig& config) {
    return nlohmann::json::parse(run(parent, Text(), config).block.provenance)["config"];
  };
  const auto flap = settings_of(structured("flap", 0.25)), shortgpt = settings_of(structured("shortgpt", 0.34));
  for (const auto& settings : {flap, shortgpt})
    for (const char* other : {"protect_first", "importance", "mode", "refit_steps", "damping"})
      EXPECT_FALSE(settings.contains(other)) << settings["method"] << " " << other;
  EXPECT_TRUE(flap.contains("width_multiple"));
  EXPECT_FALSE(shortgpt.contains("width_multiple"));
  EXPECT_EQ(flap["calibration"]["windows"], 12);
  PruneConfig config = structured("llm-pruner", 0.25);
  EXPECT_EQ(settings_of(config)["protect_first"], config.protect_first);
  config.mode = "layer";
  config.sparsity = 0.34;
  EXPECT_FALSE(settings_of(config).contains("protect_first"));
}

PruneConfig mixed(const std::string& cutting, const std::string& masking, const std::string& values) {
  PruneConfig config = structured(cutting + "+" + masking, 0.5, values);
  config.structured_sparsity = 0.25;
  config.descent_epochs = 1;
  return config;
}

// The same in two calls.
Model in_turn(const Model& parent, const std::string& cutting, const std::string& masking, const std::string& values,
              const std::string& values_between) {
  const Model cut = run(parent, Text(), structured(cutting, 0.25, values_between));
  PruneConfig config = structured(masking, 0.5, values);
  config.descent_epochs = 1;
  return run(cut, Text(), config);
}

void expect_same_blocks(const Model& a, const Model& b) {
  expect_same_bits(a, b);
  EXPECT_EQ(a.block.method, b.block.method);
  EXPECT_EQ(a.block.sparsity, b.block.sparsity);
  EXPECT_EQ(a.block.values, b.block.values);
  EXPECT_EQ(a.block.pattern, b.block.pattern);
  EXPECT_EQ(model::cut_hash(a), model::cut_hash(b));
  EXPECT_EQ(outputs(a), outputs(b));  // biases too
}

TEST(MixedPruning, OneCallIsTwoBitForBit) {
  const Model parent = four_layers();
  for (const char* cutting : {"llm-pruner", "flap", "shortgpt"})
    for (const char* masking : {"magnitude", "wanda++", "owl+sparsegpt+reconstruct"}) {
      PruneReport report;
      const Model block = run(parent, Text(), mixed(cutting, masking, "bf16"), &report);
      expect_same_blocks(block, in_turn(parent, cutting, masking, "bf16", "f32"));
      EXPECT_EQ(block.block.method, std::string(cutting) + "+" + masking);
      const auto all = static_cast<double>(parent.linear_parameters());
      const auto kept = static_cast<double>(block.nonzeros() - (block.parameters() - block.linear_parameters()));
      EXPECT_NEAR(report.sparsity, 1 - kept / all, 1e-12);
      EXPECT_NEAR(report.sparsity, 1 - 0.75 * 0.5, 0.03);
    }
  // Negative control: values between the two count.
  EXPECT_NE(outputs(run(parent, Text(), mixed("flap", "sparsegpt", "bf16"))),
            outputs(in_turn(parent, "flap", "sparsegpt", "bf16", "bf16")));
}

TEST(MixedPruning, KeepsWhatTheParentHas) {
  const Model parent = model::tiny_model({.layers = 4, .dtype = tensor::DType::kQ4_1});
  const Model block = run(parent, Text(), mixed("shortgpt", "wanda", "keep"));
  expect_same_blocks(block, in_turn(parent, "shortgpt", "wanda", "keep", "keep"));
  EXPECT_EQ(block.layers[0][Proj::kUp].dtype(), tensor::DType::kQ4_1);
}

TEST(MixedPruning, FamilyOfOneCutEqualsSingleRunsBitForBit) {
  const Model parent = four_layers();
  const Text text;
  const std::vector<double> sparsities{0.25, 0.5};
  for (const bool true_sequential : {false, true}) {
    PruneConfig config = mixed("flap", "sparsegpt", "bf16");
    config.true_sequential = true_sequential;
    kernels::Context context;
    const std::vector<Model> family = prune_family(parent, text.windows, sparsities, config, context, silent_sink());
    ASSERT_EQ(family.size(), 2u);
    for (size_t i = 0; i < sparsities.size(); ++i) {
      config.sparsity = sparsities[i];
      expect_same_blocks(family[i], run(parent, text, config));
    }
  }
}

// Refuses to be told of work.
struct IdleSink : ProgressSink {
  void progress(const std::string& task, int64_t, int64_t, const std::string&, const std::string&) override {
    ADD_FAILURE() << task << " worked";
  }
};

TEST(MixedPruning, MistakesAreRefusedBeforeTheWork) {
  IdleSink sink;
  const auto refuse = [&](ErrorCode code, const char* part, const char* cutting, const char* masking, auto change) {
    PruneConfig config = mixed(cutting, masking, "bf16");
    change(config);
    model::expect_error(code, part, [&] { run(four_layers(), Text(), config, nullptr, sink); });
  };
  for (const double share : {0.0, 1.0, -0.1, std::nan("")})
    refuse(ErrorCode::kInvalidInput, "structured_sparsity", "flap", "wanda",
           [&](PruneConfig& c) { c.structured_sparsity = share; });
  refuse(ErrorCode::kInvalidInput, "flap by itself", "flap", "wanda", [](PruneConfig& c) { c.sparsity = 0; });
  refuse(ErrorCode::kInvalidInput, "removes 0.5", "flap", "wanda", [](PruneConfig& c) {
    c.pattern = "2:4";
    c.sparsity = 0.6;
  });
  refuse(ErrorCode::kInvalidInput, "layers' sparsities", "flap", "owl+wanda",
         [](PruneConfig& c) { c.pattern = "2:4"; });
  refuse(ErrorCode::kInvalidInput, "int3", "flap", "wanda", [](PruneConfig& c) { c.values = "int3"; });
  refuse(ErrorCode::kUnsupported, "prune twice", "slicegpt", "wanda", [](PruneConfig&) {});
  refuse(ErrorCode::kUnsupported, "prune twice", "llm-pruner", "wanda", [](PruneConfig& c) { c.mode = "channel"; });
}

TEST(MixedPruning, TakesPatternsForTheMasks) {
  PruneConfig config = mixed("flap", "wanda", "bf16");
  config.pattern = "2:4";
  const Model block = run(four_layers(), Text(), config);
  EXPECT_EQ(block.block.pattern, "2:4");
  EXPECT_EQ(2 * block.layers[0][Proj::kDown].nonzeros(),
            block.layers[0][Proj::kDown].rows() * block.layers[0].shape.ffn);
}

TEST(MixedPruning, LevelZeroOfABlockKeepsItsCut) {
  const Model cut = run(four_layers(), Text(), structured("flap", 0.25));
  const Model same = run(cut, Text(0), config_of("wanda", 0));
  EXPECT_EQ(model::cut_hash(same), model::cut_hash(cut));
  EXPECT_EQ(outputs(same), outputs(cut));
}

TEST(StructuredErrors, WhatCannotBeCut) {
  const Model parent = four_layers();
  const Text text;
  EXPECT_NE(failure(parent, Text(0), structured("flap"), ErrorCode::kInvalidInput).find("--calibration"),
            std::string::npos);
  failure(parent, text, structured("flap", 0.5, "int3"), ErrorCode::kInvalidInput);
  failure(parent, text, structured("flap", 1.5), ErrorCode::kInvalidInput);
  PruneConfig config = structured("flap");
  config.pattern = "2:4";
  EXPECT_NE(failure(parent, text, config, ErrorCode::kInvalidInput).find("2:4"), std::string::npos);
  config = structured("shortgpt");
  config.width_multiple = 0;
  failure(parent, text, config, ErrorCode::kInvalidInput);
  EXPECT_NE(failure(parent, text, structured("flap", 0.5, "q4"), ErrorCode::kInvalidInput).find("width_multiple"),
            std::string::npos);
  for (const char* wrong : {"flap+flap", "owl+flap", "flap+reconstruct"})
    EXPECT_NE(failure(parent, text, config_of(wrong), ErrorCode::kUnsupported).find("llm-pruner, flap, shortgpt"),
              std::string::npos);

  const Model masked = run(parent, text, config_of("wanda"));
  EXPECT_NE(failure(masked, text, structured("flap"), ErrorCode::kUnsupported).find("is masked"), std::string::npos);
  const Model quantised = model::tiny_model({.layers = 4, .dtype = tensor::DType::kQ4_1});
  EXPECT_NE(failure(quantised, text, structured("flap", 0.5, "keep"), ErrorCode::kUnsupported).find("--values"),
            std::string::npos);
  config = structured("flap", 0.5, "q4");
  config.width_multiple = 32;
  EXPECT_NE(failure(quantised, text, config, ErrorCode::kUnsupported).find("16 query channels"), std::string::npos);
  const Model wide = model::tiny_model({.layers = 4, .head_dim = 32, .dtype = tensor::DType::kQ4_1});
  EXPECT_EQ(run(wide, text, config).layers[0][Proj::kDown].dtype(), tensor::DType::kQ4_1);
}

TEST(StructuredErrors, NarrowBlocksThatCannotBeHeldAreRefusedBeforeTheWork) {
  const Model uneven = model::tiny_model({.hidden = 64, .head_dim = 32, .ffn = 40});
  const Model quantised = model::tiny_model({.hidden = 64, .embedding_dtype = tensor::DType::kQ8_0});
  IdleSink sink;
  for (PruneConfig config : every_method("q4")) {
    if (!parse_recipe(config.method).structured->needs(config).narrows) continue;
    config.width_multiple = 32;
    model::expect_error(ErrorCode::kUnsupported, "rows of 40 weights",
                        [&] { run(uneven, Text(), config, nullptr, sink); });
    config.values = "keep";
    model::expect_error(ErrorCode::kUnsupported, "embed_tokens",
                        [&] { run(quantised, Text(), config, nullptr, sink); });
  }
}

TEST(StructuredErrors, WhatProtectedLayersForbidIsRefusedBeforeTheWork) {
  PruneConfig config = structured("llm-pruner");
  config.protect_first = 2;
  IdleSink sink;
  model::expect_error(ErrorCode::kInvalidInput, "--protect-first",
                      [&] { run(four_layers(), Text(), config, nullptr, sink); });
}

// Heads of any width stay whole.
TEST(StructuredErrors, NarrowBlocksOfNarrowHeadsAreHeldInFourBits) {
  const Model parent = model::tiny_model({.hidden = 64});  // 16 query channels a key/value head
  for (PruneConfig config : every_method("q4")) {
    if (!parse_recipe(config.method).structured->needs(config).narrows) continue;
    config.width_multiple = 32;
    const Model block = run(parent, Text(), config);
    for (const Proj proj : model::kProjs) EXPECT_EQ(block.layers[0][proj].dtype(), tensor::DType::kQ4_1);
  }
}

TEST(StructuredErrors, WeightsAndInputsThatAreNotFinite) {
  for (const StructuredMethod& method : structured_methods()) {
    Model parent = four_layers();
    parent.layers[1].ffn_norm[3] = std::numeric_limits<float>::quiet_NaN();
    EXPECT_NE(failure(parent, Text(), structured(std::string(method.name)), ErrorCode::kNumeric).find("damaged"),
              std::string::npos);
    parent = four_layers();
    tensor::Tensor damaged = parent.layers[2][Proj::kUp].to_f32();
    damaged.f32()[17] = std::numeric_limits<float>::infinity();
    parent.layers[2][Proj::kUp] = tensor::Matrix::dense(std::move(damaged));
    EXPECT_NE(failure(parent, Text(), structured(std::string(method.name)), ErrorCode::kNumeric)
                  .find("model.layers.2.mlp.up_proj.weight"),
              std::string::npos);
  }
}

}  // namespace
}  // namespace brick::prune
