// Types as src/llama-quant.cpp of llama-cpp-python 0.3.36 chooses them; experiments/quantised_export.py compares whole
// files.
#include "brick/model/gguf_mixture.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "model/expect_error.h"
#include "model/tiny_model.h"

namespace brick::model {
namespace {

using tensor::DType;

DType type(const GgufMixture& mixture, size_t layer, Proj proj) {
  return mixture.layers[layer][static_cast<size_t>(proj)];
}

TEST(GgufMixture, TheHeadIsFiner) {
  const Model tied = tiny_model({.hidden = 256}), untied = tiny_model({.hidden = 256, .tied = false});
  for (DType dtype : {DType::kQ4_0, DType::kQ4_1, DType::kQ4_K, DType::kQ6_K}) {
    EXPECT_EQ(gguf_mixture(tied, dtype).embedding, DType::kQ6_K);
    EXPECT_EQ(gguf_mixture(untied, dtype).embedding, dtype);
    EXPECT_EQ(gguf_mixture(untied, dtype).head, DType::kQ6_K);
  }
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0}) {
    const GgufMixture mixture = gguf_mixture(tied, dtype);
    EXPECT_EQ(mixture.embedding, dtype);
    EXPECT_EQ(type(mixture, 0, Proj::kQ), dtype);
  }
}

// SmolLM2-135M's rows of 576 are no multiple of 256, its down projection's 1536 are.
TEST(GgufMixture, RowsThatAreNoSuperBlocksFallBack) {
  const Model model = tiny_model({.hidden = 64, .ffn = 256});
  const GgufMixture q4_k = gguf_mixture(model, DType::kQ4_K), q6_k = gguf_mixture(model, DType::kQ6_K);
  EXPECT_EQ(q4_k.embedding, DType::kQ8_0);
  EXPECT_EQ(type(q4_k, 0, Proj::kQ), DType::kQ5_0);
  EXPECT_EQ(type(q4_k, 0, Proj::kDown), DType::kQ4_K);
  EXPECT_EQ(type(q6_k, 0, Proj::kQ), DType::kQ8_0);
  EXPECT_EQ(type(q6_k, 0, Proj::kDown), DType::kQ6_K);
  EXPECT_EQ(gguf_mixture(model, DType::kQ4_0).embedding, DType::kQ8_0);  // Q6_K's own
  const Model odd = tiny_model({.hidden = 24, .head_dim = 6, .ffn = 40});
  EXPECT_EQ(type(gguf_mixture(odd, DType::kQ4_K), 0, Proj::kQ), DType::kF16);
  EXPECT_EQ(gguf_mixture(odd, DType::kQ4_0).embedding, DType::kF16);
}

TEST(GgufMixture, SomeLayersOfQ4kAreFiner) {
  const GgufMixture mixture = gguf_mixture(tiny_model({.layers = 16, .hidden = 256, .ffn = 256}), DType::kQ4_K);
  const std::vector<size_t> finer{0, 1, 4, 7, 10, 13, 14, 15};
  for (size_t layer = 0; layer < 16; ++layer) {
    const bool more = std::find(finer.begin(), finer.end(), layer) != finer.end();
    for (Proj proj : kProjs) {
      if (proj == Proj::kO) continue;  // its rows are 32 wide here
      const bool may = proj == Proj::kV || proj == Proj::kDown;
      EXPECT_EQ(type(mixture, layer, proj), more && may ? DType::kQ6_K : DType::kQ4_K) << layer << name(proj);
    }
  }
  EXPECT_EQ(mixture.file_type, 15u);
}

TEST(GgufMixture, ValuesOfSeventyBillion) {
  const GgufMixture mixture = gguf_mixture(tiny_model({.layers = 80, .hidden = 256, .ffn = 32}), DType::kQ4_K);
  EXPECT_EQ(type(mixture, 11, Proj::kV), DType::kQ5_K);
  EXPECT_EQ(type(mixture, 9, Proj::kV), DType::kQ6_K);
  EXPECT_EQ(type(mixture, 11, Proj::kK), DType::kQ4_K);
}

TEST(GgufMixture, OtherTypesAreRefused) {
  expect_error(ErrorCode::kInvalidInput, "q5_0", [] { gguf_mixture(tiny_model(), DType::kQ5_0); });
}

}  // namespace
}  // namespace brick::model
