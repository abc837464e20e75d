#include <algorithm>
#include <cmath>

#include "brick/base/error.h"
#include "brick/model/gguf_layout.h"
#include "brick/model/gguf_tokenizer.h"
#include "brick/model/hf_config.h"
#include "brick/tensor/pack.h"
#include "brick/text/utf8.h"

namespace brick::model {
namespace {

constexpr int64_t kMaxLayers = 1 << 16;

// A number for all layers, or an array with one a layer.
std::vector<int64_t> per_layer(const io::GgufFile& file, const std::string& key, int64_t layers) {
  const io::GgufValue* value = file.find(key);
  const bool array = value != nullptr && (std::holds_alternative<std::vector<int32_t>>(*value) ||
                                          std::holds_alternative<std::vector<uint32_t>>(*value));
  if (!array) return std::vector<int64_t>(static_cast<size_t>(layers), file.require_i64(key));
  std::vector<int64_t> values = file.require_ints(key);
  if (static_cast<int64_t>(values.size()) != layers)
    fail(ErrorCode::kCorrupt, "{}: {} has {} values for {} layers", file.name(), key, values.size(), layers);
  return values;
}

std::string linear_scaling(const io::GgufFile& file, const std::string& prefix) {
  const std::string type = file.str_or(prefix + "rope.scaling.type", "");
  std::string key = prefix + "rope.scaling.factor";
  if (file.find(key) == nullptr) key = prefix + "rope.scale_linear";
  const float factor = file.f32_or(key, 1.0f);
  if (type == "none" || (type.empty() && factor == 1.0f)) return {};
  if (!type.empty() && type != "linear")
    fail(ErrorCode::kUnsupported, "{}: {}rope.scaling.type {} is not supported; none and linear are", file.name(),
         prefix, text::printable(type));
  if (!(factor > 0) || !std::isfinite(factor)) fail(ErrorCode::kInvalidInput, "{}: {} is {}", file.name(), key, factor);
  return factor == 1.0f ? std::string()
                        : fmt::format(R"({{"factor":{},"rope_type":"linear"}})", json_number(factor).dump());
}

// rope_freqs divides the frequencies. Llama 3's converter makes it from rope_scaling, which is found again
// here for exports if it has Meta's published constants.
void apply_rope_divisors(const io::GgufFile& file, ModelConfig& config) {
  const io::GgufTensorInfo* info = file.find_tensor("rope_freqs.weight");
  if (info == nullptr) return;
  const tensor::TensorView stored = file.tensor(*info);
  if (!tensor::is_float(stored.dtype))
    fail(ErrorCode::kUnsupported, "{}: rope_freqs.weight is {}; f32, f16 and bf16 are supported", file.name(),
         tensor::name(stored.dtype));
  const tensor::Tensor divisors = tensor::to_f32(stored);
  if (divisors.size() != config.head_dim / 2)
    fail(ErrorCode::kCorrupt, "{}: rope_freqs.weight has {} values for head size {}", file.name(), divisors.size(),
         config.head_dim);
  for (size_t i = 0; i < config.inverse_frequency.size(); ++i) {
    const float divisor = divisors.f32()[i];
    if (!(divisor > 0) || !std::isfinite(divisor))
      fail(ErrorCode::kInvalidInput, "{}: rope_freqs.weight[{}] is {}", file.name(), i, divisor);
    config.inverse_frequency[i] /= divisor;
  }
  if (!config.rope_scaling.empty()) return;
  const float factor = *std::max_element(divisors.f32(), divisors.f32() + divisors.size());
  const std::string guess = fmt::format(
      R"({{"factor":{},"high_freq_factor":4.0,"low_freq_factor":1.0,"original_max_position_embeddings":8192,)"
      R"("rope_type":"llama3"}})",
      json_number(factor).dump());
  const std::vector<float> guessed = rope_inverse_frequency(config.rope_theta, config.head_dim, guess);
  for (size_t i = 0; i < guessed.size(); ++i)
    if (std::fabs(guessed[i] - config.inverse_frequency[i]) > 1e-5f * guessed[i]) return;
  config.rope_scaling = guess;
}

}  // namespace

GgufShape read_gguf_shape(const io::GgufFile& file) {
  if (const int64_t parts = file.i64_or("split.count", 1); parts > 1)
    fail(ErrorCode::kUnsupported, "{}: is one of {} parts of a model; join them with llama-gguf-split --merge",
         file.name(), parts);
  const std::string architecture = file.require_str("general.architecture");
  if (architecture != "llama" && architecture != "deci")
    fail(ErrorCode::kUnsupported, "{}: architecture {} is not supported; llama and deci are", file.name(),
         text::printable(architecture));
  const std::string prefix = architecture + ".";
  GgufShape shape;
  ModelConfig& config = shape.config;
  config.layers = file.require_i64(prefix + "block_count");
  if (config.layers <= 0 || config.layers > kMaxLayers)
    fail(ErrorCode::kInvalidInput, "{}: {}block_count is {}", file.name(), prefix, config.layers);
  config.hidden = file.require_i64(prefix + "embedding_length");
  shape.heads = per_layer(file, prefix + "attention.head_count", config.layers);
  shape.kv_heads = file.find(prefix + "attention.head_count_kv") != nullptr
                       ? per_layer(file, prefix + "attention.head_count_kv", config.layers)
                       : shape.heads;
  shape.ffn = per_layer(file, prefix + "feed_forward_length", config.layers);
  config.heads = shape.heads.front();
  config.kv_heads = shape.kv_heads.front();
  config.ffn = shape.ffn.front();
  if (config.heads <= 0)
    fail(ErrorCode::kInvalidInput, "{}: {}attention.head_count is {}", file.name(), prefix, config.heads);
  config.head_dim = file.i64_or(prefix + "attention.key_length", config.hidden / config.heads);
  if (const int64_t values = file.i64_or(prefix + "attention.value_length", config.head_dim); values != config.head_dim)
    fail(ErrorCode::kUnsupported, "{}: {}attention.value_length {} differs from key_length {}", file.name(), prefix,
         values, config.head_dim);
  if (const int64_t turned = file.i64_or(prefix + "rope.dimension_count", config.head_dim); turned != config.head_dim)
    fail(ErrorCode::kUnsupported, "{}: {}rope.dimension_count {} of head size {}: partial rotation is not supported",
         file.name(), prefix, turned, config.head_dim);
  config.context = file.i64_or(prefix + "context_length", 2048);
  config.norm_eps = file.require_f32(prefix + "attention.layer_norm_rms_epsilon");
  config.rope_theta = file.f32_or(prefix + "rope.freq_base", 10000.0f);
  config.rope_scaling = linear_scaling(file, prefix);
  config.tied_head = file.find_tensor("output.weight") == nullptr;
  config.bos = gguf_token_id(file, "tokenizer.ggml.bos_token_id");
  config.eos = gguf_token_id(file, "tokenizer.ggml.eos_token_id");

  const io::GgufTensorInfo* embedding = file.find_tensor("token_embd.weight");
  if (embedding == nullptr) fail(ErrorCode::kNotFound, "{}: has no tensor token_embd.weight", file.name());
  if (embedding->shape.size() != 2)
    fail(ErrorCode::kCorrupt, "{}: token_embd.weight has {} dimensions, expected 2", file.name(),
         embedding->shape.size());
  config.vocab = embedding->shape[0];
  if (const int64_t said = file.i64_or(prefix + "vocab_size", config.vocab); said != config.vocab)
    fail(ErrorCode::kCorrupt, "{}: {}vocab_size is {}, but token_embd.weight has {} rows", file.name(), prefix, said,
         config.vocab);
  constexpr int64_t kLargestHead = 1 << 16;
  if (config.head_dim <= 0 || config.head_dim > kLargestHead)
    fail(ErrorCode::kInvalidInput, "{}: {}attention.key_length is {}", file.name(), prefix, config.head_dim);
  try {
    config.inverse_frequency = rope_inverse_frequency(config.rope_theta, config.head_dim, config.rope_scaling);
    config.validate();
  } catch (const Error& e) {
    throw Error(e.code(), fmt::format("{}: {}", file.name(), e.what()));
  }
  apply_rope_divisors(file, config);
  return shape;
}

}  // namespace brick::model
