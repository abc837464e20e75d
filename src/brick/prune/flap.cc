// FLAP (An et al. 2024, "Fluctuation-based adaptive structured pruning"): a structure whose inputs to the next weight
// fluctuate little is replaced by their mean. With x the inputs of o and of down, in the dense model,
//   WIFV_j = Var(x_j) ||W_:j||^2,
// squared for o as the authors' code does, standardised within each layer and weight; a key/value head takes the mean
// over its query heads' channels (docs/method.md#pruning). Heads and neurons of all layers are ranked together, each
// counting by its linear weights. What goes leaves W_removed mean(x_removed) in the bias.
//
// Differences: variances after Welford and Chan (the authors' running mean aliases the old one); heads go with their
// key/value head; each layer keeps a head and some neurons.
#include <algorithm>
#include <cmath>

#include "brick/base/parallel.h"
#include "brick/kernels/linear.h"
#include "brick/prune/dense_walk.h"
#include "brick/prune/structured.h"
#include "brick/prune/structures.h"

namespace brick::prune {
namespace {

using model::Proj;
using tensor::ConstMatView;

constexpr int64_t kColumnGrain = 64, kRowGrain = 16;

// Means and sums of squared deviations of each column, a piece of rows at a time.
class Fluctuation {
 public:
  explicit Fluctuation(int64_t width) : means_(static_cast<size_t>(width)), squares_(static_cast<size_t>(width)) {}

  // Welford 1962 within the piece, Chan et al. 1979 between pieces.
  void add(ConstMatView x) {
    const auto before = static_cast<double>(rows_);
    parallel_ranges(x.cols, kColumnGrain, [&](int64_t begin, int64_t end) {
      std::vector<double> mean(static_cast<size_t>(end - begin)), square(mean.size());
      for (int64_t t = 0; t < x.rows; ++t) {
        for (int64_t c = begin; c < end; ++c) {
          const auto i = static_cast<size_t>(c - begin);
          const double difference = static_cast<double>(x(t, c)) - mean[i];
          mean[i] += difference / static_cast<double>(t + 1);
          square[i] += difference * (static_cast<double>(x(t, c)) - mean[i]);
        }
      }
      const auto now = static_cast<double>(x.rows);
      for (int64_t c = begin; c < end; ++c) {
        const auto i = static_cast<size_t>(c - begin), all = static_cast<size_t>(c);
        const double apart = mean[i] - means_[all];
        means_[all] += apart * now / (before + now);
        squares_[all] += square[i] + apart * apart * before * now / (before + now);
      }
    });
    rows_ += x.rows;
  }

  const std::vector<double>& means() const { return means_; }
  double variance(size_t column) const { return squares_[column] / static_cast<double>(std::max<int64_t>(rows_, 1)); }

 private:
  int64_t rows_ = 0;
  std::vector<double> means_, squares_;
};

// Var(x_j) ||W_:j||^2
std::vector<double> weighted_fluctuation(const Fluctuation& inputs, ConstMatView weight) {
  std::vector<double> out(static_cast<size_t>(weight.cols));
  for (int64_t r = 0; r < weight.rows; ++r)
    for (int64_t c = 0; c < weight.cols; ++c)
      out[static_cast<size_t>(c)] += static_cast<double>(weight(r, c)) * static_cast<double>(weight(r, c));
  for (size_t c = 0; c < out.size(); ++c) out[c] *= inputs.variance(c);
  return out;
}

// To mean 0 and deviation 1; all 0 where they are equal.
void standardise(std::vector<double>& values) {
  const auto count = static_cast<double>(values.size());
  double mean = 0, squares = 0;
  for (const double value : values) mean += value / count;
  for (const double value : values) squares += (value - mean) * (value - mean);
  const double deviation = std::sqrt(squares / std::max(count - 1, 1.0));
  for (double& value : values) value = deviation == 0 ? 0 : (value - mean) / deviation;
}

struct LayerMeans {
  std::vector<double> o, down;
};

LayerScores score_layer(const model::LayerShape& shape, const DenseLayer& weights, const Fluctuation& o_inputs,
                        const Fluctuation& down_inputs) {
  std::vector<double> channels = weighted_fluctuation(o_inputs, dense_rows(weights[static_cast<size_t>(Proj::kO)]));
  for (double& channel : channels) channel *= channel;
  standardise(channels);
  LayerScores scores;
  const size_t channels_a_group = channels.size() / static_cast<size_t>(shape.kv_heads);
  for (size_t begin = 0; begin < channels.size(); begin += channels_a_group) {
    double sum = 0;
    for (size_t i = begin; i < begin + channels_a_group; ++i) sum += channels[i];
    scores.groups.push_back(sum / static_cast<double>(channels_a_group));
  }
  scores.neurons = weighted_fluctuation(down_inputs, dense_rows(weights[static_cast<size_t>(Proj::kDown)]));
  standardise(scores.neurons);
  return scores;
}

// W_removed mean(x_removed), [D]; empty where all columns are kept.
std::vector<float> lost_mean(const tensor::Matrix& weight, const std::vector<double>& means,
                             const std::vector<int32_t>& kept) {
  if (kept.size() == means.size()) return {};
  std::vector<double> removed = means;
  for (const int32_t c : kept) removed[static_cast<size_t>(c)] = 0;
  std::vector<float> out(static_cast<size_t>(weight.rows()));
  parallel_ranges(weight.rows(), kRowGrain, [&](int64_t begin, int64_t end) {
    std::vector<float> row(removed.size());
    for (int64_t r = begin; r < end; ++r) {
      kernels::expand_row(weight, r, row.data());
      double sum = 0;
      for (size_t c = 0; c < row.size(); ++c) sum += static_cast<double>(row[c]) * removed[c];
      out[static_cast<size_t>(r)] = static_cast<float>(sum);
    }
  });
  return out;
}

}  // namespace

StructureNeeds flap_needs(const PruneConfig&) { return {}; }

std::vector<std::string_view> flap_settings(const PruneConfig&) { return {"piece_tokens", "width_multiple"}; }

ExpectedStructures expect_flap(const model::Model& parent, const PruneConfig& config) {
  const double remove = config.sparsity * static_cast<double>(parent.linear_parameters());
  const auto layers = static_cast<int64_t>(parent.layers.size());
  return {left_globally(parent, remove, {.width_multiple = config.width_multiple}), layers,
          2 * layers * parent.config.hidden};
}

std::vector<model::Model> prune_flap(const StructureProblem& problem) {
  const model::Model& parent = problem.parent;
  DenseWalk walk(parent, problem.calibration, problem.context);
  std::vector<LayerScores> scores;
  std::vector<LayerMeans> means;
  for (size_t layer = 0; layer < parent.layers.size(); ++layer) {
    const model::LayerShape& shape = parent.layers[layer].shape;
    Fluctuation o(shape.heads * shape.head_dim), down(shape.ffn);
    const DenseLayer& weights = walk.step([&](int64_t, Proj proj, ConstMatView x) {
      if (proj == Proj::kO) o.add(x);
      if (proj == Proj::kDown) down.add(x);
    });
    scores.push_back(score_layer(shape, weights, o, down));
    means.push_back({o.means(), down.means()});
    problem.sink.progress("flap", static_cast<int64_t>(layer) + 1, static_cast<int64_t>(parent.layers.size()), "layers",
                          {});
  }
  check_scores(scores);
  std::vector<StructureOutcome> outcomes;
  for (const double sparsity : problem.sparsities) {
    StructureOutcome& outcome = outcomes.emplace_back();
    outcome.cut = choose_globally(parent, scores, sparsity * static_cast<double>(parent.linear_parameters()),
                                  {.width_multiple = problem.config.width_multiple});
    for (const model::LayerCut& cut : outcome.cut.layers) {
      const auto layer = static_cast<size_t>(cut.layer);
      outcome.biases.push_back(
          {lost_mean(parent.layers[layer][Proj::kO], means[layer].o, *kept_cols(outcome.cut, cut, Proj::kO)),
           lost_mean(parent.layers[layer][Proj::kDown], means[layer].down, cut.neurons)});
    }
  }
  return cut_out(problem, outcomes);
}

}  // namespace brick::prune
