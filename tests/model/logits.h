// What a small model says of eight tokens.
#pragma once

#include <gtest/gtest.h>

#include <vector>

#include "brick/model/loss.h"
#include "brick/model/transformer.h"

namespace brick::model {

inline const std::vector<int32_t> kIds{1, 17, 40, 5, 9, 33, 2, 61};

inline tensor::Tensor logits_of(const Model& model, const AdapterUse& use = {}) {
  kernels::Context context;
  Transformer transformer(model, context, 8);
  const std::vector<int64_t> offsets{0, 8};
  tensor::Tensor out = tensor::matrix(8, model.config.vocab);
  logits(context, model, transformer.forward({kIds, offsets}, use), out.mat());
  return out;
}

inline void expect_near(const tensor::Tensor& a, const tensor::Tensor& b, float tolerance) {
  ASSERT_EQ(a.size(), b.size());
  for (int64_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a.f32()[i], b.f32()[i], tolerance) << i;
}

}  // namespace brick::model
