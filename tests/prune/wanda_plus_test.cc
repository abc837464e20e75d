#include "brick/prune/wanda_plus.h"

#include <nlohmann/json.hpp>

#include "brick/kernels/rows.h"
#include "problems.h"
#include "whole_models.h"

namespace brick::prune {
namespace {

using model::Model;
using model::Proj;

TEST(WandaPlus, AddsGradientsToTheNorms) {
  tensor::Tensor weight = matrix_of(1, 4, {1, -2, 3, 4});
  const tensor::Tensor gradients = matrix_of(1, 4, {0, 0, 1, 2});
  InputStatistics inputs;
  inputs.sum_squares = {16, 9, 4, 1};
  const auto mask = [&](double scale, const char* pattern) {
    return row_of(prune_by_region({"w", model::Proj::kQ, weight.mat(), &inputs, 0.5, parse_pattern(pattern), {}},
                                  gradients.mat(), scale)
                      .mask,
                  0);
  };
  for (const char* pattern : {"unstructured", "2:4"}) {
    EXPECT_EQ(mask(0, pattern), "0110");    // 4, 6, 6, 4, as Wanda
    EXPECT_EQ(mask(0.5, pattern), "0011");  // 4, 6, 3 (2 + 0.5), 4 (1 + 1)
  }
}

// A layer of a small model as a problem of its own.
struct Layer {
  static constexpr int64_t kLayer = 1;
  Model block = model::tiny_model();
  Text text{3, 6};
  Calibration calibration{text.windows, 40};
  PruneConfig config = config_of("wanda++");
  LayerStatistics statistics;
  kernels::Context context;
  tensor::Tensor inputs = random_matrix(calibration.tokens(), block.config.hidden, 4);
  LayerProblem problem{block, kLayer, 0.5, {}, config, statistics, calibration, inputs.mat(), context};
  PrunedLayer pruned;

  Layer() {
    const DenseLayer dense = decode_layer(block, kLayer);
    for (size_t p = 0; p < dense.size(); ++p) {
      pruned.weights[p] = tensor::matrix(dense[p].rows(), dense[p].cols());
      kernels::copy_rows(dense_rows(dense[p]), pruned.weights[p].mat());
    }
  }
};

TEST(WandaPlus, GradientsAreThoseOfTheOutputsNorm) {
  constexpr float kStep = 0.01f;
  constexpr double kCentral = 0.02;  // relative: float32, and kStep^2 of the third derivative
  Layer layer;
  Region region(layer.problem, layer.pruned);
  const LayerTensors gradients = region.mean_gradients();
  const auto norm = [&](const Calibration::Piece& sequence) {
    return std::sqrt(squared_norm(region.forward(sequence)));
  };
  for (const Proj proj : model::kProjs) {
    const auto p = static_cast<size_t>(proj);
    for (const int64_t at : {0, 77, 300}) {
      float& weight = layer.pruned.weights[p].f32()[at];
      const float before = weight;
      double squares = 0;
      for (const Calibration::Piece& sequence : region.sequences()) {
        weight = before + kStep;
        const double above = norm(sequence);
        weight = before - kStep;
        const double slope = (above - norm(sequence)) / (2 * double{kStep});
        squares += slope * slope / 3;
      }
      weight = before;
      const double wanted = std::sqrt(squares);
      EXPECT_NEAR(gradients[p].f32()[at], wanted, kCentral * wanted + 1e-5) << name(proj) << " " << at;
    }
  }
}

double error_of(const Model& block, const Model& parent) {
  const std::vector<float> got = outputs(block), wanted = outputs(parent);
  double sum = 0;
  for (size_t i = 0; i < got.size(); ++i) sum += std::pow(static_cast<double>(got[i] - wanted[i]), 2);
  return sum;
}

TEST(WandaPlus, IsNearerToTheDenseModelThanWanda) {
  double wanda = 0, gradients = 0, both = 0;
  for (const uint64_t seed : {1u, 2u, 3u}) {
    const Model parent = model::tiny_model({.seed = seed});
    const Text text(40);
    PruneConfig config = config_of("wanda++");
    config.regional_rate = 1e-3;
    both += error_of(run(parent, text, config), parent);
    config.regional_rounds = 0;
    gradients += error_of(run(parent, text, config), parent);
    wanda += error_of(run(parent, text, config_of("wanda")), parent);
  }
  EXPECT_LT(both, 0.9 * wanda);
  EXPECT_LT(both, gradients);
}

TEST(WandaPlus, WithoutGradientsAndRoundsIsWanda) {
  const Model parent = model::tiny_model();
  PruneConfig config = config_of("wanda++");
  config.regional_scale = 0;
  config.regional_rounds = 0;
  const Model block = run(parent, Text(), config), wanda = run(parent, Text(), config_of("wanda"));
  EXPECT_EQ(block.block.mask_hash, wanda.block.mask_hash);
  EXPECT_EQ(outputs(block), outputs(wanda));
}

TEST(WandaPlus, DropsTheShareOfEachRow) {
  const Model block = run(model::tiny_model(), Text(), config_of("wanda++", 0.3));
  for (const model::Layer& layer : block.layers)
    for (const tensor::Matrix& weight : layer.projections) {
      const tensor::MaskView mask = weight.sparse_view().mask;
      for (int64_t r = 0; r < mask.rows; ++r)
        ASSERT_EQ(mask.cols - mask.count_row(r), static_cast<int64_t>(0.3 * static_cast<double>(mask.cols)));
    }
}

TEST(WandaPlus, SameSeedSameBitsOtherSeedOtherWindows) {
  const Model parent = model::tiny_model();
  PruneConfig config = config_of("owl+wanda++");
  config.regional_samples = 3;
  const Model first = run(parent, Text(), config);
  expect_same_bits(first, run(parent, Text(), config));
  config.seed = 1;
  EXPECT_NE(outputs(run(parent, Text(), config)), outputs(first));
}

TEST(WandaPlus, IsRecordedAndChecked) {
  const Model parent = model::tiny_model();
  PruneConfig config = config_of("wanda++");
  const auto json = nlohmann::json::parse(run(parent, Text(), config).block.provenance);
  EXPECT_EQ(json["config"]["regional"]["rounds"], 5);
  config.regional_samples = 0;
  EXPECT_NE(failure(parent, Text(), config, ErrorCode::kInvalidInput).find("regional_samples 0"), std::string::npos);
  config = config_of("wanda++", 0.5, "keep");
  EXPECT_NE(failure(model::tiny_model({.dtype = tensor::DType::kQ4_1}), Text(), config, ErrorCode::kUnsupported), "");
}

}  // namespace
}  // namespace brick::prune
