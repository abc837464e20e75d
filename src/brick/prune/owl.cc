#include "brick/prune/owl.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

#include "brick/base/error.h"
#include "brick/base/parallel.h"
#include "brick/prune/dense_walk.h"
#include "brick/prune/level_pruner.h"
#include "brick/prune/statistics.h"

namespace brick::prune {
namespace {

using model::Proj;

constexpr double kMostSparsity = 0.999;  // of a layer

double share_above(const DenseLayer& weights, const LayerStatistics& inputs, double outlier) {
  double sum = 0;
  int64_t count = 0, above = 0;
  const auto for_each_score = [&](auto&& visit) {
    for (const Proj proj : model::kProjs) {
      const tensor::ConstMatView weight = dense_rows(weights[static_cast<size_t>(proj)]);
      const std::vector<double>& squares = inputs[input_index(proj)].sum_squares;
      std::vector<double> norms(squares.size());
      std::transform(squares.begin(), squares.end(), norms.begin(), [](double s) { return std::sqrt(s); });
      for (int64_t r = 0; r < weight.rows; ++r)
        for (int64_t c = 0; c < weight.cols; ++c)
          visit(std::fabs(static_cast<double>(weight(r, c))) * norms[static_cast<size_t>(c)]);
    }
  };
  for_each_score([&](double score) {
    sum += score;
    ++count;
  });
  const double threshold = outlier * sum / static_cast<double>(std::max<int64_t>(count, 1));
  for_each_score([&](double score) { above += score > threshold ? 1 : 0; });
  return static_cast<double>(above) / static_cast<double>(std::max<int64_t>(count, 1));
}

}  // namespace

std::vector<double> outlier_shares(const model::Model& model, const Calibration& calibration, double outlier,
                                   kernels::Context& context, ProgressSink& sink) {
  DenseWalk walk(model, calibration, context);
  std::vector<double> shares;
  const auto layers = static_cast<int64_t>(model.layers.size());
  for (int64_t layer = 0; layer < layers; ++layer) {
    std::array<std::optional<StatisticsBuilder>, std::tuple_size_v<LayerStatistics>> builders;
    const DenseLayer& weights = walk.step([&](int64_t, Proj proj, tensor::ConstMatView inputs) {
      std::optional<StatisticsBuilder>& builder = builders[input_index(proj)];
      if (!builder) builder.emplace(Needs::kColumnNorms, inputs.cols, calibration.tokens());
      builder->add(inputs);
    });
    LayerStatistics statistics;
    for (size_t i = 0; i < statistics.size(); ++i) statistics[i] = builders[i]->take();
    shares.push_back(share_above(weights, statistics, outlier));
    sink.progress("owl", layer + 1, layers, "layers", {});
  }
  return shares;
}

std::vector<double> owl_sparsities(std::span<const double> shares, std::span<const int64_t> sizes, double sparsity,
                                   double spread) {
  BRICK_ASSERT(shares.size() == sizes.size() && !shares.empty());
  const auto [low, high] = std::minmax_element(shares.begin(), shares.end());
  const double range = *high - *low;
  if (!(range > 0)) return std::vector<double>(shares.size(), sparsity);
  double total = 0, mean = 0;
  for (size_t l = 0; l < shares.size(); ++l) {
    total += static_cast<double>(sizes[l]);
    mean += static_cast<double>(sizes[l]) * (shares[l] - *low) / range;
  }
  mean /= total;  // of D / (2 spread), in [0, 1]
  // The most outliers make s - 2 spread (1 - mean), the fewest s + 2 spread mean.
  const double room =
      std::min(sparsity / std::max(1 - mean, 1e-12), (kMostSparsity - sparsity) / std::max(mean, 1e-12));
  const double width = std::min(2 * spread, std::max(room, 0.0));
  std::vector<double> out;
  for (const double share : shares) out.push_back(sparsity - width * ((share - *low) / range - mean));
  return out;
}

}  // namespace brick::prune
