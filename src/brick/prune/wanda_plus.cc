// Wanda++ (Yang et al. 2025, "Pruning large language models via regional gradients", arXiv 2503.04992). A region is one
// decoder layer f with its shortcuts. Its weights are scored by
//   S_ij = |W_ij| (||X_j||_2 + alpha G_ij),   G_ij^2 = mean over sequences n of (d||f(x_n)||_2 / dW_ij)^2,
// X being the weight's inputs over all tokens; the lowest of each row go, as in Wanda. In each of some rounds S prunes,
// and RMSprop goes once over some sequences, a step each, towards the dense layer's outputs, sum ||f(x_n) - y_n||^2; S
// prunes what the last one leaves. Dropped weights move with the others, so that the next pruning may choose anew.
//
// The norms over all tokens and the step a sequence are those of TTTTTTris/wandaplus. Difference: X and G stay the
// dense layer's, where that code takes them anew from the pruned one.
#include "brick/prune/wanda_plus.h"

#include <algorithm>
#include <cmath>

#include "brick/base/error.h"
#include "brick/base/parallel.h"
#include "brick/base/rng.h"
#include "brick/kernels/rows.h"
#include "brick/kernels/vector_ops.h"
#include "brick/prune/selection.h"

namespace brick::prune {
namespace {

using model::Proj;
using tensor::ConstMatView;
using tensor::MatView;
using Sequence = Calibration::Piece;

constexpr float kDecay = 0.99f, kEpsilon = 1e-8f;  // torch's RMSprop
constexpr int64_t kRowGrain = 16;
constexpr uint64_t kSampleStream = 0x726567696f6e;

template <class Visit>
void for_each_row(const LayerTensors& tensors, Visit&& visit) {
  for (size_t p = 0; p < tensors.size(); ++p)
    parallel_ranges(tensors[p].shape()[0], kRowGrain, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) visit(p, r, tensors[p].shape()[1]);
    });
}

// So many of them, chosen anew for each round; all in their order where there are no more.
std::vector<Sequence> sample(std::vector<Sequence> sequences, const LayerProblem& problem, int64_t round) {
  const auto count = static_cast<size_t>(problem.config.regional_samples);
  if (sequences.size() <= count) return sequences;
  Rng rng(problem.config.seed,
          stream_id({kSampleStream, static_cast<uint64_t>(problem.layer), static_cast<uint64_t>(round)}));
  shuffle(std::span(sequences), rng);
  sequences.resize(count);
  return sequences;
}

void prune_all(const LayerProblem& problem, const LayerTensors& gradients, PrunedLayer& pruned) {
  for (const Proj proj : model::kProjs) {
    const auto p = static_cast<size_t>(proj);
    const MatView weight = pruned.weights[p].mat();
    pruned.outcomes[p] = prune_by_region({model::weight_name(problem.layer, proj),
                                          proj,
                                          weight,
                                          &problem.statistics[input_index(proj)],
                                          problem.sparsity,
                                          problem.pattern,
                                          {}},
                                         gradients[p].mat(), problem.config.regional_scale);
    clear_dropped(pruned.outcomes[p].mask.view(), weight);
  }
}

// One pass; `squares` are RMSprop's running means.
void descend(Region& region, std::span<const Sequence> sequences, ConstMatView targets, double rate,
             LayerTensors& squares, PrunedLayer& pruned) {
  const auto step = static_cast<float>(rate);
  for (const Sequence& sequence : sequences) {
    const MatView x = region.forward(sequence);
    const ConstMatView y = targets.row_range(sequence.begin, sequence.end);
    for (int64_t t = 0; t < x.rows; ++t) {
      kernels::axpy(-1.0f, y.row(t), x.row(t), x.cols);
      kernels::scale(2.0f, x.row(t), x.cols);
    }
    const LayerTensors& gradients = region.backward(x);
    for_each_row(gradients, [&](size_t p, int64_t r, int64_t cols) {
      const float* g = gradients[p].mat().row(r);
      float *v = squares[p].mat().row(r), *w = pruned.weights[p].mat().row(r);
      for (int64_t c = 0; c < cols; ++c) {
        v[c] = kDecay * v[c] + (1.0f - kDecay) * g[c] * g[c];
        w[c] -= step * g[c] / (std::sqrt(v[c]) + kEpsilon);
      }
    });
  }
}

}  // namespace

Region::Region(const LayerProblem& problem, const PrunedLayer& pruned)
    : problem_(problem),
      sequences_(problem.calibration.sequences()),
      transformer_(problem.block, problem.context, problem.calibration.longest_sequence(), true,
                   model::Activations::kOneLayer),
      x_(tensor::matrix(transformer_.max_tokens(), problem.inputs.cols)),
      gradients_(zeros_of(problem.block, problem.layer)) {
  for (const Proj proj : model::kProjs)
    problem.block.layers[static_cast<size_t>(problem.layer)][proj] =
        looking_at(pruned.weights[static_cast<size_t>(proj)]);
}

MatView Region::forward(const Sequence& sequence) {
  const MatView x(x_.f32(), sequence.end - sequence.begin, problem_.inputs.cols);
  kernels::copy_rows(problem_.inputs.row_range(sequence.begin, sequence.end), x);
  transformer_.layer_forward(problem_.layer, sequence.offsets, x);
  return x;
}

const LayerTensors& Region::backward(MatView d_output) {
  transformer_.layer_backward(problem_.layer, d_output, false, views_of(gradients_));
  return gradients_;
}

LayerTensors Region::mean_gradients() {
  LayerTensors means = zeros_of(problem_.block, problem_.layer);
  const float share = 1.0f / static_cast<float>(sequences_.size());
  for (const Sequence& sequence : sequences_) {
    const MatView x = forward(sequence);
    const double norm = std::sqrt(squared_norm(x));
    if (!std::isfinite(norm))
      fail(ErrorCode::kNumeric,
           "the output of layer {} is not finite in the calibration: its weights are damaged or "
           "overflow",
           problem_.layer);
    for (int64_t t = 0; t < x.rows && norm > 0; ++t) kernels::scale(static_cast<float>(1 / norm), x.row(t), x.cols);
    backward(x);
    for_each_row(means, [&](size_t p, int64_t r, int64_t cols) {
      const float* g = gradients_[p].mat().row(r);
      float* mean = means[p].mat().row(r);
      for (int64_t c = 0; c < cols; ++c) mean[c] += share * g[c] * g[c];
    });
  }
  for_each_row(means, [&](size_t p, int64_t r, int64_t cols) {
    float* mean = means[p].mat().row(r);
    for (int64_t c = 0; c < cols; ++c) mean[c] = std::sqrt(mean[c]);
  });
  return means;
}

MatrixOutcome prune_by_region(const MatrixProblem& problem, ConstMatView gradients, double scale) {
  check_groups(problem);
  const ConstMatView weight = problem.weight;
  const std::vector<float> norms = problem.inputs->column_norms();
  const auto alpha = static_cast<float>(scale);
  const auto score_row = [&](int64_t r, std::span<float> scores) {
    for (size_t c = 0; c < scores.size(); ++c)
      scores[c] = std::fabs(weight.row(r)[c]) * (norms[c] + alpha * gradients.row(r)[c]);
  };
  return {keep_highest_of_rows(weight.rows, weight.cols, problem.pattern, problem.sparsity, score_row), false, {}};
}

void prune_wanda_plus(const LayerProblem& problem, PrunedLayer& pruned) {
  Region region(problem, pruned);
  tensor::Tensor targets = tensor::matrix(problem.inputs.rows, problem.inputs.cols);
  const int64_t rounds = problem.config.regional_rounds;
  for (const Sequence& sequence : region.sequences())
    if (rounds > 0) kernels::copy_rows(region.forward(sequence), targets.mat().row_range(sequence.begin, sequence.end));
  const LayerTensors gradients = region.mean_gradients();
  LayerTensors squares = zeros_of(problem.block, problem.layer);
  for (int64_t round = 0; round < rounds; ++round) {
    prune_all(problem, gradients, pruned);
    descend(region, sample(region.sequences(), problem, round), targets.mat(), problem.config.regional_rate, squares,
            pruned);
  }
  prune_all(problem, gradients, pruned);
}

}  // namespace brick::prune
