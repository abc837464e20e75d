// The `brick` section of a block's config.json (docs/block-format.md), which says how model.safetensors is to
// be read.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "brick/model/model.h"

namespace brick::model {

inline constexpr int64_t kBlockFormat = 1;

// How one matrix is stored.
struct StoredMatrix {
  std::optional<tensor::SparseCoding> coding;  // none: dense
  tensor::DType dtype = tensor::DType::kF32;
  int64_t rows = 0, cols = 0;
  int64_t kept = 0;  // weights that the mask keeps; rows * cols of a dense one
};

struct BlockSection {
  ModelConfig config;
  std::vector<LayerShape> layers;
  std::map<std::string, StoredMatrix> tensors;  // by the weight's name
  BlockSpec spec;
};

bool is_block_config(const nlohmann::json& config);

// `what` names the file. Error(kUnsupported) for a format version or model that we do not read, kInvalidInput
// or kCorrupt naming the key otherwise.
BlockSection read_block_section(const nlohmann::json& config, std::string_view what);

// The whole config.json.
nlohmann::json block_config(const Model& model);

// Calls visit(name, matrix) on embedding, head (if any) and the layers' weights, in the order that they are
// stored.
template <class Visit>
void for_each_matrix(const Model& model, Visit&& visit) {
  visit(std::string("model.embed_tokens.weight"), model.embedding);
  if (model.own_head) visit(std::string("lm_head.weight"), *model.own_head);
  for (size_t i = 0; i < model.layers.size(); ++i)
    for (Proj proj : kProjs) visit(weight_name(static_cast<int64_t>(i), proj), model.layers[i][proj]);
}

}  // namespace brick::model
