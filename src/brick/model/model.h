// A model or block in memory. Rows of Q and K are in Hugging Face's order, whatever file they came from.
#pragma once

#include <array>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "brick/kernels/rope.h"
#include "brick/model/block_spec.h"
#include "brick/model/config.h"
#include "brick/tensor/matrix.h"
#include "brick/text/tokenizer_spec.h"

namespace brick::model {

struct Layer {
  LayerShape shape;
  std::vector<float> attention_norm, ffn_norm;  // [D]
  std::vector<float> o_bias, down_bias;         // [D], added to the outputs of o and down; empty where there is none
  // q [H hd, D], k v [K hd, D], o [D, H hd], gate up [F, D], down [D, F]
  std::array<tensor::Matrix, kProjCount> projections;

  const tensor::Matrix& operator[](Proj proj) const { return projections[static_cast<size_t>(proj)]; }
  tensor::Matrix& operator[](Proj proj) { return projections[static_cast<size_t>(proj)]; }
};

struct Model {
  ModelConfig config;
  tensor::Matrix embedding;                // [V, D]
  std::optional<tensor::Matrix> own_head;  // [V, D]; none where the embedding is the head
  std::vector<Layer> layers;
  std::vector<float> final_norm;                 // [D]
  BlockSpec block;                               // of a dense model: nothing pruned
  std::optional<text::TokenizerSpec> tokenizer;  // filled on request (load.h)
  std::string source;                            // path it was loaded from
  // Tells the system that the weights' pages are not needed for now; they are read from the file again when touched.
  std::function<void()> drop_pages = [] {};

  const tensor::Matrix& head() const { return own_head ? *own_head : embedding; }
  int64_t parameters() const;         // counting zeros of pruned weights
  int64_t nonzeros() const;           // kept ones, by the masks
  int64_t linear_parameters() const;  // of the layers' linear weights alone
  int64_t weight_bytes() const;
};

// SHA-256 over V, D and head size, the last norm and 64 rows of the embedding, rounded to bfloat16: what LoRA and
// pruning, but of the residual stream, leave alone; of a block with some of its parent's channels the parent's. Equal
// for a GGUF, its f32 and bf16 folders, and blocks pruned from or merged into any of them, but for rotated ones; other
// models differ, and so does an export that rounds the embedding otherwise (q8_0, or f16 where it is not exact).
std::string fingerprint(const Model& model);

// SHA-256 over names and masks of the sparse weights; empty where nothing is masked.
std::string mask_hash(const Model& model);

// SHA-256 over all that a pass through the model reads: every weight as it is held, masks, norms and biases.
std::string weights_hash(const Model& model);

// Throws Error(kCorrupt) naming the first matrix whose shape disagrees with the configuration.
void check_shapes(const Model& model);

}  // namespace brick::model
