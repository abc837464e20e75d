// A layer's own backward against the adapter's: with B = 0 the gradient of B is c dW A^T.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "brick/kernels/gemm.h"
#include "brick/model/transformer.h"
#include "tiny_model.h"

namespace brick::model {
namespace {

// The same float32 products in another order.
constexpr float kGradientTolerance = 2e-5f;

struct Case {
  std::vector<int32_t> ids{1, 5, 9, 3, 7, 50, 60, 70, 80, 90, 11};
  std::vector<int64_t> offsets{0, 4, 11};
  tensor::Tensor d_out = tensor::matrix(11, 32);

  Case() {
    Rng rng(4);
    for (int64_t i = 0; i < d_out.size(); ++i) d_out.f32()[i] = static_cast<float>(rng.normal());
  }
};

// Largest difference of c dW A^T and `gradients` over all matrices of a layer, and the largest entry.
std::pair<float, float> compare(const std::array<tensor::Tensor, kProjCount>& weights, const Adapter& adapter,
                                const Adapter& gradients, int64_t layer) {
  float worst = 0, largest = 0;
  for (const Proj proj : kProjs) {
    const tensor::ConstMatView dw = weights[static_cast<size_t>(proj)].mat(), a = adapter.at(layer, proj).a.mat();
    tensor::Tensor product = tensor::matrix(dw.rows, a.rows);
    kernels::gemm(kernels::Trans::kNo, kernels::Trans::kYes, adapter.config.scale(), dw, a, 0.0f, product.mat());
    const tensor::Tensor& want = gradients.at(layer, proj).b;
    for (int64_t i = 0; i < product.size(); ++i) {
      worst = std::max(worst, std::fabs(product.f32()[i] - want.f32()[i]));
      largest = std::max(largest, std::fabs(want.f32()[i]));
    }
  }
  return {worst, largest};
}

TEST(LayerBackward, EqualsTheWholeModelsLayerByLayer) {
  const Model model = tiny_model();
  const Case run;
  kernels::Context context;
  LoraConfig config;
  config.rank = 4;
  config.targets.assign(kProjs.begin(), kProjs.end());
  const Adapter adapter = make_adapter(model, config, 1);
  Adapter gradients = zeros_like(adapter);
  Transformer whole(model, context, 11, true);
  const AdapterUse use{&adapter};
  whole.forward({run.ids, run.offsets}, use);
  tensor::Tensor d_hidden = run.d_out.clone();
  whole.backward({run.ids, run.offsets}, use, d_hidden.mat(), gradients);

  Transformer one(model, context, 11, true, Activations::kOneLayer);
  tensor::Tensor first = tensor::matrix(11, 32), second = tensor::matrix(11, 32);
  one.embed(run.ids, first.mat());
  std::memcpy(second.f32(), first.f32(), first.bytes().size());
  one.layer_forward(0, run.offsets, second.mat());
  tensor::Tensor dx = run.d_out.clone();
  for (const int64_t layer : {int64_t{1}, int64_t{0}}) {
    std::array<tensor::Tensor, kProjCount> weights;
    WeightGradients views;
    for (const Proj proj : kProjs) {
      const tensor::Matrix& weight = model.layers[static_cast<size_t>(layer)][proj];
      weights[static_cast<size_t>(proj)] = tensor::matrix(weight.rows(), weight.cols());
      views[static_cast<size_t>(proj)] = weights[static_cast<size_t>(proj)].mat();
    }
    one.layer_forward(layer, run.offsets, layer == 1 ? second.mat() : first.mat());
    one.layer_backward(layer, dx.mat(), layer > 0, views);
    const auto [worst, largest] = compare(weights, adapter, gradients, layer);
    EXPECT_GT(largest, 0.1f);
    EXPECT_LT(worst, kGradientTolerance * largest) << "layer " << layer;
    // One wrong entry is seen.
    weights[static_cast<size_t>(Proj::kUp)].f32()[5] += 0.01f * largest;
    EXPECT_GT(compare(weights, adapter, gradients, layer).first, kGradientTolerance * largest);
  }
}

}  // namespace
}  // namespace brick::model
