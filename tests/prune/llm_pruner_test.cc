// LLM-Pruner beside its authors' formulas in torch (tests/golden/make_llm_pruner_golden.py), and our own choices.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <iterator>
#include <nlohmann/json.hpp>
#include <numeric>

#include "brick/io/json_file.h"
#include "brick/io/safetensors.h"
#include "brick/model/load.h"
#include "model/cut_model.h"
#include "whole_models.h"

namespace brick::prune {
namespace {

using model::Model;
using model::Proj;
using Indices = std::vector<int32_t>;

class Golden {
 public:
  // "plain" or "shared".
  explicit Golden(const std::string& name)
      : name_(name), file_(io::SafetensorsFile::open(BRICK_TEST_SOURCE_DIR "/golden/llm_pruner_golden.safetensors")) {
    about_ = nlohmann::json::parse(file_.metadata().at("golden"));
    const TempFolder temp;
    const std::filesystem::path folder = temp.folder("model");
    io::SafetensorsWriter writer;
    const std::string prefix = name + ".";
    for (const io::SafetensorInfo& info : file_.tensors())
      if (info.name.starts_with(prefix + "model."))
        writer.add_tensor(info.name.substr(prefix.size()), file_.tensor(info));
    writer.write(folder / "model.safetensors");
    io::write_json_file(folder / "config.json", about_["configs"][name]);
    model = model::load_model(folder.string(), {.tokenizer = false});
    const tensor::TensorView ids = file_.tensor(prefix + "ids");
    const auto* first = reinterpret_cast<const int32_t*>(ids.bytes.data());
    for (int64_t i = 0; i < ids.shape[0]; ++i) windows.emplace_back(first + i * ids.shape[1], ids.shape[1]);
  }

  std::vector<std::string> importances() const { return about_["importances"]; }

  // Of a layer: "heads" or "neurons"; none of a protected one.
  Indices removed(const std::string& importance, size_t layer, const std::string& what) const {
    if (static_cast<int64_t>(layer) < about_["protected"].get<int64_t>()) return {};
    return indices(fmt::format("{}.{}.{}.removed_{}", name_, importance, layer, what));
  }

  // Of the residual stream.
  Indices removed_channels(const std::string& importance) const {
    return indices(fmt::format("{}.{}.removed_channels", name_, importance));
  }

  // Locally, the ratio of all layers but the protected first ones.
  PruneConfig config(const std::string& importance) const {
    PruneConfig config;
    config.method = "llm-pruner";
    config.importance = importance;
    config.protect_first = about_["protected"];
    config.protect_last = 0;
    const auto layers = static_cast<double>(model.layers.size());
    config.sparsity = about_["ratio"].get<double>() * (layers - static_cast<double>(config.protect_first)) / layers;
    config.values = "f32";
    config.width_multiple = 16;
    config.piece_tokens = 30;
    return config;
  }

  Model model;
  std::vector<std::span<const int32_t>> windows;

 private:
  Indices indices(const std::string& tensor) const {
    const tensor::TensorView view = file_.tensor(tensor);
    Indices out(view.bytes.size() / sizeof(int32_t));
    std::memcpy(out.data(), view.bytes.data(), view.bytes.size());
    return out;
  }

  std::string name_;
  io::SafetensorsFile file_;
  nlohmann::json about_;
};

Indices missing(const Indices& kept, int64_t count) {
  Indices all(static_cast<size_t>(count)), out;
  std::iota(all.begin(), all.end(), 0);
  std::set_difference(all.begin(), all.end(), kept.begin(), kept.end(), std::back_inserter(out));
  return out;
}

Model pruned(const Model& parent, std::span<const std::span<const int32_t>> windows, const PruneConfig& config) {
  kernels::Context context;
  return prune(parent, windows, config, context, silent_sink());
}

// How many of the layers' sets of heads and neurons are not the reference's.
int64_t sets_that_differ(const Golden& golden, const Model& block, const std::string& importance) {
  int64_t count = 0;
  for (size_t layer = 0; layer < block.layers.size(); ++layer) {
    const model::LayerCut& cut = block.block.cut->layers[layer];
    count += missing(cut.kv_heads, cut.parent.kv_heads) != golden.removed(importance, layer, "heads");
    count += missing(cut.neurons, cut.parent.ffn) != golden.removed(importance, layer, "neurons");
  }
  return count;
}

TEST(LlmPrunerParity, RemovesTheSetsOfTheReference) {
  const Golden golden("plain");
  for (const std::string& importance : golden.importances()) {
    const Model block = pruned(golden.model, golden.windows, golden.config(importance));
    EXPECT_EQ(sets_that_differ(golden, block, importance), 0) << importance;
    EXPECT_EQ(block.layers[0].shape, golden.model.layers[0].shape);
    EXPECT_EQ(block.layers[1].shape, (model::LayerShape{3, 3, 8, 48}));
  }
}

TEST(LlmPrunerParity, FoldsSharedHeadsAsTheReferenceIfAsked) {
  const Golden golden("shared");
  int64_t elsewhere = 0;
  for (const std::string& importance : golden.importances()) {
    PruneConfig config = golden.config(importance);
    config.folding = "reference";
    EXPECT_EQ(sets_that_differ(golden, pruned(golden.model, golden.windows, config), importance), 0) << importance;
    config.folding = "right";
    elsewhere += sets_that_differ(golden, pruned(golden.model, golden.windows, config), importance);
  }
  EXPECT_GT(elsewhere, 0);
}

PruneConfig channels(const Golden& golden, const std::string& importance) {
  PruneConfig config = golden.config(importance);
  config.mode = "channel";
  config.sparsity = 0.25;
  config.width_multiple = 8;
  return config;
}

TEST(LlmPrunerParity, RemovesTheChannelsOfTheFormula) {
  for (const char* name : {"plain", "shared"}) {
    const Golden golden(name);
    std::vector<Indices> sets;
    for (const std::string& importance : golden.importances()) {
      const Model block = pruned(golden.model, golden.windows, channels(golden, importance));
      sets.push_back(missing(block.block.cut->stream->channels, golden.model.config.hidden));
      EXPECT_EQ(sets.back(), golden.removed_channels(importance)) << name << " " << importance;
      EXPECT_TRUE(block.config.tied_head);
    }
    std::sort(sets.begin(), sets.end());
    EXPECT_GT(std::unique(sets.begin(), sets.end()) - sets.begin(), 3);  // the importance matters
  }
}

// Of a channel that goes, one weight that no other structure has makes it stay.
TEST(LlmPrunerParity, NoticesAWrongChannel) {
  const Golden golden("plain");
  for (const std::string& importance : golden.importances()) {
    const Indices want = golden.removed_channels(importance);
    Model wrong = golden.model;
    tensor::Tensor down = wrong.layers[1][Proj::kDown].to_f32();
    down.mat()(want.front(), 5) += 20.0f;
    wrong.layers[1][Proj::kDown] = tensor::Matrix::dense(std::move(down));
    const Model block = pruned(wrong, golden.windows, channels(golden, importance));
    EXPECT_NE(missing(block.block.cut->stream->channels, golden.model.config.hidden), want) << importance;
  }
}

// One weight is enough for another set, and so is another importance.
TEST(LlmPrunerParity, NoticesWhatIsWrong) {
  const Golden golden("plain");
  for (const std::string& importance : golden.importances()) {
    const int32_t neuron = golden.removed(importance, 1, "neurons").front();
    Model wrong = golden.model;
    tensor::Tensor gate = wrong.layers[1][Proj::kGate].to_f32();
    gate.mat()(neuron, 5) += 20.0f;
    wrong.layers[1][Proj::kGate] = tensor::Matrix::dense(std::move(gate));
    EXPECT_GT(sets_that_differ(golden, pruned(wrong, golden.windows, golden.config(importance)), importance), 0)
        << importance;
    const std::string other = importance == "l1" ? "param_first" : "l1";
    EXPECT_GT(sets_that_differ(golden, pruned(golden.model, golden.windows, golden.config(importance)), other), 0);
  }
}

PruneConfig llm_pruner(const std::string& importance, double sparsity) {
  PruneConfig config = config_of("llm-pruner", sparsity);
  config.importance = importance;
  config.width_multiple = 8;
  config.protect_first = config.protect_last = 0;
  return config;
}

Model four_layers(uint64_t seed = 0) { return model::tiny_model({.layers = 4, .seed = seed}); }

tensor::Matrix filled(int64_t rows, int64_t cols, const std::function<float(int64_t, int64_t)>& value) {
  tensor::Tensor out = tensor::matrix(rows, cols);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) out.mat()(r, c) = value(r, c);
  return tensor::Matrix::dense(std::move(out));
}

// Query heads of 8 are worth 0.1, 3, 1, 1 in all layers: with their own key/value heads 3.1 and 2, as the reference
// folds them 1.1 and 4.
TEST(LlmPruner, FoldingDecidesWhichHeadsGo) {
  Model parent = four_layers();
  const std::array<float, 4> worth{0.1f, 3, 1, 1};
  for (model::Layer& layer : parent.layers) {
    layer[Proj::kQ] = filled(32, 32, [&](int64_t r, int64_t) { return worth[static_cast<size_t>(r / 8)]; });
    layer[Proj::kO] = filled(32, 32, [&](int64_t, int64_t c) { return worth[static_cast<size_t>(c / 8)]; });
    layer[Proj::kK] = layer[Proj::kV] = filled(16, 32, [](int64_t, int64_t) { return 1.0f; });
  }
  PruneConfig config = llm_pruner("l1", 0.5);
  const auto heads = [&] { return run(parent, Text(0), config).block.cut->layers[2].heads; };
  EXPECT_EQ(heads(), (Indices{0, 1}));
  config.folding = "reference";
  EXPECT_EQ(heads(), (Indices{2, 3}));
}

TEST(LlmPruner, RanksLayersTogetherIfAsked) {
  Model parent = four_layers();
  for (tensor::Matrix& weight : parent.layers[2].projections) {
    tensor::Tensor small = weight.to_f32();
    for (int64_t i = 0; i < small.size(); ++i) small.f32()[i] *= 0.1f;
    weight = tensor::Matrix::dense(std::move(small));
  }
  PruneConfig config = llm_pruner("l2", 0.19);
  config.global_ranking = true;
  PruneReport report;
  const Model block = run(parent, Text(0), config, &report);
  EXPECT_NEAR(report.sparsity, 0.19, 0.02);
  EXPECT_EQ(block.layers[2].shape, (model::LayerShape{2, 1, 8, 8}));
  for (const size_t layer : {0u, 1u, 3u}) EXPECT_EQ(block.layers[layer].shape, parent.layers[layer].shape);
}

TEST(LlmPruner, LeavesProtectedLayersWhole) {
  const Model parent = four_layers();
  for (const bool global : {false, true}) {
    PruneConfig config = llm_pruner("param_first", 0.25);
    config.global_ranking = global;
    config.protect_first = config.protect_last = 1;
    PruneReport report;
    const Model block = run(parent, Text(), config, &report);
    EXPECT_NEAR(report.sparsity, 0.25, 0.02);
    for (const size_t layer : {0u, 3u}) EXPECT_EQ(block.layers[layer].shape, parent.layers[layer].shape);
    for (const size_t layer : {1u, 2u}) EXPECT_LT(block.layers[layer].shape.ffn, 64);
  }
  PruneConfig config = llm_pruner("l1", 0.5);
  config.protect_first = 2;
  EXPECT_NE(failure(parent, Text(), config, ErrorCode::kInvalidInput).find("--protect-first"), std::string::npos);
}

TEST(LlmPruner, IterativeStepsScoreAnew) {
  const Model parent = four_layers();
  PruneConfig config = llm_pruner("param_second", 0.5);
  const Model once = run(parent, Text(), config);
  config.iterative_steps = 4;
  PruneReport report;
  const Model slowly = run(parent, Text(), config, &report);
  EXPECT_NEAR(report.sparsity, 0.5, 0.02);
  EXPECT_EQ(slowly.layers[1].shape, once.layers[1].shape);
  EXPECT_NE(model::cut_hash(slowly), model::cut_hash(once));
  // Magnitudes do not change by what goes.
  config.importance = "l1";
  config.global_ranking = true;
  const Model steps = run(parent, Text(0), config);
  config.iterative_steps = 1;
  EXPECT_EQ(model::cut_hash(steps), model::cut_hash(run(parent, Text(0), config)));
}

TEST(LlmPruner, RandomFollowsItsSeed) {
  const Model parent = four_layers();
  PruneConfig config = llm_pruner("random", 0.5);
  const std::string first = model::cut_hash(run(parent, Text(0), config));
  EXPECT_EQ(model::cut_hash(run(parent, Text(0), config)), first);
  config.seed = 1;
  EXPECT_NE(model::cut_hash(run(parent, Text(0), config)), first);
}

TEST(LlmPruner, GradientsAreBetterThanChance) {
  double random = 0, first = 0;
  for (const uint64_t seed : {1u, 2u, 3u}) {
    const Model parent = four_layers(seed);
    const std::vector<float> whole = outputs(parent);
    const auto off = [&](const char* importance) {
      const std::vector<float> got = outputs(run(parent, Text(40), llm_pruner(importance, 0.25)));
      double sum = 0;
      for (size_t i = 0; i < whole.size(); ++i) sum += std::pow(static_cast<double>(got[i] - whole[i]), 2);
      return sum;
    };
    random += off("random");
    first += off("param_first");
  }
  EXPECT_LT(first, 0.9 * random);
}

TEST(LlmPruner, LayerModeKeepsTheFirst) {
  PruneConfig config = llm_pruner("param_first", 0.5);
  config.mode = "layer";
  const Model block = run(four_layers(), Text(0), config);
  ASSERT_EQ(block.layers.size(), 2u);
  EXPECT_EQ(block.block.cut->layers[0].layer, 0);
  EXPECT_EQ(block.block.cut->layers[1].layer, 1);
}

PruneConfig channel_mode(const std::string& importance, double sparsity) {
  PruneConfig config = llm_pruner(importance, sparsity);
  config.mode = "channel";
  return config;
}

// Nothing reads or writes channels 3 and 30, so that their l1 sums are the least by far.
Model with_idle_channels(bool tied) {
  Model model = model::tiny_cut_block();
  model.config.tied_head = tied;
  if (!tied) model.own_head = model::tiny_model({.tied = false, .seed = 8}).own_head;
  const auto clear = [](tensor::Matrix& weight, bool rows) {
    tensor::Tensor values = weight.to_f32();
    for (int64_t r = 0; r < weight.rows(); ++r)
      for (int64_t c = 0; c < weight.cols(); ++c)
        if (const int64_t channel = rows ? r : c; channel == 3 || channel == 30) values.mat()(r, c) = 0;
    weight = tensor::Matrix::dense(std::move(values));
  };
  clear(model.embedding, false);
  if (!tied) clear(*model.own_head, false);
  for (model::Layer& layer : model.layers) {
    for (const Proj proj : model::kProjs) clear(layer[proj], proj == Proj::kO || proj == Proj::kDown);
    for (std::vector<float>* bias : {&layer.o_bias, &layer.down_bias})
      if (!bias->empty()) (*bias)[3] = (*bias)[30] = 0;
  }
  return model;
}

PruneConfig two_channels_less() {
  PruneConfig config = channel_mode("l1", 0.06);
  config.width_multiple = 10;
  return config;
}

TEST(LlmPruner, ChannelsGoEverywhere) {
  for (const bool tied : {true, false}) {
    const Model parent = with_idle_channels(tied), block = run(parent, Text(0), two_channels_less());
    EXPECT_EQ(block.config.hidden, 30);
    EXPECT_EQ(block.config.tied_head, tied);
    EXPECT_EQ(block.own_head.has_value(), !tied);
    EXPECT_EQ(block.config.head_dim, parent.config.head_dim);
    EXPECT_EQ(missing(block.block.cut->stream->channels, 32), (Indices{3, 30}));
    EXPECT_EQ(block.block.cut->layers[0].heads, parent.block.cut->layers[0].heads);
    EXPECT_EQ(model::fingerprint(block), model::fingerprint(parent));
    const std::vector<std::pair<const tensor::Matrix*, const tensor::Matrix*>> cases{
        {&parent.embedding, &block.embedding},
        {&parent.head(), &block.head()},
        {&parent.layers[0][Proj::kV], &block.layers[0][Proj::kV]},
        {&parent.layers[1][Proj::kUp], &block.layers[1][Proj::kUp]}};
    const auto from = [](int64_t i) { return i < 3 ? i : i < 29 ? i + 1 : i + 2; };
    for (const auto& [whole, left] : cases) {
      const tensor::Tensor want = whole->to_f32(), got = left->to_f32();
      for (int64_t r = 0; r < left->rows(); ++r)
        for (int64_t c = 0; c < 30; ++c) ASSERT_EQ(got.mat()(r, c), want.mat()(r, from(c)));
    }
    for (int64_t i = 0; i < 30; ++i) {
      const auto to = static_cast<size_t>(i), at = static_cast<size_t>(from(i));
      EXPECT_EQ(block.layers[0].o_bias[to], parent.layers[0].o_bias[at]);
      EXPECT_EQ(block.layers[1].ffn_norm[to], parent.layers[1].ffn_norm[at]);
      EXPECT_EQ(block.layers[1][Proj::kDown].to_f32().mat()(i, 7),
                parent.layers[1][Proj::kDown].to_f32().mat()(from(i), 7));
    }
  }
}

// Nothing writes to the residual stream, so that it is the embedding before each norm: 1 or -1 in 24 channels and
// first_eight(token) in the first eight, which go: no channel is worth anything by its gradients.
Model with_stream(const std::function<float(int64_t token)>& first_eight) {
  Model model = model::tiny_model();
  Rng rng(3);
  model.embedding = filled(96, 32, [&](int64_t r, int64_t c) {
    return c < 8 ? first_eight(r) : rng.uniform() < 0.5 ? -1.0f : 1.0f;
  });
  for (model::Layer& layer : model.layers)
    for (const Proj proj : {Proj::kO, Proj::kDown})
      layer[proj] = filled(32, layer[proj].cols(), [](int64_t, int64_t) { return 0.0f; });
  return model;
}

// By how much a norm of the first layer and the last one were multiplied.
void expect_factor(const Model& parent, const Model& block, double factor) {
  ASSERT_EQ(missing(block.block.cut->stream->channels, 32), (Indices{0, 1, 2, 3, 4, 5, 6, 7}));
  for (size_t i = 0; i < 24; ++i) {
    EXPECT_NEAR(block.layers[0].ffn_norm[i], factor * static_cast<double>(parent.layers[0].ffn_norm[i + 8]), 1e-5);
    EXPECT_NEAR(block.final_norm[i], factor * static_cast<double>(parent.final_norm[i + 8]), 1e-5);
  }
}

// With 3 in the first eight, the mean square goes from (8 * 9 + 24) / 32 = 3 to 1.
TEST(LlmPruner, NormsOfFewerChannelsAreScaledBack) {
  const Model parent = with_stream([](int64_t) { return 3.0f; });
  PruneConfig config = channel_mode("param_first", 0.25);
  const Model block = run(parent, Text(), config);
  expect_factor(parent, block, 1 / std::sqrt(3.0));
  const std::vector<float> want = outputs(parent), got = outputs(block);
  for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], want[i / 24 * 32 + 8 + i % 24], 1e-5);
  config.iterative_steps = 2;
  expect_factor(parent, run(parent, Text(), config), 1 / std::sqrt(3.0));
  config.importance = "l1";  // takes no text
  config.iterative_steps = 1;
  const Model unscaled = run(parent, Text(0), config);
  EXPECT_EQ(unscaled.final_norm[0], parent.final_norm[static_cast<size_t>(unscaled.block.cut->stream->channels[0])]);
}

// Tokens below 48 as above; the others have nothing in the first eight: sqrt(32 / 24).
TEST(LlmPruner, NormsAreScaledByTheMeanOverTheTokens) {
  const Text text;
  double low = 0, all = 0;
  for (const std::vector<int32_t>& window : text.stored)
    for (const int32_t id : window) {
      low += id < 48 ? 1 : 0;
      all += 1;
    }
  const Model parent = with_stream([](int64_t token) { return token < 48 ? 3.0f : 0.0f; });
  expect_factor(parent, run(parent, text, channel_mode("param_first", 0.25)),
                (low / std::sqrt(3.0) + (all - low) * std::sqrt(32.0 / 24)) / all);
}

TEST(LlmPruner, AHeadOfItsOwnKeepsItsChannels) {
  Model parent = with_idle_channels(false);
  tensor::Tensor head = parent.own_head->to_f32();
  head.mat()(50, 3) = 1000;
  parent.own_head = tensor::Matrix::dense(std::move(head));
  const Indices gone = missing(run(parent, Text(0), two_channels_less()).block.cut->stream->channels, 32);
  EXPECT_EQ(gone.size(), 2u);
  EXPECT_EQ(std::count(gone.begin(), gone.end(), 3), 0);
  EXPECT_EQ(std::count(gone.begin(), gone.end(), 30), 1);
}

TEST(LlmPruner, ChannelsInStepsScoreAnew) {
  const Model parent = four_layers();
  PruneConfig config = channel_mode("param_first", 0.5);
  const std::vector<float> once = outputs(run(parent, Text(), config));
  config.iterative_steps = 2;
  const Model slowly = run(parent, Text(), config);
  EXPECT_EQ(slowly.config.hidden, 16);
  EXPECT_NE(outputs(slowly), once);
  // Magnitudes do not change by what goes.
  config.importance = "l2";
  const std::vector<float> steps = outputs(run(parent, Text(0), config));
  config.iterative_steps = 1;
  EXPECT_EQ(outputs(run(parent, Text(0), config)), steps);
}

TEST(LlmPruner, RandomChannelsFollowTheirSeed) {
  const Model parent = four_layers();
  PruneConfig config = channel_mode("random", 0.5);
  config.iterative_steps = 2;
  const std::vector<float> first = outputs(run(parent, Text(0), config));
  EXPECT_EQ(first.size(), 10u * 16);
  EXPECT_EQ(outputs(run(parent, Text(0), config)), first);
  config.seed = 1;
  EXPECT_NE(outputs(run(parent, Text(0), config)), first);
}

TEST(LlmPruner, ChannelsHoldValuesAsAsked) {
  const Model wide = model::tiny_model({.hidden = 64, .head_dim = 32, .tied = false, .dtype = tensor::DType::kQ4_1});
  PruneConfig config = channel_mode("l1", 0.5);
  config.width_multiple = 32;
  config.values = "q4";
  const Model block = run(wide, Text(0), config);
  EXPECT_EQ(block.layers[0][Proj::kDown].dtype(), tensor::DType::kQ4_1);
  EXPECT_EQ(block.embedding.dtype(), tensor::DType::kQ8_0);
  EXPECT_EQ(block.head().dtype(), tensor::DType::kQ8_0);
  config.values = "keep";
  EXPECT_NE(failure(wide, Text(0), config, ErrorCode::kUnsupported).find("--values"), std::string::npos);
  EXPECT_EQ(run(model::tiny_model({.dtype = tensor::DType::kBF16}), Text(0), channel_mode("l1", 0.5)).embedding.dtype(),
            tensor::DType::kF32);
}

TEST(LlmPruner, SettingsThatMakeNoSense) {
  const Model parent = four_layers();
  const auto refuse = [&](auto&& change, const char* word) {
    PruneConfig config = llm_pruner("param_first", 0.5);
    change(config);
    EXPECT_NE(failure(parent, Text(), config, ErrorCode::kInvalidInput).find(word), std::string::npos);
  };
  refuse([](PruneConfig& c) { c.importance = "taylor"; }, "param_mix");
  refuse([](PruneConfig& c) { c.folding = "left"; }, "reference");
  refuse([](PruneConfig& c) { c.mode = "head"; }, "channel");
  refuse([](PruneConfig& c) { c.protect_last = -1; }, "protect_last -1");
  refuse([](PruneConfig& c) { c.iterative_steps = 0; }, "iterative_steps 0");
  EXPECT_NE(failure(parent, Text(0), llm_pruner("param_first", 0.5), ErrorCode::kInvalidInput).find("--calibration"),
            std::string::npos);
  EXPECT_NE(failure(parent, Text(1, 1), llm_pruner("param_first", 0.5), ErrorCode::kInvalidInput).find("two tokens"),
            std::string::npos);
  run(parent, Text(0), llm_pruner("l2", 0.5));
}

}  // namespace
}  // namespace brick::prune
