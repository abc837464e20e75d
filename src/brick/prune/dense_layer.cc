#include "brick/prune/dense_layer.h"

#include "brick/base/error.h"
#include "brick/base/parallel.h"
#include "brick/kernels/linear.h"
#include "brick/kernels/vector_ops.h"
#include "brick/model/weight_shape.h"

namespace brick::prune {
namespace {

constexpr int64_t kRowGrain = 16;

}  // namespace

using tensor::ConstMatView;
using tensor::MatView;

tensor::Matrix decode_matrix(const tensor::Matrix& weight) {
  tensor::Tensor dense = tensor::matrix(weight.rows(), weight.cols());
  kernels::expand_rows(weight, 0, weight.rows(), dense.f32());
  return tensor::Matrix::dense(std::move(dense));
}

DenseLayer decode_layer(const model::Model& model, int64_t layer) {
  DenseLayer weights;
  for (const model::Proj proj : model::kProjs) {
    tensor::Matrix& weight = weights[static_cast<size_t>(proj)];
    weight = decode_matrix(model.layers[static_cast<size_t>(layer)][proj]);
    if (!kernels::all_finite(dense_rows(weight).data, weight.rows() * weight.cols()))
      fail(ErrorCode::kNumeric, "{} has NaN or infinite values: the model's file is damaged or its training diverged",
           model::weight_name(layer, proj));
  }
  model.drop_pages();
  return weights;
}

LayerTensors zeros_of(const model::Model& model, int64_t layer) {
  LayerTensors zeros;
  for (const model::Proj proj : model::kProjs) {
    const auto [rows, cols] =
        model::weight_shape(model.layers[static_cast<size_t>(layer)].shape, model.config.hidden, proj);
    zeros[static_cast<size_t>(proj)] = tensor::matrix(rows, cols);
  }
  return zeros;
}

model::WeightGradients views_of(LayerTensors& tensors) {
  model::WeightGradients views;
  for (size_t p = 0; p < views.size(); ++p) views[p] = tensors[p].mat();
  return views;
}

ConstMatView dense_rows(const tensor::Matrix& weight) {
  return {reinterpret_cast<const float*>(weight.dense_view().data), weight.rows(), weight.cols()};
}

tensor::Matrix looking_at(const tensor::Tensor& weight) { return tensor::Matrix::dense(weight.view(), nullptr); }

tensor::Matrix without_rows(int64_t cols) { return tensor::Matrix::dense(tensor::matrix(0, cols)); }

double squared_norm(ConstMatView x) {
  double sum = 0;
  for (int64_t r = 0; r < x.rows; ++r) sum += static_cast<double>(kernels::sum_squares(x.row(r), x.cols));
  return sum;
}

void clear_dropped(tensor::MaskView mask, int64_t r, float* row) {
  const uint64_t* words = mask.row(r);
  for (int64_t c = 0; c < mask.cols; ++c) row[c] = (words[c / 64] >> (c % 64) & 1u) != 0 ? row[c] : 0.0f;
}

void clear_dropped(tensor::MaskView mask, MatView weight) {
  parallel_ranges(weight.rows, kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) clear_dropped(mask, r, weight.row(r));
  });
}

}  // namespace brick::prune
