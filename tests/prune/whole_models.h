// Small models pruned as a whole, for the tests of prune/.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "brick/base/error.h"
#include "brick/model/transformer.h"
#include "brick/prune/prune.h"
#include "model/tiny_model.h"

namespace brick::prune {

// `count` windows of random ids, of unequal lengths.
struct Text {
  explicit Text(int count = 12, int64_t length = 16, uint64_t seed = 5) {
    Rng rng(seed);
    for (int i = 0; i < count; ++i) {
      std::vector<int32_t>& ids = stored.emplace_back();
      for (int64_t t = 0; t < length + i % 3; ++t) ids.push_back(static_cast<int32_t>(rng.below(96)));
    }
    windows.assign(stored.begin(), stored.end());
  }
  std::vector<std::vector<int32_t>> stored;
  std::vector<std::span<const int32_t>> windows;
};

inline PruneConfig config_of(const std::string& method, double sparsity = 0.5, const std::string& values = "f32") {
  PruneConfig config;
  config.method = method;
  config.sparsity = sparsity;
  config.values = values;
  config.block_columns = 16;
  config.piece_tokens = 40;
  config.tool_version = "9.9";
  return config;
}

inline model::Model run(const model::Model& parent, const Text& text, const PruneConfig& config,
                        PruneReport* report = nullptr, ProgressSink& sink = silent_sink()) {
  kernels::Context context;
  return prune(parent, text.windows, config, context, sink, report);
}

inline std::string failure(const model::Model& parent, const Text& text, const PruneConfig& config, ErrorCode code) {
  try {
    run(parent, text, config);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

inline void expect_same_bits(const model::Model& a, const model::Model& b) {
  EXPECT_EQ(a.block.mask_hash, b.block.mask_hash);
  EXPECT_EQ(a.block.provenance, b.block.provenance);
  for (size_t layer = 0; layer < a.layers.size(); ++layer) {
    for (const model::Proj proj : model::kProjs) {
      const tensor::Matrix &x = a.layers[layer][proj], &y = b.layers[layer][proj];
      ASSERT_EQ(x.is_sparse(), y.is_sparse());
      const tensor::Tensor u = x.to_f32(), v = y.to_f32();
      EXPECT_EQ(std::memcmp(u.f32(), v.f32(), u.bytes().size()), 0) << layer << " " << name(proj);
    }
  }
}

inline std::vector<float> outputs(const model::Model& model) {
  kernels::Context context;
  model::Transformer transformer(model, context, 10);
  const std::vector<int32_t> ids{1, 5, 9, 3, 7, 50, 60, 70, 80, 90};
  const std::vector<int64_t> offsets{0, 10};
  const tensor::ConstMatView x = transformer.forward({ids, offsets});
  return {x.data, x.data + x.rows * x.cols};
}

}  // namespace brick::prune
