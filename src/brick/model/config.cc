#include "brick/model/config.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>

#include "brick/base/error.h"
#include "brick/io/json_file.h"

namespace brick::model {
namespace {

constexpr std::array<std::string_view, kProjCount> kNames{"q_proj",    "k_proj",  "v_proj",   "o_proj",
                                                          "gate_proj", "up_proj", "down_proj"};
constexpr std::array<std::string_view, kProjCount> kPaths{"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                                          "self_attn.o_proj", "mlp.gate_proj",    "mlp.up_proj",
                                                          "mlp.down_proj"};
constexpr int64_t kMaxDimension = int64_t{1} << 24;

void require_positive(std::string_view field, int64_t value) {
  if (value <= 0 || value > kMaxDimension) fail(ErrorCode::kInvalidInput, "model configuration: {} = {}", field, value);
}

// Llama 3.1's scaling, as in transformers' modeling_rope_utils.
float llama3_frequency(float frequency, const nlohmann::json& scaling) {
  const float factor = scaling.at("factor"), low = scaling.at("low_freq_factor"), high = scaling.at("high_freq_factor");
  const float original = scaling.at("original_max_position_embeddings");
  const float wavelength = 2.0f * std::numbers::pi_v<float> / frequency;
  if (wavelength < original / high) return frequency;
  if (wavelength > original / low) return frequency / factor;
  const float smooth = (original / wavelength - low) / (high - low);
  return (1.0f - smooth) * frequency / factor + smooth * frequency;
}

void scale_frequencies(std::vector<float>& frequency, const std::string& scaling_json) {
  const nlohmann::json scaling = io::parse_json(scaling_json, "rope_scaling");
  try {
    const std::string type = scaling.contains("rope_type") ? scaling["rope_type"] : scaling.at("type");
    for (float& f : frequency) {
      if (type == "linear")
        f /= scaling.at("factor").get<float>();
      else if (type == "llama3")
        f = llama3_frequency(f, scaling);
      else if (type != "default")
        fail(ErrorCode::kUnsupported, "rope scaling '{}' is not supported (default, linear and llama3 are)", type);
    }
  } catch (const nlohmann::json::exception& e) {
    fail(ErrorCode::kInvalidInput, "rope_scaling {}: {}", scaling_json, e.what());
  }
}

}  // namespace

void ModelConfig::validate() const {
  require_positive("layers", layers);
  require_positive("hidden size", hidden);
  require_positive("heads", heads);
  require_positive("key/value heads", kv_heads);
  require_positive("head size", head_dim);
  require_positive("feed-forward size", ffn);
  require_positive("vocabulary", vocab);
  require_positive("context length", context);
  if (heads % kv_heads != 0)
    fail(ErrorCode::kInvalidInput, "model configuration: {} heads are no multiple of {} key/value heads", heads,
         kv_heads);
  if (head_dim % 2 != 0) fail(ErrorCode::kInvalidInput, "model configuration: head size {} is odd", head_dim);
  if (!(norm_eps > 0) || !std::isfinite(norm_eps))
    fail(ErrorCode::kInvalidInput, "model configuration: norm epsilon {}", norm_eps);
  if (static_cast<int64_t>(inverse_frequency.size()) != head_dim / 2)
    fail(ErrorCode::kInvalidInput, "model configuration: {} rotary frequencies for head size {}",
         inverse_frequency.size(), head_dim);
}

std::vector<float> rope_inverse_frequency(float theta, int64_t head_dim, const std::string& scaling_json) {
  if (!(theta > 0) || !std::isfinite(theta))
    fail(ErrorCode::kInvalidInput, "model configuration: rope theta {}", theta);
  std::vector<float> frequency;
  for (int64_t i = 0; i < head_dim / 2; ++i)
    frequency.push_back(1.0f / std::pow(theta, static_cast<float>(2 * i) / static_cast<float>(head_dim)));
  if (!scaling_json.empty()) scale_frequencies(frequency, scaling_json);
  for (const float f : frequency)
    if (!(f > 0) || !std::isfinite(f))
      fail(ErrorCode::kInvalidInput, "model configuration: rope theta {} with rope_scaling {} gives the frequency {}",
           theta, scaling_json.empty() ? "none" : scaling_json, f);
  return frequency;
}

std::string_view name(Proj proj) { return kNames[static_cast<size_t>(proj)]; }
std::string_view module_path(Proj proj) { return kPaths[static_cast<size_t>(proj)]; }

std::optional<Proj> find_proj(std::string_view name) {
  for (Proj proj : kProjs)
    if (kNames[static_cast<size_t>(proj)] == name) return proj;
  return std::nullopt;
}

std::string weight_name(int64_t layer, Proj proj) {
  return fmt::format("model.layers.{}.{}.weight", layer, module_path(proj));
}

std::string bias_name(int64_t layer, Proj proj) {
  return fmt::format("model.layers.{}.{}.bias", layer, module_path(proj));
}

}  // namespace brick::model
