// Which rule wants which clients, on a toy: matrices of 64 x 64, a shared update of rank 8, clients at 0,
// 25, 50 and 75 %.
#include <gtest/gtest.h>

#include <array>
#include <map>

#include "brick/federate/svd.h"
#include "federate/rounds.h"

namespace brick::federate {
namespace {

constexpr int64_t kSize = 64, kRank = 8;
constexpr double kNoise = 0.03;  // of a client's view of the update, whose entries have deviation 0.1
constexpr int kSeeds = 3, kSweeps = 6;
constexpr double kRidge = 1e-2;
const std::vector<Target> kMatrix{{Proj::kQ, kSize, kSize}};

using Square = std::vector<double>;  // [kSize, kSize]

// x of (G + ridge) x = g by Cholesky, G [kRank, kRank].
std::array<double, kRank> solve(std::array<std::array<double, kRank>, kRank> gram, std::array<double, kRank> g) {
  for (size_t i = 0; i < kRank; ++i) gram[i][i] += kRidge;
  for (size_t j = 0; j < kRank; ++j)
    for (size_t i = j; i < kRank; ++i) {
      for (size_t k = 0; k < j; ++k) gram[i][j] -= gram[i][k] * gram[j][k];
      gram[i][j] = i == j ? std::sqrt(gram[i][j]) : gram[i][j] / gram[j][j];
    }
  for (size_t i = 0; i < kRank; ++i) {
    for (size_t k = 0; k < i; ++k) g[i] -= gram[i][k] * g[k];
    g[i] /= gram[i][i];
  }
  for (size_t i = kRank; i-- > 0;) {
    for (size_t k = i + 1; k < kRank; ++k) g[i] -= gram[k][i] * g[k];
    g[i] /= gram[i][i];
  }
  return g;
}

// Client's training: min ||M (B A - y)||^2 by alternating least squares from the shared start; no mask: all
// of y.
void fit(const Square& y, const tensor::Mask* mask, model::LoraPair& pair) {
  const tensor::MatView a = pair.a.mat(), b = pair.b.mat();
  const auto half = [&](bool rows) {
    for (int64_t line = 0; line < kSize; ++line) {
      std::array<std::array<double, kRank>, kRank> gram{};
      std::array<double, kRank> g{};
      for (int64_t other = 0; other < kSize; ++other) {
        const int64_t r = rows ? line : other, c = rows ? other : line;
        if (mask != nullptr && !mask->kept(r, c)) continue;
        for (int64_t i = 0; i < kRank; ++i) {
          const double x = rows ? a(i, c) : b(r, i);
          g[static_cast<size_t>(i)] += x * y[static_cast<size_t>(r * kSize + c)];
          for (int64_t j = 0; j <= i; ++j)
            gram[static_cast<size_t>(i)][static_cast<size_t>(j)] += x * (rows ? a(j, c) : b(r, j));
        }
      }
      const auto x = solve(gram, g);
      for (int64_t i = 0; i < kRank; ++i)
        (rows ? b(line, i) : a(i, line)) = static_cast<float>(x[static_cast<size_t>(i)]);
    }
  };
  for (int sweep = 0; sweep < kSweeps; ++sweep) {
    half(true);
    half(false);
  }
}

struct Regime {
  bool mask_aware;
  std::array<double, 4> sparsity{0, 0.25, 0.5, 0.75};
};

// Relative error to the shared update, mean over seeds.
std::map<std::string, double> errors(const Regime& regime) {
  std::map<std::string, double> mean;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    Adapter truth = zero_adapter(kRank, kRank, kMatrix, 1);
    truth = disturbed(truth, 0.1 / std::sqrt(0.1 * std::sqrt(static_cast<double>(kRank))), seed);
    const Square shared = product(truth, 0, Proj::kQ);
    const Adapter start = disturbed(zero_adapter(kRank, kRank, kMatrix, 1), 0.125, 50 + seed);
    Federation f;
    Rng rng(seed, 91);
    for (size_t k = 0; k < 4; ++k) {
      Square seen = shared;
      for (double& x : seen) x += kNoise * rng.normal();
      Adapter adapter = start.clone();
      BlockMasks& block = f.masks.emplace_back(random_masks(regime.sparsity[k], 10 * seed + k, kMatrix, 1));
      const tensor::Mask& mask = block.masks[0][static_cast<size_t>(Proj::kQ)];
      fit(seen, regime.mask_aware ? &mask : nullptr, adapter.at(0, Proj::kQ));
      f.add(std::to_string(k), std::move(adapter), 0).masks = block.views();
    }
    for (const char* rule : {"fedit", "flexlora", "hete-h0", "hete-h1", "hete-h2", "hete-tau"})
      mean[rule] += difference(f.run(rule, {.coverage = false}), truth) / kSeeds;
    mean["hete-h0+coverage"] += difference(f.run("hete-h0", {.coverage = true}), truth) / kSeeds;
  }
  for (const auto& [rule, error] : mean) testing::Test::RecordProperty(rule, std::to_string(error));
  for (const auto& [rule, error] : mean) printf("%s %.3f\n", rule.c_str(), error);
  return mean;
}

TEST(Toy, MaskAwareClientsWantTheMaskedFit) {
  const auto error = errors({.mask_aware = true});
  EXPECT_LT(error.at("hete-h2"), 0.5 * error.at("flexlora"));
  EXPECT_LT(error.at("flexlora"), error.at("fedit"));
  EXPECT_LT(error.at("hete-h1"), error.at("flexlora"));
  EXPECT_LT(error.at("hete-tau"), error.at("flexlora"));
}

TEST(Toy, AllSparseMaskAwareClientsNeedTheFitRatherThanTheAverage) {
  const auto error = errors({.mask_aware = true, .sparsity = {0.5, 0.5, 0.75, 0.75}});
  EXPECT_LT(error.at("hete-h2"), 0.6 * error.at("hete-h1"));
  EXPECT_LT(error.at("hete-h2"), 0.6 * error.at("flexlora"));
}

TEST(Toy, DenseClientsWithoutRepairWantFlexLora) {
  const auto error = errors({.mask_aware = false});
  for (const char* rule : {"fedit", "hete-h0", "hete-h1", "hete-h2", "hete-tau"})
    EXPECT_LT(error.at("flexlora"), error.at(rule)) << rule;
}

}  // namespace
}  // namespace brick::federate
