// ShortGPT (Men et al. 2024, "Layers in large language models are more redundant than you expect"): a layer's block
// influence is 1 - mean_t cos(x_t, y_t) of the residual stream before and after it (eq. 1), in the dense model; the
// layers of the least go, all at once. Our choice: as many as come nearest to the share of linear weights asked for.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "brick/base/error.h"
#include "brick/kernels/vector_ops.h"
#include "brick/prune/dense_walk.h"
#include "brick/prune/structured.h"
#include "brick/prune/structures.h"

namespace brick::prune {
namespace {

// Where one is 0, it counts as unchanged.
double cosine(const float* x, const float* y, int64_t n) {
  const double squares =
      static_cast<double>(kernels::sum_squares(x, n)) * static_cast<double>(kernels::sum_squares(y, n));
  return squares == 0 ? 1.0 : static_cast<double>(kernels::dot(x, y, n)) / std::sqrt(squares);
}

std::vector<double> block_influences(const StructureProblem& problem) {
  DenseWalk walk(problem.parent, problem.calibration, problem.context);
  std::vector<double> influences;
  const auto layers = static_cast<int64_t>(problem.parent.layers.size());
  for (int64_t layer = 0; layer < layers; ++layer) {
    double sum = 0;
    walk.step({}, [&](tensor::ConstMatView before, tensor::ConstMatView after) {
      for (int64_t t = 0; t < before.rows; ++t) sum += cosine(before.row(t), after.row(t), before.cols);
    });
    influences.push_back(1 - sum / static_cast<double>(problem.calibration.tokens()));
    if (!std::isfinite(influences.back()))
      fail(ErrorCode::kNumeric, "the block influence of layer {} is not finite: its weights are damaged or overflow",
           layer);
    problem.sink.progress("shortgpt", layer + 1, layers, "layers", {});
  }
  return influences;
}

}  // namespace

StructureNeeds shortgpt_needs(const PruneConfig&) { return {.whole_layers = true, .unit = "layers"}; }

std::vector<std::string_view> shortgpt_settings(const PruneConfig&) { return {"piece_tokens"}; }

// Of layers that are alike.
ExpectedStructures expect_shortgpt(const model::Model& parent, const PruneConfig& config) {
  const auto layers = static_cast<double>(parent.layers.size());
  const double gone = std::clamp(std::ceil(config.sparsity * layers - 0.5), 0.0, layers - 1);
  return {static_cast<double>(parent.linear_parameters()) * (1 - gone / layers), std::lround(layers - gone), 0};
}

std::vector<model::Model> prune_shortgpt(const StructureProblem& problem) {
  const std::vector<double> influences = block_influences(problem);
  std::vector<size_t> order(influences.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return influences[a] < influences[b]; });
  std::vector<StructureOutcome> outcomes;
  for (const double sparsity : problem.sparsities) {
    const double remove = sparsity * static_cast<double>(problem.parent.linear_parameters());
    std::vector<bool> gone(influences.size());
    double removed = 0;
    for (size_t i = 0; i + 1 < order.size(); ++i) {
      const auto weights =
          static_cast<double>(layer_weights(problem.parent.layers[order[i]].shape, problem.parent.config.hidden));
      if (removed + weights / 2 >= remove) continue;  // a smaller one may fit yet
      removed += weights;
      gone[order[i]] = true;
    }
    StructureOutcome& outcome = outcomes.emplace_back();
    outcome.cut = model::whole_cut(problem.parent);
    std::erase_if(outcome.cut.layers, [&](const model::LayerCut& cut) { return gone[static_cast<size_t>(cut.layer)]; });
  }
  return cut_out(problem, outcomes);
}

}  // namespace brick::prune
