#include "brick/prune/gradients.h"

#include <cmath>
#include <numeric>

#include "brick/base/error.h"
#include "brick/base/parallel.h"
#include "brick/kernels/rows.h"
#include "brick/kernels/vector_ops.h"
#include "brick/model/loss.h"
#include "brick/prune/dense_walk.h"

namespace brick::prune {
namespace {

using tensor::MatView;
using tensor::Tensor;

constexpr int64_t kRowGrain = 16;

std::vector<model::ScoredToken> scored_in(const Calibration& calibration, const Calibration::Piece& piece) {
  const std::vector<uint8_t> all(static_cast<size_t>(piece.end - piece.begin), 1);
  return model::scored_tokens(calibration.ids(piece), all, piece.offsets);
}

// sum += gradient; squares += (gradient / share)^2 / N, share being the sequence's part of all tokens.
void accumulate(tensor::ConstMatView gradient, MatView sum, MatView squares, double share, double sequences) {
  const auto whole = static_cast<float>(1 / share), part = static_cast<float>(1 / sequences);
  parallel_ranges(gradient.rows, kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      kernels::axpy(1.0f, gradient.row(r), sum.row(r), gradient.cols);
      for (int64_t c = 0; squares.data != nullptr && c < gradient.cols; ++c) {
        const float own = gradient(r, c) * whole;
        squares(r, c) += own * own * part;
      }
    }
  });
}

}  // namespace

void for_each_gradient(
    const model::Model& model, const Calibration& calibration, bool squares, kernels::Context& context,
    const std::function<void(int64_t layer, const DenseLayer& weights, const LayerGradients& gradients)>& visit) {
  const auto layers = static_cast<int64_t>(model.layers.size());
  std::vector<Tensor> inputs;  // of each layer
  Tensor stream = tensor::matrix(calibration.tokens(), model.config.hidden);
  {
    DenseWalk walk(model, calibration, context);
    for (int64_t layer = 0; layer < layers; ++layer) {
      inputs.push_back(tensor::matrix(calibration.tokens(), model.config.hidden));
      kernels::copy_rows(walk.stream(), inputs.back().mat());
      walk.step();
    }
    kernels::copy_rows(walk.stream(), stream.mat());
  }

  // Squares ask for each sequence's own gradient.
  const std::vector<Calibration::Piece> pieces = squares ? calibration.sequences() : calibration.pieces();
  std::vector<std::vector<model::ScoredToken>> scored;
  size_t tokens = 0, sequences = 0;
  for (const Calibration::Piece& piece : pieces) {
    tokens += scored.emplace_back(scored_in(calibration, piece)).size();
    sequences += scored.back().empty() ? 0 : 1;
  }
  if (tokens == 0) fail(ErrorCode::kInvalidInput, "no calibration window has two tokens, so none is predicted");
  const int64_t longest = calibration.largest_piece();
  Tensor hidden = tensor::matrix(longest, model.config.hidden);
  double loss = 0;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const MatView d_stream = stream.mat().row_range(pieces[i].begin, pieces[i].end);
    const MatView x(hidden.f32(), d_stream.rows, d_stream.cols);
    kernels::copy_rows(d_stream, x);
    std::vector<float> losses(scored[i].size());
    model::token_losses(context, model, x, scored[i], losses, 1.0f / static_cast<float>(tokens), d_stream);
    loss = std::accumulate(losses.begin(), losses.end(), loss);
  }
  if (!std::isfinite(loss))
    fail(ErrorCode::kNumeric, "the loss on the calibration is not finite: the model's weights are damaged or overflow");

  model::Model dense = model;
  model::Transformer transformer(dense, context, longest, true, model::Activations::kOneLayer);
  for (int64_t layer = layers - 1; layer >= 0; --layer) {
    DenseLayer& weights = dense.layers[static_cast<size_t>(layer)].projections;
    weights = decode_layer(model, layer);
    LayerGradients gradients{zeros_of(model, layer), {}};
    if (squares) gradients.squares = zeros_of(model, layer);
    LayerTensors piece_gradients = zeros_of(model, layer);
    const model::WeightGradients views = views_of(piece_gradients);
    for (size_t i = 0; i < pieces.size(); ++i) {
      if (scored[i].empty()) continue;
      const Calibration::Piece& piece = pieces[i];
      const MatView x(hidden.f32(), piece.end - piece.begin, model.config.hidden);
      kernels::copy_rows(inputs.back().mat().row_range(piece.begin, piece.end), x);
      transformer.layer_forward(layer, piece.offsets, x);
      transformer.layer_backward(layer, stream.mat().row_range(piece.begin, piece.end), layer > 0, views);
      const double share = static_cast<double>(scored[i].size()) / static_cast<double>(tokens);
      for (size_t p = 0; p < views.size(); ++p)
        accumulate(views[p], gradients.loss[p].mat(), squares ? gradients.squares[p].mat() : MatView(), share,
                   static_cast<double>(sequences));
    }
    inputs.pop_back();
    visit(layer, weights, gradients);
    weights = model.layers[static_cast<size_t>(layer)].projections;
  }
}

}  // namespace brick::prune
