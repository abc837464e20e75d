#include "brick/prune/structures.h"

#include <gtest/gtest.h>

#include <numeric>

#include "brick/base/error.h"
#include "model/tiny_model.h"

namespace brick::prune {
namespace {

using Indices = std::vector<int32_t>;

// A head group of the tiny model has 2 (1 + 2) 8 x 32 = 1536 linear weights, a neuron 96, a layer 9216.
constexpr double kGroup = 1536, kNeuron = 96, kLayer = 9216;

Indices range(int32_t begin, int32_t end) {
  Indices out(static_cast<size_t>(end - begin));
  std::iota(out.begin(), out.end(), begin);
  return out;
}

// Neurons [0, 16) are worth `low`, the others `high`.
std::vector<double> neurons(double low, double high, size_t count = 64) {
  std::vector<double> out(count, high);
  std::fill_n(out.begin(), 16, low);
  return out;
}

TEST(Structures, CountTheirWeights) {
  const model::Model model = model::tiny_model();
  const model::LayerShape& shape = model.layers[0].shape;
  EXPECT_EQ(group_weights(shape, 32), kGroup);
  EXPECT_EQ(neuron_weights(32), kNeuron);
  EXPECT_EQ(layer_weights(shape, 32), kLayer);
  EXPECT_EQ(2 * layer_weights(shape, 32), model.linear_parameters());
}

TEST(ChooseGlobally, TakesTheLowestOfAllLayers) {
  const model::Model model = model::tiny_model();
  const std::vector<LayerScores> scores{{{5, 1}, neurons(0.5, 10)}, {{3, 9}, neurons(4, 20)}};
  const model::Cut cut = choose_globally(model, scores, 3 * kGroup, {.width_multiple = 16});
  ASSERT_EQ(cut.layers.size(), 2u);
  EXPECT_EQ(cut.layers[0].neurons, range(16, 64));
  EXPECT_EQ(cut.layers[0].kv_heads, (Indices{0}));
  EXPECT_EQ(cut.layers[0].heads, (Indices{0, 1}));
  EXPECT_EQ(cut.layers[1].kv_heads, (Indices{1}));
  EXPECT_EQ(cut.layers[1].heads, (Indices{2, 3}));
  EXPECT_EQ(cut.layers[1].neurons.size(), 64u);
}

TEST(ChooseGlobally, RoundsToTheNearestAndLetsSmallerOnesPass) {
  const model::Model model = model::tiny_model();
  const std::vector<LayerScores> scores{{{1, 9}, neurons(2, 10)}, {{8, 9}, neurons(3, 10)}};
  const auto removed = [&](double remove) {
    const model::Cut cut = choose_globally(model, scores, remove, {.width_multiple = 8});
    double kept = 0;
    for (const model::LayerCut& layer : cut.layers)
      kept += kGroup * static_cast<double>(layer.kv_heads.size()) + kNeuron * static_cast<double>(layer.neurons.size());
    return 2 * kLayer - kept;
  };
  EXPECT_EQ(removed(0.49 * kGroup), 8 * kNeuron);  // half a group: neurons alone
  EXPECT_EQ(removed(0.51 * kGroup), kGroup);
  EXPECT_EQ(removed(kGroup + 11 * kNeuron), kGroup + 8 * kNeuron);
  EXPECT_EQ(removed(kGroup + 13 * kNeuron), kGroup + 16 * kNeuron);
}

TEST(ChooseGlobally, LeavesAHeadAndSomeNeuronsAndProtectedLayers) {
  const model::Model model = model::tiny_model({.layers = 4});
  const std::vector<LayerScores> scores(4, LayerScores{{1, 2}, neurons(1, 2)});
  const model::Cut cut =
      choose_globally(model, scores, 4 * kLayer, {.width_multiple = 16, .protect_first = 1, .protect_last = 1});
  for (const int64_t layer : {1, 2}) {
    EXPECT_EQ(cut.layers[static_cast<size_t>(layer)].kv_heads, (Indices{1}));
    EXPECT_EQ(cut.layers[static_cast<size_t>(layer)].neurons, range(48, 64));
  }
  for (const int64_t layer : {0, 3}) {
    EXPECT_EQ(cut.layers[static_cast<size_t>(layer)].kv_heads.size(), 2u);
    EXPECT_EQ(cut.layers[static_cast<size_t>(layer)].neurons.size(), 64u);
  }
}

TEST(ChooseGlobally, ReachesWholeMultiplesFromOddWidths) {
  const model::Model model = model::tiny_model({.layers = 1, .ffn = 40});
  std::vector<double> worth(40);
  std::iota(worth.begin(), worth.end(), 0.0);
  const std::vector<LayerScores> scores{{{100, 100}, worth}};
  const auto width = [&](double remove) {
    return choose_globally(model, scores, remove, {.width_multiple = 16}).layers[0].neurons.size();
  };
  EXPECT_EQ(width(kNeuron), 40u);
  EXPECT_EQ(width(5 * kNeuron), 32u);
  EXPECT_EQ(width(20 * kNeuron), 16u);
  EXPECT_EQ(width(40 * kNeuron), 16u);
}

TEST(ChooseByLayer, TakesTheSameFromEach) {
  const model::Model model = model::tiny_model();
  const std::vector<LayerScores> scores{{{5, 1}, neurons(0.5, 10)}, {{300, 900}, neurons(400, 2)}};
  // Half: one of two key/value heads, and 0.5 * 9216 - 1536 = 32 * 96.
  model::Cut cut = choose_by_layer(model, model, scores, 0.5, 0.5, {.width_multiple = 16});
  EXPECT_EQ(cut.layers[0].kv_heads, (Indices{0}));
  EXPECT_EQ(cut.layers[0].neurons, range(32, 64));  // ties: the lower index goes
  EXPECT_EQ(cut.layers[1].kv_heads, (Indices{1}));
  Indices want = range(0, 16);
  for (const int32_t i : range(48, 64)) want.push_back(i);
  EXPECT_EQ(cut.layers[1].neurons, want);
  // A quarter is no whole head: all of it is neurons, 24 of them.
  cut = choose_by_layer(model, model, scores, 0.25, 0.25, {.width_multiple = 8});
  for (const model::LayerCut& layer : cut.layers) {
    EXPECT_EQ(layer.kv_heads.size(), 2u);
    EXPECT_EQ(layer.neurons.size(), 40u);
  }
  cut = choose_by_layer(model, model, scores, 0.5, 0.5, {.width_multiple = 16, .protect_first = 1});
  EXPECT_EQ(cut.layers[0].neurons.size(), 64u);
  EXPECT_EQ(cut.layers[1].neurons.size(), 32u);
}

TEST(ChooseByLayer, CountsFromTheFirstModel) {
  const model::Model whole = model::tiny_model();
  std::vector<LayerScores> scores(2, LayerScores{{1, 2}, neurons(1, 2)});
  const model::Model half =
      model::slice(whole, choose_by_layer(whole, whole, scores, 0.25, 0.25, {.width_multiple = 8}), "f32");
  for (LayerScores& own : scores) own.neurons.resize(40);
  const model::Cut cut = choose_by_layer(half, whole, scores, 0.5, 0.5, {.width_multiple = 8});
  for (const model::LayerCut& layer : cut.layers) {
    EXPECT_EQ(layer.kv_heads, (Indices{1}));
    EXPECT_EQ(layer.neurons.size(), 32u);
  }
}

// At 0.4 no head goes yet and 38 neurons would; at 0.5 a head goes, and with it no more than 32 neurons may.
TEST(ChooseByLayer, LeavesTheNeuronsOfTheLastShare) {
  const model::Model whole = model::tiny_model();
  std::vector<LayerScores> scores(2, LayerScores{{1, 2}, neurons(1, 2)});
  const StructureLimits limits{.width_multiple = 8};
  const auto width = [&](const model::Cut& cut) { return cut.layers[0].neurons.size(); };
  EXPECT_EQ(width(choose_by_layer(whole, whole, scores, 0.4, 0.4, limits)), 24u);
  const model::Cut first = choose_by_layer(whole, whole, scores, 0.4, 0.5, limits);
  EXPECT_EQ(first.layers[0].kv_heads.size(), 2u);
  EXPECT_EQ(width(first), 32u);
  for (LayerScores& own : scores) own.neurons.resize(32);
  const model::Cut last = choose_by_layer(model::slice(whole, first, "f32"), whole, scores, 0.5, 0.5, limits);
  EXPECT_EQ(last.layers[0].kv_heads, (Indices{1}));
  EXPECT_EQ(width(last), 32u);
}

TEST(ChooseByLayer, LeavesAHeadAndSomeNeurons) {
  const model::Model model = model::tiny_model();
  const std::vector<LayerScores> scores(2, LayerScores{{1, 2}, neurons(1, 2)});
  for (const model::LayerCut& layer :
       choose_by_layer(model, model, scores, 0.99, 0.99, {.width_multiple = 16}).layers) {
    EXPECT_EQ(layer.kv_heads, (Indices{1}));
    EXPECT_EQ(layer.neurons, range(48, 64));
  }
}

TEST(Structures, ScoresThatAreNotFiniteAreNamed) {
  std::vector<LayerScores> scores(2, LayerScores{{1, 2}, neurons(1, 2)});
  check_scores(scores);
  scores[1].neurons[3] = std::nan("");
  try {
    check_scores(scores);
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kNumeric);
    EXPECT_NE(std::string(error.what()).find("layer 1"), std::string::npos);
  }
}

}  // namespace
}  // namespace brick::prune
