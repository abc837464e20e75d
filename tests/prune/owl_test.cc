#include "brick/prune/owl.h"

#include <gtest/gtest.h>

#include <numeric>

#include "brick/prune/prune.h"
#include "model/tiny_model.h"
#include "problems.h"

namespace brick::prune {
namespace {

constexpr double kRounding = 1e-12;

TEST(Owl, MapsOutlierSharesToSparsities) {
  // D = 0, 1, 0.5 times 0.2, its mean 0.1: s - D + mean.
  const std::vector<double> shares{0.01, 0.05, 0.03};
  const std::vector<int64_t> sizes{10, 10, 10};
  const std::vector<double> got = owl_sparsities(shares, sizes, 0.5, 0.1);
  ASSERT_EQ(got.size(), 3u);
  EXPECT_NEAR(got[0], 0.6, kRounding);
  EXPECT_NEAR(got[1], 0.4, kRounding);
  EXPECT_NEAR(got[2], 0.5, kRounding);
}

TEST(Owl, KeepsTheWholeWhereLayersDifferInSize) {
  const std::vector<double> shares{0.02, 0.01, 0.09, 0.04};
  const std::vector<int64_t> sizes{100, 300, 50, 700};
  for (const double sparsity : {0.05, 0.5, 0.97}) {
    const std::vector<double> got = owl_sparsities(shares, sizes, sparsity, 0.08);
    double removed = 0;
    for (size_t l = 0; l < got.size(); ++l) {
      EXPECT_GE(got[l], 0.0);
      EXPECT_LT(got[l], 1.0);
      removed += got[l] * static_cast<double>(sizes[l]);
    }
    EXPECT_NEAR(removed, sparsity * 1150, 1e-9);
    EXPECT_LT(got[2], got[3]);
    EXPECT_LT(got[3], got[1]);
  }
}

TEST(Owl, EqualLayersAreLeftAlone) {
  const std::vector<double> shares{0.02, 0.02};
  const std::vector<int64_t> sizes{1, 2};
  EXPECT_EQ(owl_sparsities(shares, sizes, 0.3, 0.08), (std::vector<double>{0.3, 0.3}));
  EXPECT_EQ(owl_sparsities(std::vector<double>{0.1, 0.2}, sizes, 0.3, 0), (std::vector<double>{0.3, 0.3}));
}

// A layer whose weights hold a few large ones has the larger share, and is pruned less, by any method.
TEST(Owl, PrunesTheLayerWithOutliersLess) {
  model::Model parent = model::tiny_model();
  tensor::Tensor spiked = parent.layers[1][model::Proj::kUp].to_f32();
  for (int64_t i = 0; i < spiked.size(); i += 16) spiked.f32()[i] *= 30.0f;
  parent.layers[1][model::Proj::kUp] = tensor::Matrix::dense(std::move(spiked));
  std::vector<std::vector<int32_t>> ids;
  std::vector<std::span<const int32_t>> windows;
  Rng rng(3);
  for (int i = 0; i < 8; ++i) {
    ids.emplace_back();
    for (int t = 0; t < 16; ++t) ids.back().push_back(static_cast<int32_t>(rng.below(96)));
  }
  windows.assign(ids.begin(), ids.end());
  kernels::Context context;
  const std::vector<double> shares = outlier_shares(parent, Calibration(windows, 64), 5, context, silent_sink());
  ASSERT_EQ(shares.size(), 2u);
  EXPECT_GT(shares[1], shares[0]);
  for (const char* method : {"owl+wanda", "owl+magnitude", "owl+sparsegpt"}) {
    PruneConfig config;
    config.method = method;
    config.values = "f32";
    PruneReport report;
    const model::Model block = prune(parent, windows, config, context, silent_sink(), &report);
    EXPECT_EQ(block.block.method, method);
    ASSERT_EQ(report.layer_sparsities.size(), 2u);
    EXPECT_NEAR(report.layer_sparsities[0], 0.58, 1e-9);
    EXPECT_NEAR(report.layer_sparsities[1], 0.42, 1e-9);
    // Whole weights of a row, or of a block of columns.
    EXPECT_NEAR(report.sparsity, 0.5, 0.02);
    for (const MatrixReport& matrix : report.matrices)
      EXPECT_NEAR(matrix.sparsity, matrix.layer == 0 ? 0.58 : 0.42, 0.03) << method;
    EXPECT_NE(block.block.provenance.find("layer_sparsities"), std::string::npos);
  }
}

}  // namespace
}  // namespace brick::prune
