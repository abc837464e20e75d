// What a Llama is called in a GGUF file, and the order of its query and key rows there.
#pragma once

#include <fmt/format.h>

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "brick/io/gguf.h"
#include "brick/model/model.h"

namespace brick::model {

inline constexpr std::array<std::string_view, kProjCount> kGgufProjections{
    "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"};

inline std::string gguf_name(int64_t layer, std::string_view tensor) {
  return fmt::format("blk.{}.{}.weight", layer, tensor);
}
inline std::string gguf_name(int64_t layer, Proj proj) {
  return gguf_name(layer, kGgufProjections[static_cast<size_t>(proj)]);
}
inline std::string gguf_bias_name(int64_t layer, Proj proj) {
  return fmt::format("blk.{}.{}.bias", layer, kGgufProjections[static_cast<size_t>(proj)]);
}

// llama.cpp turns neighbouring dimensions of a head, so its converter interleaves the two halves: its row 2i
// + j of a head is our row j hd/2 + i (convert_hf_to_gguf.py, LlamaModel.permute). Whole rows move, so
// encoded ones can too.
inline int64_t gguf_row(int64_t row, int64_t head_dim) {
  const int64_t head = row / head_dim, within = row % head_dim, half = head_dim / 2;
  return head * head_dim + within % half * 2 + within / half;
}
inline int64_t row_of_gguf(int64_t gguf, int64_t head_dim) {
  const int64_t head = gguf / head_dim, within = gguf % head_dim;
  return head * head_dim + within % 2 * (head_dim / 2) + within / 2;
}

// llama.cpp's "llama" has one width for all layers, its "deci" a width a layer and the same arithmetic.
inline std::string_view gguf_architecture(const Model& model) {
  const LayerShape& first = model.layers.front().shape;
  for (const Layer& layer : model.layers)
    if (layer.shape.heads != first.heads || layer.shape.kv_heads != first.kv_heads || layer.shape.ffn != first.ffn)
      return "deci";
  return "llama";
}

// The configuration and the layers' own shapes, which may differ from layer to layer.
struct GgufShape {
  ModelConfig config;
  std::vector<int64_t> heads, kv_heads, ffn;  // one a layer
};

// Error(kUnsupported) for another architecture and for partial or other than linear or llama3 rotary scaling;
// each error names the key.
GgufShape read_gguf_shape(const io::GgufFile& file);

}  // namespace brick::model
