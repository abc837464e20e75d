// A small random model in memory, its blocks and its tokenizer, for the tests of model/ and of everything above it.
#pragma once

#include <cmath>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/temp_folder.h"
#include "brick/base/rng.h"
#include "brick/model/adapter.h"
#include "brick/model/model.h"
#include "brick/tensor/pack.h"
#include "brick/text/tokenizer_spec.h"

namespace brick::model {

struct TinyOptions {
  int64_t layers = 2, hidden = 32, heads = 4, kv_heads = 2, head_dim = 8, ffn = 64, vocab = 96, context = 64;
  bool tied = true;
  tensor::DType dtype = tensor::DType::kF32;            // of the layers' linear weights
  tensor::DType embedding_dtype = tensor::DType::kF32;  // of embedding and head
  std::string rope_scaling{};
  bool tokenizer = false;
  uint64_t seed = 0;
};

// Entries are normal with standard deviation `deviation`, encoded as `dtype`.
inline tensor::Tensor random_tensor(int64_t rows, int64_t cols, double deviation, tensor::DType dtype, Rng& rng) {
  tensor::Tensor dense = tensor::matrix(rows, cols);
  for (int64_t i = 0; i < rows * cols; ++i) dense.f32()[i] = static_cast<float>(deviation * rng.normal());
  return tensor::convert(dense.view(), dtype);
}

// Byte-level, `vocab` tokens: three ChatML control tokens, newline, space and printable ASCII as far as they
// go.
inline text::TokenizerSpec tiny_tokenizer(int64_t vocab) {
  text::TokenizerSpec spec;
  spec.kind = text::TokenizerKind::kByteLevelBpe;
  spec.tokens = {"<|endoftext|>", "<|im_start|>", "<|im_end|>", "\xC4\x8A", "\xC4\xA0"};
  spec.types = {text::TokenType::kControl, text::TokenType::kControl, text::TokenType::kControl,
                text::TokenType::kNormal, text::TokenType::kNormal};
  for (char c = 'a'; c <= 'z'; ++c) spec.tokens.emplace_back(1, c);
  for (int c = 33; c < 127; ++c)
    if (c < 'a' || c > 'z') spec.tokens.emplace_back(1, static_cast<char>(c));
  while (static_cast<int64_t>(spec.tokens.size()) < vocab)
    spec.tokens.push_back("extra" + std::to_string(spec.tokens.size()));
  spec.tokens.resize(static_cast<size_t>(vocab));
  spec.types.resize(static_cast<size_t>(vocab), text::TokenType::kNormal);
  spec.bos = 1;
  spec.eos = 2;
  spec.unk = 0;
  spec.pad = 2;
  spec.chat_template =
      "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
      "'<|im_end|>' + "
      "'\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
  return spec;
}

inline Model tiny_model(const TinyOptions& options = {}) {
  Rng rng(options.seed, stream_id({0x71}));
  Model model;
  ModelConfig& config = model.config;
  config.layers = options.layers;
  config.hidden = options.hidden;
  config.heads = options.heads;
  config.kv_heads = options.kv_heads;
  config.head_dim = options.head_dim;
  config.ffn = options.ffn;
  config.vocab = options.vocab;
  config.context = options.context;
  config.rope_scaling = options.rope_scaling;
  config.inverse_frequency = rope_inverse_frequency(config.rope_theta, config.head_dim, config.rope_scaling);
  config.tied_head = options.tied;
  config.bos = 1;
  config.eos = 2;

  const auto linear = [&](int64_t rows, int64_t cols) {
    return tensor::Matrix::dense(
        random_tensor(rows, cols, 1.0 / std::sqrt(static_cast<double>(cols)), options.dtype, rng));
  };
  const auto norm = [&] {
    std::vector<float> weights(static_cast<size_t>(options.hidden));
    for (float& w : weights) w = 1.0f + 0.1f * static_cast<float>(rng.normal());
    return weights;
  };
  const auto embedding = [&] {
    return tensor::Matrix::dense(random_tensor(options.vocab, options.hidden, 0.5, options.embedding_dtype, rng));
  };
  model.embedding = embedding();
  if (!options.tied) model.own_head = embedding();
  const int64_t d = options.hidden, q = options.heads * options.head_dim, kv = options.kv_heads * options.head_dim;
  for (int64_t i = 0; i < options.layers; ++i) {
    Layer layer;
    layer.shape = {options.heads, options.kv_heads, options.head_dim, options.ffn};
    layer.attention_norm = norm();
    layer.ffn_norm = norm();
    layer[Proj::kQ] = linear(q, d);
    layer[Proj::kK] = linear(kv, d);
    layer[Proj::kV] = linear(kv, d);
    layer[Proj::kO] = linear(d, q);
    layer[Proj::kGate] = linear(options.ffn, d);
    layer[Proj::kUp] = linear(options.ffn, d);
    layer[Proj::kDown] = linear(d, options.ffn);
    model.layers.push_back(std::move(layer));
  }
  model.final_norm = norm();
  if (options.tokenizer) model.tokenizer = tiny_tokenizer(options.vocab);
  return model;
}

// Keeps each weight with probability 1 - sparsity.
inline tensor::Mask random_mask(int64_t rows, int64_t cols, double sparsity, Rng& rng) {
  tensor::Mask mask(rows, cols);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) mask.set(r, c, rng.uniform() >= sparsity);
  return mask;
}

// The model with random masks on all linear weights of its layers. dtype: of the values (kValues: f32, f16,
// bf16; kQ4: q4_1; kParent: the weights' own block format).
inline Model tiny_block(const Model& parent, double sparsity = 0.5,
                        tensor::SparseCoding coding = tensor::SparseCoding::kValues,
                        tensor::DType dtype = tensor::DType::kF32, uint64_t seed = 0) {
  Rng rng(seed, stream_id({0x72}));
  Model block = parent;
  for (Layer& layer : block.layers) {
    for (tensor::Matrix& weight : layer.projections) {
      const tensor::Tensor dense = weight.to_f32();
      const tensor::Mask mask = random_mask(weight.rows(), weight.cols(), sparsity, rng);
      const tensor::TensorView encoded = weight.tensor_view();
      weight = tensor::Matrix::sparse(tensor::SparseMatrix::encode(
          dense.mat(), mask.view(), coding, dtype, coding == tensor::SparseCoding::kParent ? &encoded : nullptr));
    }
  }
  block.block.method = "random";
  block.block.pattern = "unstructured";
  block.block.sparsity = sparsity;
  block.block.values = dtype == tensor::DType::kF32 ? "f32" : dtype == tensor::DType::kBF16 ? "bf16" : "keep";
  block.block.parent = fingerprint(parent);
  block.block.mask_hash = mask_hash(block);
  block.block.provenance = "{}";
  return block;
}

// Fills both factors, so that the branch is not zero.
inline void randomise(Adapter& adapter, uint64_t seed, double deviation = 0.1) {
  Rng rng(seed, stream_id({0x73}));
  for_each_pair(adapter, [&](int64_t, Proj, LoraPair& pair) {
    for (tensor::Tensor* factor : {&pair.a, &pair.b})
      for (int64_t i = 0; i < factor->size(); ++i) factor->f32()[i] = static_cast<float>(deviation * rng.normal());
  });
}

}  // namespace brick::model
