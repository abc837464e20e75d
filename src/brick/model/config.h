// The shape of a Llama-family model (Touvron et al. 2023): pre-norm decoder, rotary positions, grouped-query
// attention, SwiGLU. Single letters in comments are the glossary's (ARCHITECTURE.md).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace brick::model {

struct ModelConfig {
  int64_t layers = 0;
  int64_t hidden = 0;    // D
  int64_t heads = 0;     // H
  int64_t kv_heads = 0;  // K, divides H
  int64_t head_dim = 0;
  int64_t ffn = 0;    // F
  int64_t vocab = 0;  // V
  float norm_eps = 1e-5f;
  float rope_theta = 10000.0f;
  std::vector<float> inverse_frequency;  // [head_dim / 2], scaling included
  std::string rope_scaling;              // JSON of Hugging Face's rope_scaling, empty where there is none
  int64_t context = 2048;                // longest sequence that the model was made for
  bool tied_head = false;                // the head is the token embedding
  std::optional<int32_t> bos, eos;

  // Error(kInvalidInput / kUnsupported) naming the field if the sizes make no model.
  void validate() const;
};

// theta^(-2i/d), with Hugging Face's "linear" and "llama3" scalings; any other type is refused by name.
// `scaling_json` may be empty.
std::vector<float> rope_inverse_frequency(float theta, int64_t head_dim, const std::string& scaling_json);

// The seven linear layers of a block, in the order of their use.
enum class Proj : uint8_t { kQ, kK, kV, kO, kGate, kUp, kDown };
constexpr int kProjCount = 7;
constexpr std::array<Proj, kProjCount> kProjs{Proj::kQ,    Proj::kK,  Proj::kV,   Proj::kO,
                                              Proj::kGate, Proj::kUp, Proj::kDown};
// Whether its rows are channels of the residual stream; the others' columns are.
constexpr bool writes_stream(Proj proj) { return proj == Proj::kO || proj == Proj::kDown; }

std::string_view name(Proj proj);         // "q_proj"
std::string_view module_path(Proj proj);  // "self_attn.q_proj"
std::optional<Proj> find_proj(std::string_view name);
std::string weight_name(int64_t layer, Proj proj);  // "model.layers.0.self_attn.q_proj.weight"
std::string bias_name(int64_t layer, Proj proj);    // "model.layers.0.self_attn.o_proj.bias"

}  // namespace brick::model
