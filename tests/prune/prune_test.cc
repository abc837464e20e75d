// Whole models: levels, storage, errors, reports.
#include "brick/prune/prune.h"

#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "brick/base/error.h"
#include "brick/kernels/kernel_table.h"
#include "brick/kernels/sparse_product.h"
#include "brick/model/transformer.h"
#include "brick/prune/registry.h"
#include "whole_models.h"

namespace brick::prune {
namespace {

using model::Model;
using model::Proj;

class CountingSink : public ProgressSink {
 public:
  void progress(const std::string& task, int64_t done, int64_t total, const std::string&, const std::string&) override {
    steps.push_back(fmt::format("{} {}/{}", task, done, total));
  }
  void warn(const std::string& line) override { warnings.push_back(line); }
  std::vector<std::string> steps, warnings;
};

TEST(Prune, EveryMethodGivesARunnableBlock) {
  const Model parent = model::tiny_model();
  for (const Method& method : methods()) {
    for (const char* pattern : {"unstructured", "2:4"}) {
      PruneConfig config = config_of(std::string(method.name));
      config.pattern = pattern;
      PruneReport report;
      const Model block = run(parent, Text(), config, &report);
      EXPECT_NEAR(report.sparsity, 0.5, 0.01);
      EXPECT_EQ(report.matrices.size(), 14u);
      model::check_shapes(block);
      for (const float x : outputs(block)) ASSERT_TRUE(std::isfinite(x));
      EXPECT_NE(outputs(block), outputs(parent));
      EXPECT_EQ(block.embedding.dense_view().data, parent.embedding.dense_view().data);
      for (const MatrixReport& entry : report.matrices) {
        EXPECT_EQ(entry.output_error.has_value(), method.needs_calibration());
        if (entry.output_error) {
          EXPECT_GT(*entry.output_error, 0.0);
          EXPECT_LT(*entry.output_error, 1.0);
        }
      }
    }
  }
}

TEST(Prune, FillsTheBlockSpec) {
  const Model parent = model::tiny_model();
  PruneConfig config = config_of("wanda", 0.25);
  config.seed = 7;
  const Model block = run(parent, Text(), config);
  EXPECT_EQ(block.block.method, "wanda");
  EXPECT_EQ(block.block.pattern, "unstructured");
  EXPECT_EQ(block.block.sparsity, 0.25);
  EXPECT_EQ(block.block.values, "f32");
  EXPECT_EQ(block.block.parent, model::fingerprint(parent));
  EXPECT_EQ(block.block.mask_hash, model::mask_hash(block));
  EXPECT_FALSE(block.block.mask_hash.empty());
  const auto json = nlohmann::json::parse(block.block.provenance);
  EXPECT_EQ(json["tool_version"], "9.9");
  EXPECT_EQ(json["seed"], 7);
  EXPECT_EQ(json["config"]["method"], "wanda");
  EXPECT_EQ(json["config"]["calibration"]["sha256"].get<std::string>().size(), 64u);
  const Model other = run(parent, Text(12, 16, 6), config);
  EXPECT_NE(nlohmann::json::parse(other.block.provenance)["config"]["calibration"]["sha256"],
            json["config"]["calibration"]["sha256"]);
}

TEST(PruneFamily, EqualsSingleRunsBitForBit) {
  const Model parent = model::tiny_model();
  const Text text;
  const std::vector<double> sparsities{0, 0.25, 0.5, 0.75};
  std::vector<PruneConfig> configs;
  for (const Method& method : methods()) configs.push_back(config_of(std::string(method.name), 0.5, "bf16"));
  configs.push_back(config_of("sparsegpt", 0.5, "bf16"));
  configs.back().true_sequential = true;
  for (PruneConfig& config : configs) {
    kernels::Context context;
    std::vector<PruneReport> reports;
    const std::vector<Model> family =
        prune_family(parent, text.windows, sparsities, config, context, silent_sink(), &reports);
    ASSERT_EQ(family.size(), 4u);
    ASSERT_EQ(reports.size(), 4u);
    for (size_t i = 0; i < sparsities.size(); ++i) {
      config.sparsity = sparsities[i];
      expect_same_bits(family[i], run(parent, text, config));
      EXPECT_NEAR(reports[i].sparsity, sparsities[i], 0.02);
    }
  }
}

TEST(PruneFamily, LevelZeroIsTheParentUnmasked) {
  const Model parent = model::tiny_model();
  const Model block = run(parent, Text(0), config_of("sparsegpt", 0));
  EXPECT_EQ(outputs(block), outputs(parent));
  EXPECT_TRUE(block.block.mask_hash.empty());
  EXPECT_EQ(block.block.sparsity, 0.0);
  for (const model::Layer& layer : block.layers)
    for (const tensor::Matrix& weight : layer.projections) EXPECT_FALSE(weight.is_sparse());
}

TEST(Prune, SameSeedSameBitsAndPiecesOnlyRound) {
  const Model parent = model::tiny_model();
  PruneConfig config = config_of("sparsegpt");
  const Model first = run(parent, Text(), config);
  expect_same_bits(first, run(parent, Text(), config));
  config.piece_tokens = 1000;
  const Model whole = run(parent, Text(), config);
  const tensor::Tensor a = first.layers[0][Proj::kQ].to_f32(), b = whole.layers[0][Proj::kQ].to_f32();
  for (int64_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a.f32()[i], b.f32()[i], 1e-3);
}

TEST(Prune, KeptWeightsAloneOnlyRound) {
  if (!kernels::has_sparse_product()) GTEST_SKIP() << "no sparse products on this machine";
  const Model parent = model::tiny_model();
  const PruneConfig config = config_of("sparsegpt");
  const auto second_layer = [&](double largest_share) {
    kernels::KernelTable table;
    table.f32.fill({largest_share, 0});
    kernels::use_kernel_table(table);
    tensor::Tensor values = run(parent, Text(), config).layers[1][Proj::kQ].to_f32();
    kernels::use_kernel_table(kernels::builtin_kernel_table());
    return values;
  };
  const tensor::Tensor expanded = second_layer(0), alone = second_layer(1);
  bool rounds = false;
  for (int64_t i = 0; i < alone.size(); ++i) {
    EXPECT_NEAR(alone.f32()[i], expanded.f32()[i], 1e-2);
    rounds = rounds || alone.f32()[i] != expanded.f32()[i];
  }
  EXPECT_TRUE(rounds) << "the same products were taken twice";
}

TEST(Prune, LaterLayersSeeWhatIsStored) {
  const Model parent = model::tiny_model();
  // Layer 1's masks by hand: layer 0 of the block as stored, layer 1 of the parent, one pass.
  for (const char* values : {"f32", "q4"}) {
    const Text text(3);
    const Model block = run(parent, text, config_of("wanda", 0.5, values));
    Model half = parent;
    half.layers[0] = block.layers[0];
    kernels::Context context;
    model::Transformer transformer(half, context, 60);
    StatisticsBuilder builder(Needs::kColumnNorms, 32, 51);
    for (const auto window : text.windows) {
      tensor::Tensor x = tensor::matrix(static_cast<int64_t>(window.size()), 32);
      const std::vector<int64_t> offsets{0, static_cast<int64_t>(window.size())};
      transformer.embed(window, x.mat());
      transformer.layer_forward(0, offsets, x.mat());
      transformer.layer_forward(1, offsets, x.mat(), [&](int64_t, Proj proj, tensor::ConstMatView inputs) {
        if (proj == Proj::kGate) builder.add(inputs);
      });
    }
    // gate's inputs in layer 1 come through its dense attention.
    const InputStatistics inputs = builder.take();
    tensor::Tensor weight = parent.layers[1][Proj::kGate].to_f32();
    MatrixProblem problem;
    problem.weight = weight.mat();
    problem.inputs = &inputs;
    problem.sparsity = 0.5;
    const tensor::Mask want = prune_wanda(problem).mask;
    const tensor::MaskView got = block.layers[1][Proj::kGate].sparse_view().mask;
    for (int64_t r = 0; r < got.rows; ++r)
      for (int64_t c = 0; c < got.cols; ++c) ASSERT_EQ(got.kept(r, c), want.kept(r, c)) << values;
  }
}

TEST(PruneTrueSequential, EachWeightSeesWhatIsPrunedBeforeIt) {
  model::TinyOptions options;
  Model parent = model::tiny_model(options);
  parent.layers[0].o_bias.assign(32, 0.25f);
  parent.layers[0].down_bias.assign(32, -0.5f);
  const Text text;
  for (const char* method : {"wanda", "sparsegpt"}) {
    PruneConfig config = config_of(method);
    // By the other order: prune all, keep what came next, start again from that. Pruning again what is pruned changes
    // nothing.
    Model want = parent;
    for (model::Layer& layer : want.layers) {
      const auto at = static_cast<size_t>(&layer - want.layers.data());
      for (const std::vector<Proj>& next :
           {std::vector{Proj::kQ, Proj::kK, Proj::kV}, {Proj::kO}, {Proj::kGate, Proj::kUp}, {Proj::kDown}}) {
        const Model pruned = run(want, text, config);
        for (const Proj proj : next) layer[proj] = pruned.layers[at][proj];
      }
    }
    const Model at_once = run(parent, text, config);
    config.true_sequential = true;
    PruneReport report;
    const Model block = run(parent, text, config, &report);
    EXPECT_EQ(report.matrices.size(), 14u);
    EXPECT_EQ(report.rerun_seconds, 0.0);
    for (size_t layer = 0; layer < want.layers.size(); ++layer)
      for (const Proj proj : model::kProjs) {
        const tensor::Tensor got = block.layers[layer][proj].to_f32(), wanted = want.layers[layer][proj].to_f32(),
                             other = at_once.layers[layer][proj].to_f32();
        const bool first = layer == 0 && proj <= Proj::kV;
        float differs = 0;
        for (int64_t i = 0; i < got.size(); ++i) {
          ASSERT_NEAR(got.f32()[i], wanted.f32()[i], 1e-5) << method << layer << name(proj);
          differs = std::max(differs, std::fabs(got.f32()[i] - other.f32()[i]));
        }
        EXPECT_EQ(differs > 1e-3f, !first) << method << layer << name(proj);
      }
  }
}

TEST(PruneTrueSequential, NeedsAMethodThatTakesWeightsOneByOne) {
  for (const char* method : {"wanda++", "wanda+reconstruct", "flap"}) {
    PruneConfig config = config_of(method);
    config.true_sequential = true;
    EXPECT_NE(failure(model::tiny_model(), Text(), config, ErrorCode::kInvalidInput).find("true_sequential"),
              std::string::npos);
  }
}

TEST(PruneValues, CodingsAreAsAsked) {
  model::TinyOptions options;
  options.dtype = tensor::DType::kQ4_1;
  const Model parent = model::tiny_model(options);
  const auto weight = [&](const char* method, const char* values) {
    return run(parent, Text(), config_of(method, 0.5, values)).layers[1][Proj::kDown];
  };
  EXPECT_EQ(weight("sparsegpt", "f32").dtype(), tensor::DType::kF32);
  EXPECT_EQ(weight("sparsegpt", "bf16").dtype(), tensor::DType::kBF16);
  EXPECT_EQ(weight("sparsegpt", "q4").sparse_view().coding, tensor::SparseCoding::kQ4);
  for (const char* method : {"magnitude", "wanda"}) {
    const tensor::Matrix kept = weight(method, "keep");
    ASSERT_EQ(kept.sparse_view().coding, tensor::SparseCoding::kParent);
    const tensor::Tensor got = kept.to_f32(), want = parent.layers[1][Proj::kDown].to_f32();
    for (int64_t r = 0; r < kept.rows(); ++r)
      for (int64_t c = 0; c < kept.cols(); ++c)
        EXPECT_EQ(got.mat()(r, c), kept.sparse_view().mask.kept(r, c) ? want.mat()(r, c) : 0.0f);
  }
  EXPECT_NE(failure(parent, Text(), config_of("sparsegpt", 0.5, "keep"), ErrorCode::kUnsupported).find("--values bf16"),
            std::string::npos);
}

TEST(PruneValues, KeepIsRefusedWhereIntegersCannotBeKept) {
  model::TinyOptions options;
  options.dtype = tensor::DType::kQ5_0;
  const Model parent = model::tiny_model(options);
  EXPECT_NE(failure(parent, Text(), config_of("magnitude", 0.5, "keep"), ErrorCode::kUnsupported).find("q5_0"),
            std::string::npos);
  EXPECT_EQ(run(parent, Text(), config_of("magnitude", 0.5, "bf16")).layers[0][Proj::kUp].dtype(),
            tensor::DType::kBF16);
}

TEST(PruneValues, KeepOfAFloatParentIsItsOwnType) {
  model::TinyOptions options;
  options.dtype = tensor::DType::kF16;
  const Model parent = model::tiny_model(options);
  for (const char* method : {"magnitude", "sparsegpt"})
    EXPECT_EQ(run(parent, Text(), config_of(method, 0.5, "keep")).layers[0][Proj::kUp].dtype(), tensor::DType::kF16);
}

TEST(PruneValues, ABlockCanBePrunedFurther) {
  model::TinyOptions options;
  options.dtype = tensor::DType::kQ4_1;
  const Model block = run(model::tiny_model(options), Text(), config_of("wanda", 0.5, "keep"));
  PruneReport report;
  const Model smaller = run(block, Text(), config_of("wanda", 0.75, "bf16"), &report);
  EXPECT_NEAR(report.sparsity, 0.75, 0.01);
  failure(block, Text(), config_of("wanda", 0.75, "keep"), ErrorCode::kUnsupported);
}

TEST(PruneErrors, WeightsThatAreNotFiniteAreNamed) {
  for (const Method& method : methods()) {
    Model parent = model::tiny_model();
    tensor::Tensor damaged = parent.layers[1][Proj::kUp].to_f32();
    damaged.f32()[17] = std::numeric_limits<float>::infinity();
    parent.layers[1][Proj::kUp] = tensor::Matrix::dense(std::move(damaged));
    EXPECT_NE(failure(parent, Text(), config_of(std::string(method.name)), ErrorCode::kNumeric)
                  .find("model.layers.1.mlp.up_proj.weight"),
              std::string::npos);
  }
}

TEST(PruneErrors, InputsThatAreNotFiniteAreNamed) {
  for (const char* method : {"wanda", "sparsegpt"}) {
    Model parent = model::tiny_model();
    parent.layers[1].ffn_norm[3] = std::numeric_limits<float>::quiet_NaN();
    const std::string message = failure(parent, Text(), config_of(method), ErrorCode::kNumeric);
    EXPECT_NE(message.find("input 3 of model.layers.1.mlp.gate_proj.weight"), std::string::npos) << message;
  }
}

TEST(PruneErrors, CalibrationIsNeeded) {
  const Model parent = model::tiny_model();
  for (const char* method : {"wanda", "sparsegpt"})
    EXPECT_NE(failure(parent, Text(0), config_of(method), ErrorCode::kInvalidInput).find("--calibration"),
              std::string::npos);
  PruneReport report;
  run(parent, Text(0), config_of("magnitude"), &report);
  EXPECT_EQ(report.calibration_tokens, 0);
  Text outside;
  outside.stored[3][2] = 96;
  failure(parent, outside, config_of("wanda"), ErrorCode::kInvalidInput);
}

TEST(PruneErrors, SettingsThatMakeNoSense) {
  const Model parent = model::tiny_model();
  const Text text;
  for (const double sparsity : {-0.1, 1.0, 1.5, std::nan("")})
    failure(parent, text, config_of("wanda", sparsity), ErrorCode::kInvalidInput);
  failure(parent, text, config_of("wander"), ErrorCode::kUnsupported);
  failure(parent, text, config_of("wanda", 0.5, "int3"), ErrorCode::kInvalidInput);
  PruneConfig config = config_of("wanda", 0.75);
  config.pattern = "2:4";
  EXPECT_NE(failure(parent, text, config, ErrorCode::kInvalidInput).find("removes 0.5"), std::string::npos);
  config.pattern = "3:5";
  config.sparsity = 0.6;
  failure(parent, text, config, ErrorCode::kInvalidInput);  // neither 16 nor 32 is a multiple of 5
  config.block_columns = 15;                                // so that only the weights' 32 inputs are none
  check_settings(config, std::span(&config.sparsity, 1));
  EXPECT_THROW(check_parent(parent, std::span(&config.sparsity, 1), config), Error);
  config = config_of("sparsegpt");
  config.damping = -1;
  failure(parent, text, config, ErrorCode::kInvalidInput);
  config.damping = 0.01;
  config.block_columns = 0;
  failure(parent, text, config, ErrorCode::kInvalidInput);
}

TEST(PruneReport, WarnsOfLittleText) {
  const Model parent = model::tiny_model();
  CountingSink sink;
  PruneReport report;
  run(parent, Text(1, 8), config_of("sparsegpt"), &report, sink);
  ASSERT_EQ(report.notes.size(), 1u);
  EXPECT_NE(report.notes[0].find("8 calibration tokens are fewer than the widest input, 64"), std::string::npos);
  EXPECT_EQ(sink.warnings, report.notes);
  EXPECT_EQ(report.calibration_tokens, 8);
}

TEST(PruneReport, CountsDeadColumnsAndDamping) {
  Model parent = model::tiny_model();
  parent.layers[0].attention_norm[4] = 0.0f;
  PruneReport report;
  run(parent, Text(), config_of("sparsegpt"), &report);
  EXPECT_EQ(report.matrices[0].dead_columns, 1);  // q of layer 0
  EXPECT_EQ(report.matrices[3].dead_columns, 0);  // o
  EXPECT_EQ(report.matrices[0].damping, 0.01);
  EXPECT_FALSE(report.matrices[0].fell_back);
}

TEST(PruneReport, ProgressGoesLayerByLayer) {
  CountingSink sink;
  run(model::tiny_model(), Text(), config_of("wanda"), nullptr, sink);
  EXPECT_EQ(sink.steps, (std::vector<std::string>{"wanda 0.5 1/2", "wanda 0.5 2/2"}));
}

}  // namespace
}  // namespace brick::prune
