#include "brick/model/pad.h"

#include <algorithm>

#include "brick/base/parallel.h"
#include "brick/kernels/linear.h"
#include "brick/model/weight_shape.h"

namespace brick::model {
namespace {

constexpr int64_t kRowGrain = 16;

int64_t queries_of_one(const LayerShape& shape) { return shape.heads / shape.kv_heads; }

// Where row or column i of the layer's heads or neurons goes.
int64_t place(int64_t i, Proj proj, const LayerShape& from, const LayerShape& to) {
  if (proj != Proj::kQ && proj != Proj::kO) return i;
  const int64_t group = queries_of_one(from) * from.head_dim;
  return i / group * queries_of_one(to) * to.head_dim + i % group;
}

}  // namespace

LayerShape widest_shape(const Model& model) {
  LayerShape widest = model.layers.front().shape;
  int64_t queries = 0;
  for (const Layer& layer : model.layers) {
    widest.kv_heads = std::max(widest.kv_heads, layer.shape.kv_heads);
    widest.ffn = std::max(widest.ffn, layer.shape.ffn);
    queries = std::max(queries, queries_of_one(layer.shape));
  }
  widest.heads = queries * widest.kv_heads;
  return widest;
}

tensor::Matrix padded(const Layer& layer, Proj proj, const LayerShape& to) {
  const tensor::Matrix& weight = layer[proj];
  const bool by_column = writes_stream(proj);
  const auto [rows, cols] = weight_shape(to, by_column ? weight.rows() : weight.cols(), proj);
  if (rows == weight.rows() && cols == weight.cols()) return weight;
  tensor::Tensor out = tensor::matrix(rows, cols);
  const tensor::MatView target = out.mat();
  parallel_ranges(weight.rows(), kRowGrain, [&](int64_t begin, int64_t end) {
    std::vector<float> row(static_cast<size_t>(weight.cols()));
    for (int64_t r = begin; r < end; ++r) {
      kernels::expand_row(weight, r, row.data());
      float* filled = target.row(by_column ? r : place(r, proj, layer.shape, to));
      for (int64_t c = 0; c < weight.cols(); ++c)
        filled[by_column ? place(c, proj, layer.shape, to) : c] = row[static_cast<size_t>(c)];
    }
  });
  return tensor::Matrix::dense(std::move(out));
}

}  // namespace brick::model
