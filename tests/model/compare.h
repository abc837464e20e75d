// Comparing models weight by weight.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>

#include "brick/model/block_format.h"
#include "brick/model/model.h"

namespace brick::model {

// The largest |a - b| of two matrices of one shape.
inline float largest_difference(const tensor::Matrix& a, const tensor::Matrix& b) {
  EXPECT_EQ(a.rows(), b.rows());
  EXPECT_EQ(a.cols(), b.cols());
  const tensor::Tensor x = a.to_f32(), y = b.to_f32();
  float largest = 0;
  for (int64_t i = 0; i < x.size(); ++i) largest = std::max(largest, std::fabs(x.f32()[i] - y.f32()[i]));
  return largest;
}

// Every weight and the configuration; weights may differ by `tolerance`.
inline void expect_same_model(const Model& a, const Model& b, float tolerance = 0) {
  EXPECT_EQ(a.config.layers, b.config.layers);
  EXPECT_EQ(a.config.hidden, b.config.hidden);
  EXPECT_EQ(a.config.heads, b.config.heads);
  EXPECT_EQ(a.config.kv_heads, b.config.kv_heads);
  EXPECT_EQ(a.config.head_dim, b.config.head_dim);
  EXPECT_EQ(a.config.ffn, b.config.ffn);
  EXPECT_EQ(a.config.vocab, b.config.vocab);
  EXPECT_EQ(a.config.norm_eps, b.config.norm_eps);
  EXPECT_EQ(a.config.rope_theta, b.config.rope_theta);
  EXPECT_EQ(a.config.context, b.config.context);
  EXPECT_EQ(a.config.tied_head, b.config.tied_head);
  EXPECT_EQ(a.config.bos, b.config.bos);
  EXPECT_EQ(a.config.eos, b.config.eos);
  ASSERT_EQ(a.config.inverse_frequency.size(), b.config.inverse_frequency.size());
  for (size_t i = 0; i < a.config.inverse_frequency.size(); ++i)
    EXPECT_FLOAT_EQ(a.config.inverse_frequency[i], b.config.inverse_frequency[i]);
  ASSERT_EQ(a.layers.size(), b.layers.size());
  EXPECT_LE(largest_difference(a.embedding, b.embedding), tolerance);
  ASSERT_EQ(a.own_head.has_value(), b.own_head.has_value());
  if (a.own_head) {
    EXPECT_LE(largest_difference(*a.own_head, *b.own_head), tolerance);
  }
  const auto near = [&](const std::vector<float>& x, const std::vector<float>& y) {
    ASSERT_EQ(x.size(), y.size());
    for (size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(x[i], y[i], tolerance);
  };
  near(a.final_norm, b.final_norm);
  for (size_t i = 0; i < a.layers.size(); ++i) {
    near(a.layers[i].attention_norm, b.layers[i].attention_norm);
    near(a.layers[i].ffn_norm, b.layers[i].ffn_norm);
    for (Proj proj : kProjs)
      EXPECT_LE(largest_difference(a.layers[i][proj], b.layers[i][proj]), tolerance) << weight_name(int64_t(i), proj);
  }
}

}  // namespace brick::model
