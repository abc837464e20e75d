#include "brick/prune/dense_walk.h"

#include "brick/kernels/rows.h"

namespace brick::prune {

DenseWalk::DenseWalk(const model::Model& model, const Calibration& calibration, kernels::Context& context)
    : model_(model),
      calibration_(calibration),
      dense_(model),
      transformer_(dense_, context, calibration.largest_piece()),
      x_(tensor::matrix(calibration.tokens(), model.config.hidden)) {
  calibration.embed(transformer_, x_.mat());
}

const DenseLayer& DenseWalk::step(const model::InputHook& inputs, const StreamHook& stream) {
  const int64_t layer = next_++;
  if (layer > 0)
    dense_.layers[static_cast<size_t>(layer - 1)].projections =
        model_.layers[static_cast<size_t>(layer - 1)].projections;
  DenseLayer& weights = dense_.layers[static_cast<size_t>(layer)].projections;
  weights = decode_layer(model_, layer);
  if (stream && before_.empty()) before_ = tensor::matrix(calibration_.largest_piece(), x_.mat().cols);
  for (const Calibration::Piece& piece : calibration_.pieces()) {
    const tensor::MatView x = x_.mat().row_range(piece.begin, piece.end);
    const tensor::MatView before(before_.empty() ? nullptr : before_.f32(), x.rows, x.cols);
    if (stream) kernels::copy_rows(x, before);
    transformer_.layer_forward(layer, piece.offsets, x, inputs);
    if (stream) stream(before, x);
  }
  return weights;
}

}  // namespace brick::prune
