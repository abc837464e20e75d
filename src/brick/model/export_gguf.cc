#include <algorithm>
#include <filesystem>

#include "brick/base/error.h"
#include "brick/io/gguf.h"
#include "brick/io/json_file.h"
#include "brick/model/gguf_layout.h"
#include "brick/model/gguf_tokenizer.h"
#include "brick/model/hf_config.h"
#include "brick/model/save.h"
#include "brick/model/save_parts.h"

namespace brick::model {
namespace {

using tensor::DType;

// llama.h, enum llama_ftype.
uint32_t file_type(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return 0;
    case DType::kF16:
      return 1;
    case DType::kQ4_0:
      return 2;
    case DType::kQ4_1:
      return 3;
    case DType::kQ8_0:
      return 7;
    case DType::kBF16:
      return 32;
    default:
      fail(ErrorCode::kInvalidInput, "GGUF in {}: expected f32, f16, bf16, q8_0, q4_0 or q4_1", name(dtype));
  }
}

std::string model_name(const Model& model) {
  const std::string name = std::filesystem::path(model.source).filename().stem().string();
  return name.empty() ? "model" : name;
}

// One number where all layers agree, else an array.
template <class Field>
void add_per_layer(io::GgufWriter& writer, const char* key, const Model& model, Field field) {
  std::vector<int32_t> values;
  for (const Layer& layer : model.layers) values.push_back(static_cast<int32_t>(layer.shape.*field));
  if (std::equal(values.begin() + 1, values.end(), values.begin()))
    writer.add(key, static_cast<uint32_t>(values.front()));
  else
    writer.add(key, values);
}

void add_configuration(io::GgufWriter& writer, const Model& model, DType dtype) {
  const ModelConfig& config = model.config;
  const auto u32 = [&](const char* key, int64_t value) { writer.add(key, static_cast<uint32_t>(value)); };
  writer.add("general.architecture", std::string("llama"));
  writer.add("general.type", std::string("model"));
  writer.add("general.name", model_name(model));
  u32("general.file_type", file_type(dtype));
  u32("general.quantization_version", 2);
  u32("llama.block_count", config.layers);
  u32("llama.context_length", config.context);
  u32("llama.embedding_length", config.hidden);
  add_per_layer(writer, "llama.feed_forward_length", model, &LayerShape::ffn);
  add_per_layer(writer, "llama.attention.head_count", model, &LayerShape::heads);
  add_per_layer(writer, "llama.attention.head_count_kv", model, &LayerShape::kv_heads);
  u32("llama.attention.key_length", config.head_dim);
  u32("llama.attention.value_length", config.head_dim);
  writer.add("llama.attention.layer_norm_rms_epsilon", config.norm_eps);
  writer.add("llama.rope.freq_base", config.rope_theta);
  u32("llama.rope.dimension_count", config.head_dim);
  u32("llama.vocab_size", config.vocab);
}

// Linear scaling has keys of its own; any other goes into rope_freqs, which divides the plain frequencies.
std::vector<float> add_rope(io::GgufWriter& writer, const ModelConfig& config) {
  if (!config.rope_scaling.empty() && rope_says_frequencies(config)) {
    const nlohmann::json scaling = io::parse_json(config.rope_scaling, "rope_scaling");
    if (scaling.value("rope_type", "") == "linear") {
      writer.add("llama.rope.scaling.type", std::string("linear"));
      writer.add("llama.rope.scaling.factor", scaling.at("factor").get<float>());
      return {};
    }
  }
  std::vector<float> divisors = rope_inverse_frequency(config.rope_theta, config.head_dim, "");
  if (divisors == config.inverse_frequency) return {};
  for (size_t i = 0; i < divisors.size(); ++i) divisors[i] /= config.inverse_frequency[i];
  return divisors;
}

void add_vector(io::GgufWriter& writer, const std::string& name, const std::vector<float>& values) {
  writer.add_tensor(name, DType::kF32, {static_cast<int64_t>(values.size())},
                    io::source_of(std::as_bytes(std::span(values))));
}

void add_matrix(io::GgufWriter& writer, const std::string& name, const tensor::Matrix& weight, DType dtype,
                int64_t head_dim = 0) {
  if (tensor::is_quantised(dtype) && weight.cols() % tensor::kQuantBlock != 0) dtype = DType::kF16;
  writer.add_tensor(name, dtype, {weight.rows(), weight.cols()}, encoded_rows(name, weight, dtype, head_dim));
}

}  // namespace

void export_gguf(const Model& model, DType dtype, const std::string& file, bool force) {
  io::GgufWriter writer;
  add_configuration(writer, model, dtype);
  const std::vector<float> divisors = add_rope(writer, model.config);
  if (model.tokenizer) {
    write_gguf_tokenizer(*model.tokenizer, model.config.vocab, writer);
  } else {
    writer.add("tokenizer.ggml.model", std::string("no_vocab"));
    if (model.config.bos) writer.add("tokenizer.ggml.bos_token_id", static_cast<uint32_t>(*model.config.bos));
    if (model.config.eos) writer.add("tokenizer.ggml.eos_token_id", static_cast<uint32_t>(*model.config.eos));
  }
  add_matrix(writer, "token_embd.weight", model.embedding, dtype);
  if (!divisors.empty()) add_vector(writer, "rope_freqs.weight", divisors);
  for (size_t i = 0; i < model.layers.size(); ++i) {
    const auto index = static_cast<int64_t>(i);
    const Layer& layer = model.layers[i];
    add_vector(writer, gguf_name(index, "attn_norm"), layer.attention_norm);
    add_vector(writer, gguf_name(index, "ffn_norm"), layer.ffn_norm);
    for (Proj proj : kProjs)
      add_matrix(writer, gguf_name(index, proj), layer[proj], dtype,
                 proj == Proj::kQ || proj == Proj::kK ? layer.shape.head_dim : 0);
  }
  add_vector(writer, "output_norm.weight", model.final_norm);
  if (model.own_head) add_matrix(writer, "output.weight", *model.own_head, dtype);
  writer.write(file, force);
}

}  // namespace brick::model
