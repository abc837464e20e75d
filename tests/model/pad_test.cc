// Layers filled up with zeros: where their heads and neurons go.
#include "brick/model/pad.h"

#include <gtest/gtest.h>

#include <numeric>

#include "brick/model/weight_shape.h"
#include "model/cut_model.h"

namespace brick::model {
namespace {

using tensor::Matrix;

std::vector<float> values(const Matrix& weight) {
  const tensor::Tensor dense = weight.to_f32();
  return {dense.f32(), dense.f32() + dense.size()};
}

TEST(Pad, WidestShapeIsTheSmallestThatAllFitInto) {
  EXPECT_EQ(widest_shape(tiny_model()), (LayerShape{4, 2, 8, 64}));
  // Two heads of one key/value head in one layer, one of two in the other.
  EXPECT_EQ(widest_shape(tiny_cut_block()), (LayerShape{4, 2, 8, 64}));
}

TEST(Pad, QueryHeadsStayWithTheirKeyValueHead) {
  Layer layer;
  layer.shape = {4, 2, 2, 3};
  // In a model of width 1 each weight is a line along its heads or neurons.
  for (Proj proj : kProjs) {
    const auto [rows, cols] = weight_shape(layer.shape, 1, proj);
    tensor::Tensor numbers = tensor::matrix(rows, cols);
    std::iota(numbers.f32(), numbers.f32() + numbers.size(), 1.0f);
    layer[proj] = Matrix::dense(std::move(numbers));
  }
  const std::vector<float> queries{1, 2, 3, 4, 0, 0, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0};
  const std::vector<float> keys{1, 2, 3, 4, 0, 0}, neurons{1, 2, 3, 0, 0};
  const std::array<std::vector<float>, kProjCount> expected{queries, keys, keys, queries, neurons, neurons, neurons};
  for (Proj proj : kProjs) {
    const Matrix grown = padded(layer, proj, {9, 3, 2, 5});
    EXPECT_EQ(writes_stream(proj) ? grown.rows() : grown.cols(), 1) << name(proj);
    EXPECT_EQ(values(grown), expected[static_cast<size_t>(proj)]) << name(proj);
    EXPECT_EQ(padded(layer, proj, layer.shape).dense_view().data, layer[proj].dense_view().data) << name(proj);
  }
}

}  // namespace
}  // namespace brick::model
