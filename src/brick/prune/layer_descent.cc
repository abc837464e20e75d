#include "brick/prune/layer_descent.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "brick/base/parallel.h"
#include "brick/base/rng.h"
#include "brick/kernels/rows.h"
#include "brick/kernels/vector_ops.h"

namespace brick::prune {
namespace {

using model::Proj;
using tensor::ConstMatView;
using tensor::MatView;

constexpr double kFirstDecay = 0.9, kSecondDecay = 0.99;  // few steps: a shorter memory than Adam's usual 0.999
constexpr double kEpsilon = 1e-12;                        // far below the gradients of a relative error
constexpr float kLeastNorm = 1e-12f;                      // of a token: no division by 0
constexpr int64_t kRowGrain = 8;
constexpr uint64_t kShuffleStream = 0x7265636f6e;

int64_t length(const Calibration::Piece& sequence) { return sequence.end - sequence.begin; }

}  // namespace

LayerDescent::LayerDescent(const model::Model& block, const Calibration& calibration, kernels::Context& context,
                           const DescentOptions& options)
    : options_(options),
      sequences_(calibration.sequences()),
      tokens_(calibration.tokens()),
      transformer_(block, context, std::max(options.batch_tokens, calibration.longest_sequence()), true,
                   model::Activations::kOneLayer) {
  x_ = tensor::matrix(transformer_.max_tokens(), block.config.hidden);
  y_ = tensor::matrix(transformer_.max_tokens(), block.config.hidden);
}

void LayerDescent::run(int64_t layer, PrunedLayer& pruned, ConstMatView inputs, ConstMatView targets) {
  for (LayerTensors* tensors : {&gradients_, &first_, &second_}) *tensors = zeros_of(transformer_.model(), layer);
  steps_ = 0;
  int64_t done = 0;
  for (int64_t epoch = 0; epoch < options_.epochs; ++epoch) {
    std::vector<Sequence> order = sequences_;
    Rng rng(options_.seed, stream_id({kShuffleStream, static_cast<uint64_t>(layer), static_cast<uint64_t>(epoch)}));
    shuffle(std::span(order), rng);
    for (size_t begin = 0, end = 0; begin < order.size(); begin = end) {
      int64_t count = 0;
      while (end < order.size() && (end == begin || count + length(order[end]) <= options_.batch_tokens))
        count += length(order[end++]);
      step(layer, std::span(order).subspan(begin, end - begin), inputs, targets);
      const double left = 1.0 - static_cast<double>(done) / static_cast<double>(options_.epochs * tokens_);
      update(pruned, options_.rate * left);
      done += count;
    }
  }
}

void LayerDescent::step(int64_t layer, std::span<const Sequence> batch, ConstMatView inputs, ConstMatView targets) {
  std::vector<int64_t> offsets{0};
  for (const Sequence& sequence : batch) offsets.push_back(offsets.back() + length(sequence));
  const int64_t count = offsets.back(), width = inputs.cols;
  const MatView x(x_.f32(), count, width), y(y_.f32(), count, width);
  for (size_t s = 0; s < batch.size(); ++s) {
    const int64_t end = batch[s].end;
    kernels::copy_rows(inputs.row_range(batch[s].begin, end), x.row_range(offsets[s], offsets[s + 1]));
    kernels::copy_rows(targets.row_range(batch[s].begin, end), y.row_range(offsets[s], offsets[s + 1]));
  }
  transformer_.layer_forward(layer, offsets, x);
  // dL/df = 2 (f - y) / (||y||^2 count); Adam needs no constant factor.
  parallel_ranges(count, kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float norm = std::max(kernels::sum_squares(y.row(t), width), kLeastNorm);
      kernels::axpy(-1.0f, y.row(t), x.row(t), width);
      kernels::scale(1.0f / (norm * static_cast<float>(count)), x.row(t), width);
    }
  });
  transformer_.layer_backward(layer, x, false, views_of(gradients_));
}

void LayerDescent::update(PrunedLayer& pruned, double rate) {
  ++steps_;
  const double first_left = 1.0 - std::pow(kFirstDecay, static_cast<double>(steps_));
  const double second_left = 1.0 - std::pow(kSecondDecay, static_cast<double>(steps_));
  const auto step = static_cast<float>(rate / first_left), whole = static_cast<float>(1.0 / second_left);
  constexpr auto b1 = static_cast<float>(kFirstDecay), b2 = static_cast<float>(kSecondDecay);
  for (const Proj proj : model::kProjs) {
    const auto p = static_cast<size_t>(proj);
    const tensor::MaskView mask = pruned.outcomes[p].mask.view();
    parallel_ranges(mask.rows, kRowGrain, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        float *w = pruned.weights[p].mat().row(r), *m = first_[p].mat().row(r), *v = second_[p].mat().row(r);
        float* g = gradients_[p].mat().row(r);
        clear_dropped(mask, r, g);  // so that m, v and the weight stay 0 there
        for (int64_t c = 0; c < mask.cols; ++c) {
          m[c] = b1 * m[c] + (1.0f - b1) * g[c];
          v[c] = b2 * v[c] + (1.0f - b2) * g[c] * g[c];
          w[c] -= step * m[c] / (std::sqrt(whole * v[c]) + static_cast<float>(kEpsilon));
        }
      }
    });
  }
}

}  // namespace brick::prune
