#include "brick/model/hf_config.h"

#include <cmath>

#include "brick/base/error.h"
#include "brick/io/json_file.h"
#include "brick/model/json_fields.h"

namespace brick::model {
namespace {

using nlohmann::json;

// A Mistral without a sliding window computes what a Llama does.
void check_supported(const json& object, const JsonFields& fields, std::string_view what) {
  const std::string type = fields.text_or("model_type", "");
  const bool mistral = type == "mistral";
  if (const json* names = fields.find("architectures")) {
    const char* expected = mistral ? "MistralForCausalLM" : "LlamaForCausalLM";
    if (!names->is_array() || names->size() != 1 || (*names)[0] != expected)
      fields.refuse("architectures", fmt::format("[\"{}\"] is", expected));
  } else if (type.empty()) {
    fail(ErrorCode::kInvalidInput, "{}: neither model_type nor architectures says what the model is", what);
  }
  if (!type.empty() && type != "llama" && !mistral) fields.refuse("model_type", "\"llama\" is");
  // Not said is 4096 to transformers.
  if (mistral && (!object.contains("sliding_window") || fields.find("sliding_window") != nullptr))
    fail(ErrorCode::kUnsupported,
         "{}: a mistral with a sliding window is not supported; with sliding_window null it is", what);
  for (const char* key : {"attention_bias", "mlp_bias"})
    if (fields.flag_or(key, false) && mistral) fields.refuse(key, "a mistral without biases is");
  if (fields.text_or("hidden_act", "silu") != "silu") fields.refuse("hidden_act", "\"silu\" is");
  if (fields.find("quantization_config") != nullptr)
    fields.refuse("quantization_config", "f32, f16 and bf16 folders and GGUF files are");
  if (fields.number_or("partial_rotary_factor", 1) != 1) fields.refuse("partial_rotary_factor", "1 is");
}

// transformers 4 has rope_theta and rope_scaling, transformers 5 both in rope_parameters.
void read_rope(const JsonFields& fields, std::string_view what, ModelConfig& config) {
  config.rope_theta = fields.number_or("rope_theta", 10000.0f);
  json scaling;
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const json* value = fields.find(key);
    if (value == nullptr) continue;
    if (!value->is_object()) fail(ErrorCode::kInvalidInput, "{}: {} is no object", what, key);
    const JsonFields inner(*value, what);
    config.rope_theta = inner.number_or("rope_theta", config.rope_theta);
    if (inner.number_or("partial_rotary_factor", 1) != 1) inner.refuse("partial_rotary_factor", "1 is");
    const std::string type = inner.text_or("rope_type", inner.text_or("type", "default").c_str());
    if (inner.find("factor") != nullptr && inner.find("rope_type") == nullptr && inner.find("type") == nullptr)
      fail(ErrorCode::kInvalidInput, "{}: {} has a factor, but no rope_type", what, key);
    if (type == "default") continue;
    scaling = *value;
    scaling.erase("rope_theta");
    scaling.erase("type");
    scaling["rope_type"] = type;
  }
  if (!scaling.is_null()) config.rope_scaling = io::compact_json(scaling);
}

}  // namespace

const char* bias_key(Proj proj) { return proj <= Proj::kO ? "attention_bias" : "mlp_bias"; }

json json_number(float value) { return json::parse(fmt::format("{}", value)).get<double>(); }

ModelConfig config_from_hf(const json& object, std::string_view what) {
  if (!object.is_object()) fail(ErrorCode::kInvalidInput, "{}: expected a JSON object", what);
  const JsonFields fields(object, what);
  check_supported(object, fields, what);
  ModelConfig config;
  config.layers = fields.integer("num_hidden_layers");
  config.hidden = fields.integer("hidden_size");
  config.heads = fields.integer("num_attention_heads");
  config.kv_heads = fields.integer_or("num_key_value_heads", config.heads);
  if (config.heads <= 0) fail(ErrorCode::kInvalidInput, "{}: num_attention_heads is {}", what, config.heads);
  config.head_dim = fields.integer_or("head_dim", config.hidden / config.heads);
  config.ffn = fields.integer("intermediate_size");
  config.vocab = fields.integer("vocab_size");
  config.norm_eps = fields.number_or("rms_norm_eps", 1e-6f);
  config.context = fields.integer_or("max_position_embeddings", 2048);
  config.tied_head = fields.flag_or("tie_word_embeddings", false);
  config.bos = fields.token("bos_token_id");
  config.eos = fields.token("eos_token_id");
  read_rope(fields, what, config);
  try {
    constexpr int64_t kLargestHead = 1 << 16;  // bounds the table before validate() sees the rest
    if (config.head_dim <= 0 || config.head_dim > kLargestHead)
      fail(ErrorCode::kInvalidInput, "model configuration: head_dim = {}", config.head_dim);
    config.inverse_frequency = rope_inverse_frequency(config.rope_theta, config.head_dim, config.rope_scaling);
    config.validate();
  } catch (const Error& e) {
    throw Error(e.code(), fmt::format("{}: {}", what, e.what()));
  }
  return config;
}

bool rope_says_frequencies(const ModelConfig& config) {
  constexpr float kRounding = 1e-5f;  // of the divisors that a GGUF file holds in float32
  const std::vector<float> said = rope_inverse_frequency(config.rope_theta, config.head_dim, config.rope_scaling);
  for (size_t i = 0; i < said.size(); ++i)
    if (std::fabs(said[i] - config.inverse_frequency[i]) > kRounding * said[i]) return false;
  return true;
}

json config_to_hf(const ModelConfig& config) {
  json out{{"model_type", "llama"},
           {"num_hidden_layers", config.layers},
           {"hidden_size", config.hidden},
           {"num_attention_heads", config.heads},
           {"num_key_value_heads", config.kv_heads},
           {"head_dim", config.head_dim},
           {"intermediate_size", config.ffn},
           {"vocab_size", config.vocab},
           {"rms_norm_eps", json_number(config.norm_eps)},
           {"rope_theta", json_number(config.rope_theta)},
           {"max_position_embeddings", config.context},
           {"tie_word_embeddings", config.tied_head},
           {"hidden_act", "silu"},
           {"attention_bias", false},
           {"mlp_bias", false}};
  if (!config.rope_scaling.empty()) out["rope_scaling"] = io::parse_json(config.rope_scaling, "rope_scaling");
  // Said even where there is none: transformers takes 1 and 2 for absent ones.
  out["bos_token_id"] = config.bos ? json(*config.bos) : json();
  out["eos_token_id"] = config.eos ? json(*config.eos) : json();
  return out;
}

}  // namespace brick::model
