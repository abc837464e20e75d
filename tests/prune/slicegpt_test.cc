// SliceGPT's parts by hand, the rotation's exactness, and whole models.
#include "brick/prune/slicegpt.h"

#include <algorithm>
#include <cmath>

#include "brick/model/loss.h"
#include "model/cut_model.h"
#include "whole_models.h"

namespace brick::prune {
namespace {

using model::Model;
using model::Proj;
using tensor::Tensor;

constexpr double kRounding = 1e-4;  // of logits in float32, relative to their norm

PruneConfig slicing(double sparsity = 0.5, const std::string& values = "f32") {
  PruneConfig config = config_of("slicegpt", sparsity, values);
  config.width_multiple = 8;
  return config;
}

std::vector<float> logits_of(const Model& model) {
  kernels::Context context;
  model::Transformer transformer(model, context, 10);
  const std::vector<int32_t> ids{1, 5, 9, 3, 7, 50, 60, 70, 80, 90};
  const std::vector<int64_t> offsets{0, 10};
  Tensor out = tensor::matrix(10, model.config.vocab);
  model::logits(context, model, transformer.forward({ids, offsets}), out.mat());
  return {out.f32(), out.f32() + out.size()};
}

// ||a - b|| / ||b||
double difference(const std::vector<float>& a, const std::vector<float>& b) {
  double apart = 0, norm = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    apart += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    norm += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(apart / norm);
}

// [rows, cols] with orthonormal rows, by Gram and Schmidt.
Tensor random_directions(int64_t rows, int64_t cols, uint64_t seed) {
  Rng rng(seed);
  Tensor out = tensor::matrix(rows, cols);
  for (int64_t r = 0; r < rows; ++r) {
    std::vector<double> row(static_cast<size_t>(cols));
    for (double& x : row) x = rng.normal();
    for (int pass = 0; pass < 2; ++pass)
      for (int64_t before = 0; before < r; ++before) {
        double dot = 0;
        for (int64_t c = 0; c < cols; ++c)
          dot += row[static_cast<size_t>(c)] * static_cast<double>(out.mat()(before, c));
        for (int64_t c = 0; c < cols; ++c)
          row[static_cast<size_t>(c)] -= dot * static_cast<double>(out.mat()(before, c));
      }
    double norm = 0;
    for (const double x : row) norm += x * x;
    for (int64_t c = 0; c < cols; ++c)
      out.mat()(r, c) = static_cast<float>(row[static_cast<size_t>(c)] / std::sqrt(norm));
  }
  return out;
}

// Every norm's products the same.
Rotation rotation_to(Tensor stream, const Model& model, const Products& products, bool refit) {
  Rotation rotation{std::move(stream), {}};
  for (size_t i = 0; i < 2 * model.layers.size() + 1; ++i)
    rotation.readers.push_back(reader(products, rotation.stream.mat(), refit, 0.01));
  return rotation;
}

Products random_products(int64_t width, uint64_t seed) {
  Rng rng(seed);
  std::vector<double> factor(static_cast<size_t>(width * width));
  for (double& x : factor) x = rng.normal();
  Products out(factor.size());
  const auto at = [&](int64_t r, int64_t c) { return factor[static_cast<size_t>(r * width + c)]; };
  for (int64_t i = 0; i < width; ++i)
    for (int64_t j = 0; j < width; ++j)
      for (int64_t k = 0; k < width; ++k) out[static_cast<size_t>(i * width + j)] += at(i, k) * at(j, k);
  return out;
}

// tr(Q^T S Q)
double energy(const Tensor& directions, const Products& products) {
  const int64_t width = directions.shape()[1];
  double sum = 0;
  for (int64_t r = 0; r < directions.shape()[0]; ++r)
    for (int64_t i = 0; i < width; ++i)
      for (int64_t j = 0; j < width; ++j)
        sum += static_cast<double>(directions.mat()(r, i)) * products[static_cast<size_t>(i * width + j)] *
               static_cast<double>(directions.mat()(r, j));
  return sum;
}

// Norms far from 1, one weight 0.
Model model_with_norms(model::TinyOptions options = {}) {
  Model model = model::tiny_model(options);
  Rng rng(options.seed + 100);
  const auto fill = [&](std::vector<float>& norm) {
    for (float& w : norm) w = static_cast<float>(2 * rng.normal());
  };
  for (model::Layer& layer : model.layers) {
    fill(layer.attention_norm);
    fill(layer.ffn_norm);
  }
  fill(model.final_norm);
  model.layers[0].ffn_norm[5] = 0;
  return model;
}

TEST(PrincipalDirections, ByHand) {
  // Eigenvalues of the sum: 3 along (1, 1, 0), 2.5 along the last axis, 1 along (1, -1, 0).
  const std::vector<Products> products{{2, 1, 0, 1, 2, 0, 0, 0, 0}, {0, 0, 0, 0, 0, 0, 0, 0, 2.5}};
  const Tensor kept = principal_directions(products, 2);
  const double half = std::sqrt(0.5), sign = kept.mat()(0, 0) < 0 ? -1 : 1;
  EXPECT_NEAR(sign * kept.mat()(0, 0), half, 1e-6);
  EXPECT_NEAR(sign * kept.mat()(0, 1), half, 1e-6);
  EXPECT_NEAR(kept.mat()(0, 2), 0, 1e-6);
  EXPECT_NEAR(std::fabs(kept.mat()(1, 2)), 1, 1e-6);
}

TEST(PrincipalDirections, KeepMoreEnergyThanAnyOthers) {
  const std::vector<Products> products{random_products(12, 1)};
  const double most = energy(principal_directions(products, 5), products[0]);
  for (uint64_t seed = 0; seed < 50; ++seed)
    EXPECT_LT(energy(random_directions(5, 12, seed), products[0]), most) << seed;
  Tensor all = principal_directions(products, 12);
  EXPECT_NEAR(energy(all, products[0]), energy(random_directions(12, 12, 0), products[0]), 1e-3);
}

TEST(Reader, ByHand) {
  const Products products{4, 2, 2, 3};
  Tensor stream = tensor::matrix(1, 2);
  stream.f32()[0] = 1;
  const Tensor plain = reader(products, stream.mat(), false, 0);
  EXPECT_NEAR(plain.f32()[0], std::sqrt(2.0), 1e-6);
  EXPECT_EQ(plain.f32()[1], 0.0f);
  // The second is half the first by least squares; 4 of 7 parts of the energy stay.
  const Tensor refitted = reader(products, stream.mat(), true, 0);
  EXPECT_NEAR(refitted.f32()[0], std::sqrt(8.0 / 7), 1e-6);
  EXPECT_NEAR(refitted.f32()[1], std::sqrt(8.0 / 7) / 2, 1e-6);
  EXPECT_NEAR(reader(products, stream.mat(), true, 1).f32()[1], std::sqrt(8.0 / 7) / 4, 1e-6);
  EXPECT_THROW(reader({0, 0, 0, 1}, stream.mat(), true, 0.01), Error);
}

TEST(Rotate, ChangesNothingWhenNothingGoes) {
  const Products products = random_products(32, 7);
  for (const Model& model : {model_with_norms(), model_with_norms({.tied = false, .seed = 1}), model::tiny_cut_block()})
    for (const bool refit : {false, true}) {
      const Rotation rotation = rotation_to(random_directions(32, 32, 3), model, products, refit);
      const Model turned = rotate(model, rotation, "f32");
      EXPECT_LT(difference(logits_of(turned), logits_of(model)), kRounding);
      EXPECT_NE(turned.embedding.to_f32().f32()[0], model.embedding.to_f32().f32()[0]);
      EXPECT_FALSE(turned.config.tied_head);
      EXPECT_EQ(turned.final_norm, std::vector<float>(32, 1.0f));
      EXPECT_EQ(model::cut_hash(turned), model::cut_hash(model));
      EXPECT_NE(model::fingerprint(turned), model::fingerprint(model));
    }
}

TEST(Rotate, NegativeControlOneWrongEntryShows) {
  const Model model = model_with_norms();
  Rotation rotation = rotation_to(random_directions(32, 32, 3), model, random_products(32, 7), false);
  rotation.readers[2].f32()[5] += 0.5f;
  EXPECT_GT(difference(logits_of(rotate(model, rotation, "f32")), logits_of(model)), 10 * kRounding);
}

// The last half of the channels is never written to.
Model half_used() {
  Model model = model_with_norms();
  model.config.norm_eps = 0.1f;  // so large that its factor counts
  const auto clear = [](tensor::Matrix& weight, bool rows) {
    Tensor values = weight.to_f32();
    for (int64_t r = 0; r < weight.rows(); ++r)
      for (int64_t c = 0; c < weight.cols(); ++c)
        if ((rows ? r : c) >= 16) values.mat()(r, c) = 0;
    weight = tensor::Matrix::dense(std::move(values));
  };
  model.own_head = model.embedding;
  model.config.tied_head = false;
  clear(model.embedding, false);
  for (model::Layer& layer : model.layers)
    for (const Proj proj : {Proj::kO, Proj::kDown}) clear(layer[proj], true);
  return model;
}

TEST(Rotate, NormsOverFewerDirectionsAreTheSame) {
  const Model model = half_used();
  Tensor first_half = tensor::matrix(16, 32);
  for (int64_t i = 0; i < 16; ++i) first_half.mat()(i, i) = 1;
  const Model narrow = rotate(model, rotation_to(std::move(first_half), model, random_products(32, 1), false), "f32");
  EXPECT_EQ(narrow.config.hidden, 16);
  EXPECT_NEAR(narrow.config.norm_eps, 0.2, 1e-6);
  EXPECT_LT(difference(logits_of(narrow), logits_of(model)), kRounding);
}

TEST(SliceGpt, FindsTheDirectionsThatAreUsed) {
  const Model model = half_used();
  const Model mixed =
      rotate(model, rotation_to(random_directions(32, 32, 9), model, random_products(32, 1), false), "f32");
  for (const int64_t refit : {0, 15}) {
    PruneConfig config = slicing();
    config.refit_steps = refit;
    const Model block = run(mixed, Text(40), config);
    EXPECT_EQ(block.config.hidden, 16);
    EXPECT_LT(difference(logits_of(block), logits_of(model)), kRounding);
  }
}

TEST(SliceGpt, BeatsRandomDirectionsAndGainsByTheRefit) {
  double sliced = 0, plain = 0, random = 0;
  for (const uint64_t seed : {1u, 2u, 3u, 4u}) {
    const Model model = model::tiny_model({.layers = 4, .tied = false, .seed = seed});
    const std::vector<float> want = logits_of(model);
    PruneConfig config = slicing(0.25);
    sliced += difference(logits_of(run(model, Text(60), config)), want);
    config.refit_steps = 0;
    plain += difference(logits_of(run(model, Text(60), config)), want);
    const Rotation rotation = rotation_to(random_directions(24, 32, seed), model, random_products(32, 1), false);
    random += difference(logits_of(rotate(model, rotation, "f32")), want);
  }
  EXPECT_LT(plain, 0.95 * random);
  EXPECT_LT(sliced, plain);
}

TEST(SliceGpt, WidthIsTheNearestMultiple) {
  const Model model = model::tiny_model();
  for (const auto& [sparsity, width] : {std::pair{0.05, 32}, {0.3, 24}, {0.4, 16}, {0.99, 8}})
    EXPECT_EQ(run(model, Text(), slicing(sparsity)).config.hidden, width) << sparsity;
  PruneConfig config = slicing(0.5);
  config.width_multiple = 64;
  EXPECT_EQ(run(model, Text(), config).config.hidden, 32);
}

TEST(SliceGpt, SaysWhereTheBlockIsLargerThanTheModel) {
  PruneReport report;
  run(model::tiny_model({.vocab = 2000}), Text(), slicing(0.25), &report);
  ASSERT_EQ(report.notes.size(), 1u);
  EXPECT_NE(report.notes[0].find("its head no longer is the embedding"), std::string::npos);
}

TEST(SliceGpt, HoldsValuesAsAsked) {
  const Model model = model::tiny_model({.hidden = 64, .dtype = tensor::DType::kQ4_1});
  PruneConfig config = slicing(0.5, "q4");
  config.width_multiple = 32;
  const Model block = run(model, Text(), config);
  EXPECT_EQ(block.layers[0][Proj::kDown].dtype(), tensor::DType::kQ4_1);
  EXPECT_EQ(block.embedding.dtype(), tensor::DType::kQ8_0);
  EXPECT_EQ(block.head().dtype(), tensor::DType::kQ8_0);
  EXPECT_EQ(run(model, Text(), slicing(0.5, "bf16")).head().dtype(), tensor::DType::kBF16);
  EXPECT_NE(failure(model, Text(), slicing(0.5, "keep"), ErrorCode::kUnsupported).find("--values"), std::string::npos);
}

TEST(SliceGpt, GoesBeforeAndAfterOtherCuts) {
  PruneConfig flap = slicing(0.25);
  flap.method = "flap";
  const Model parent = model::tiny_model({.layers = 4});
  const Model cut = run(parent, Text(), flap);
  const Model both = run(cut, Text(), slicing(0.25));
  EXPECT_EQ(both.block.method, "flap+slicegpt");
  EXPECT_EQ(model::cut_hash(both), model::cut_hash(cut));
  EXPECT_EQ(both.layers[0].down_bias.size(), cut.layers[0].down_bias.empty() ? 0u : 24u);
  const Model sliced = run(parent, Text(), slicing(0.25));
  const Model after = run(sliced, Text(), flap);
  EXPECT_EQ(after.block.method, "slicegpt+flap");
  EXPECT_EQ(after.block.cut->parent_layers, 4);
  EXPECT_EQ(after.block.parent, model::fingerprint(sliced));
  // Masked twice, and still known to be sliced.
  const Model masked = run(run(sliced, Text(), config_of("magnitude", 0.25)), Text(), config_of("magnitude", 0.5));
  EXPECT_EQ(masked.block.method, "slicegpt+magnitude+magnitude");
}

}  // namespace
}  // namespace brick::prune
