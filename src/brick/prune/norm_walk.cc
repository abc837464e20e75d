#include "brick/prune/norm_walk.h"

#include <algorithm>

#include "brick/kernels/norm.h"
#include "brick/kernels/vector_ops.h"

namespace brick::prune {

using model::Proj;
using tensor::ConstMatView;
using tensor::MatView;

NormWalk::NormWalk(const model::Model& model, const Calibration& calibration, kernels::Context& context)
    : model_(model),
      calibration_(calibration),
      walk_(model, calibration, context),
      z_(tensor::matrix(calibration.largest_piece(), model.config.hidden)) {}

void NormWalk::next_layer(const Hook& hook) {
  const int64_t index = next_++;
  const model::Layer& layer = model_.layers[static_cast<size_t>(index)];
  const auto inverse = [](const std::vector<float>& weights) {
    std::vector<float> out(weights.size());
    std::transform(weights.begin(), weights.end(), out.begin(), [](float g) { return g == 0 ? 0 : 1 / g; });
    return out;
  };
  const std::vector<float> attention = inverse(layer.attention_norm), ffn = inverse(layer.ffn_norm);
  walk_.step([&](int64_t, Proj proj, ConstMatView x) {
    if (proj != Proj::kQ && proj != Proj::kGate) return;
    const bool second = proj == Proj::kGate;
    const MatView z(z_.f32(), x.rows, x.cols);
    for (int64_t t = 0; t < x.rows; ++t)
      kernels::multiply(x.row(t), (second ? ffn : attention).data(), z.row(t), x.cols);
    hook(2 * index + (second ? 1 : 0), z);
  });
}

void NormWalk::last(const Hook& hook) {
  const std::vector<float> ones(static_cast<size_t>(model_.config.hidden), 1.0f);
  std::vector<float> inverse_rms(static_cast<size_t>(calibration_.largest_piece()));
  for (const Calibration::Piece& piece : calibration_.pieces()) {
    const ConstMatView x = walk_.stream().row_range(piece.begin, piece.end);
    const MatView z(z_.f32(), x.rows, x.cols);
    kernels::rms_norm(x, ones.data(), model_.config.norm_eps, z, inverse_rms.data());
    hook(2 * next_, z);
  }
}

}  // namespace brick::prune
