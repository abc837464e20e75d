#include "brick/prune/reconstruct.h"

#include <algorithm>
#include <cmath>

#include "brick/base/parallel.h"
#include "brick/kernels/gemm.h"
#include "brick/kernels/norm.h"
#include "brick/kernels/rows.h"
#include "brick/kernels/vector_ops.h"
#include "brick/prune/refit.h"
#include "brick/prune/statistics.h"

namespace brick::prune {
namespace {

using kernels::Trans;
using model::Proj;
using tensor::ConstMatView;
using tensor::MatView;
using tensor::Tensor;

constexpr float kLeastNorm = 1e-12f;  // of a token: no division by 0
constexpr int64_t kRowGrain = 16;
constexpr Proj kAttention[] = {Proj::kQ, Proj::kK, Proj::kV, Proj::kO};
constexpr Proj kFeedForward[] = {Proj::kGate, Proj::kUp, Proj::kDown};

struct Ridge {
  Tensor hessian;  // X^T X + weight I, float32
  float weight = 0;
};

Ridge with_ridge(const InputStatistics& inputs, double damping) {
  const int64_t n = inputs.width();
  const double weight = inputs.ridge(damping);
  Ridge out{tensor::matrix(n, n), static_cast<float>(weight)};
  const MatView h = out.hessian.mat();
  for (int64_t r = 0; r < n; ++r)
    for (int64_t c = r; c < n; ++c)
      h(r, c) = h(c, r) = static_cast<float>(inputs.gram[static_cast<size_t>(r * n + c)] + (r == c ? weight : 0.0));
  return out;
}

bool has(std::span<const Proj> projs, Proj proj) { return std::find(projs.begin(), projs.end(), proj) != projs.end(); }

// These weights, which are all of one half's or its first ones, and that half's bias; the rest falls away.
model::Layer part_of(const model::Layer& whole, std::span<const Proj> projs) {
  model::Layer part = whole;
  for (const Proj proj : model::kProjs)
    if (!has(projs, proj)) part[proj] = without_rows(whole[proj].cols());
  (has(projs, Proj::kQ) ? part.down_bias : part.o_bias).clear();
  return part;
}

void fit(const Ridge& ridge, MatView cross, ConstMatView dense, const tensor::Mask& mask, int64_t iterations,
         MatView weight) {
  for (int64_t r = 0; r < cross.rows; ++r) kernels::axpy(ridge.weight, dense.row(r), cross.row(r), cross.cols);
  refit({ridge.hessian.mat(), cross, mask.view(), iterations}, weight);
}

}  // namespace

Reconstructor::Reconstructor(model::Model& block, model::Transformer& transformer, const Calibration& calibration,
                             const ReconstructOptions& options)
    : block_(block), transformer_(transformer), calibration_(calibration), options_(options) {
  for (Tensor* memory : {&dense_in_, &dense_middle_, &dense_out_, &middle_})
    *memory = tensor::matrix(calibration.tokens(), block.config.hidden);
  calibration.embed(transformer, dense_out_.mat());
  if (options.descent.epochs > 0) descent_.emplace(block, calibration, transformer.context(), options.descent);
}

void Reconstructor::forward(int64_t layer, ConstMatView inputs, MatView outputs) {
  for (const Calibration::Piece& piece : calibration_.pieces()) {
    const MatView x = outputs.row_range(piece.begin, piece.end);
    kernels::copy_rows(inputs.row_range(piece.begin, piece.end), x);
    transformer_.layer_forward(layer, piece.offsets, x);
  }
}

void Reconstructor::see_dense(int64_t layer) {
  std::swap(dense_in_, dense_out_);
  model::Layer& held = block_.layers[static_cast<size_t>(layer)];
  const model::Layer whole = held;
  held = part_of(whole, kAttention);
  forward(layer, dense_in_.mat(), dense_middle_.mat());
  held = part_of(whole, kFeedForward);
  forward(layer, dense_middle_.mat(), dense_out_.mat());
  held = whole;
}

void Reconstructor::fit_to_dense_inputs(const Inputs& inputs, std::span<const Proj> projs, const DenseLayer& dense,
                                        PrunedLayer& pruned) const {
  const int64_t width = inputs.pruned.cols, longest = calibration_.largest_piece();
  const float eps = block_.config.norm_eps;
  Tensor pruned_memory = tensor::matrix(longest, width), dense_memory = tensor::matrix(longest, width);
  Tensor products = tensor::matrix(width, width);  // X_dense^T X
  std::vector<float> inverse_rms(static_cast<size_t>(longest));
  StatisticsBuilder builder(Needs::kHessian, width, calibration_.tokens());
  for (const Calibration::Piece& piece : calibration_.pieces()) {
    const int64_t count = piece.end - piece.begin;
    const MatView x(pruned_memory.f32(), count, width), wanted(dense_memory.f32(), count, width);
    kernels::rms_norm(inputs.pruned.row_range(piece.begin, piece.end), inputs.norm.data(), eps, x, inverse_rms.data());
    kernels::rms_norm(inputs.dense.row_range(piece.begin, piece.end), inputs.norm.data(), eps, wanted,
                      inverse_rms.data());
    builder.add(x);
    kernels::gemm(Trans::kYes, Trans::kNo, 1.0f, wanted, x, 1.0f, products.mat());
  }
  const Ridge ridge = with_ridge(builder.take(), options_.damping);
  for (const Proj proj : projs) {
    const auto p = static_cast<size_t>(proj);
    Tensor cross = tensor::matrix(dense[p].rows(), width);
    kernels::gemm(Trans::kNo, Trans::kNo, 1.0f, dense_rows(dense[p]), products.mat(), 0.0f, cross.mat());
    fit(ridge, cross.mat(), dense_rows(dense[p]), pruned.outcomes[p].mask, options_.iterations,
        pruned.weights[p].mat());
  }
}

void Reconstructor::fit_to_stream(int64_t layer, Proj proj, const DenseLayer& dense, PrunedLayer& pruned,
                                  ConstMatView inputs, ConstMatView target) {
  const auto p = static_cast<size_t>(proj);
  const int64_t width = dense[p].cols(), longest = calibration_.largest_piece();
  Tensor input_memory = tensor::matrix(longest, width), stream_memory = tensor::matrix(longest, inputs.cols);
  Tensor cross = tensor::matrix(dense[p].rows(), width);
  StatisticsBuilder builder(Needs::kHessian, width, calibration_.tokens());
  for (const Calibration::Piece& piece : calibration_.pieces()) {
    const int64_t count = piece.end - piece.begin;
    const MatView x(stream_memory.f32(), count, inputs.cols), seen(input_memory.f32(), count, width);
    kernels::copy_rows(inputs.row_range(piece.begin, piece.end), x);
    transformer_.layer_forward(layer, piece.offsets, x, [&](int64_t, Proj at, ConstMatView in) {
      if (at == proj) kernels::copy_rows(in, seen);
    });
    parallel_ranges(count, kRowGrain, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const float* wanted = target.row(piece.begin + t);
        const float size = std::sqrt(std::max(kernels::sum_squares(wanted, x.cols), kLeastNorm));
        kernels::scale(-1.0f, x.row(t), x.cols);
        kernels::axpy(1.0f, wanted, x.row(t), x.cols);
        kernels::scale(1.0f / size, x.row(t), x.cols);
        kernels::scale(1.0f / size, seen.row(t), width);
      }
    });
    builder.add(seen);
    kernels::gemm(Trans::kYes, Trans::kNo, 1.0f, x, seen, 1.0f, cross.mat());
  }
  fit(with_ridge(builder.take(), options_.damping), cross.mat(), dense_rows(dense[p]), pruned.outcomes[p].mask,
      options_.iterations, pruned.weights[p].mat());
}

void Reconstructor::run(int64_t layer, const DenseLayer& dense, PrunedLayer& pruned, ConstMatView inputs) {
  for (const Proj proj : model::kProjs)
    clear_dropped(pruned.outcomes[static_cast<size_t>(proj)].mask.view(),
                  pruned.weights[static_cast<size_t>(proj)].mat());
  model::Layer& held = block_.layers[static_cast<size_t>(layer)];
  for (const Proj proj : model::kProjs) held[proj] = looking_at(pruned.weights[static_cast<size_t>(proj)]);
  const model::Layer whole = held;
  if (options_.iterations > 0) {
    const std::span<const Proj> attention(kAttention), feed_forward(kFeedForward);
    fit_to_dense_inputs({whole.attention_norm, inputs, dense_in_.mat()}, attention.first(3), dense, pruned);
    held = part_of(whole, attention.first(3));
    fit_to_stream(layer, Proj::kO, dense, pruned, inputs, dense_middle_.mat());
    held = part_of(whole, attention);
    forward(layer, inputs, middle_.mat());
    fit_to_dense_inputs({whole.ffn_norm, middle_.mat(), dense_middle_.mat()}, feed_forward.first(2), dense, pruned);
    held = part_of(whole, feed_forward.first(2));
    fit_to_stream(layer, Proj::kDown, dense, pruned, middle_.mat(), dense_out_.mat());
    held = whole;
  }
  if (descent_) descent_->run(layer, pruned, inputs, dense_out_.mat());
}

double Reconstructor::stream_error(ConstMatView x) const {
  const ConstMatView y = dense_out_.mat();
  std::vector<float> difference(static_cast<size_t>(x.cols));
  double sum = 0;
  for (int64_t t = 0; t < x.rows; ++t) {
    const float whole = kernels::sum_squares(y.row(t), y.cols);
    std::copy_n(x.row(t), x.cols, difference.data());
    kernels::axpy(-1.0f, y.row(t), difference.data(), y.cols);
    if (whole > 0) sum += static_cast<double>(kernels::sum_squares(difference.data(), x.cols) / whole);
  }
  return std::sqrt(sum / static_cast<double>(std::max<int64_t>(x.rows, 1)));
}

}  // namespace brick::prune
