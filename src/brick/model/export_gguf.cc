#include <algorithm>

#include "brick/base/error.h"
#include "brick/io/gguf.h"
#include "brick/io/json_file.h"
#include "brick/model/gguf_layout.h"
#include "brick/model/gguf_mixture.h"
#include "brick/model/gguf_tokenizer.h"
#include "brick/model/hf_config.h"
#include "brick/model/model_card.h"
#include "brick/model/save.h"
#include "brick/model/save_parts.h"

namespace brick::model {
namespace {

using tensor::DType;

// One number where all layers agree, else an array.
template <class Field>
void add_per_layer(io::GgufWriter& writer, const std::string& key, const Model& model, Field field) {
  std::vector<int32_t> values;
  for (const Layer& layer : model.layers) values.push_back(static_cast<int32_t>(layer.shape.*field));
  if (std::equal(values.begin() + 1, values.end(), values.begin()))
    writer.add(key, static_cast<uint32_t>(values.front()));
  else
    writer.add(key, values);
}

void add_configuration(io::GgufWriter& writer, const Model& model, uint32_t file_type) {
  const ModelConfig& config = model.config;
  const std::string architecture(gguf_architecture(model));
  const auto key = [&](const char* rest) { return architecture + "." + rest; };
  const auto u32 = [&](const std::string& name, int64_t value) { writer.add(name, static_cast<uint32_t>(value)); };
  writer.add("general.architecture", architecture);
  writer.add("general.type", std::string("model"));
  writer.add("general.name", model_name(model));
  if (const std::string license = license_of(model.source); !license.empty()) writer.add("general.license", license);
  u32("general.file_type", file_type);
  u32("general.quantization_version", 2);
  u32(key("block_count"), static_cast<int64_t>(model.layers.size()));
  u32(key("context_length"), config.context);
  u32(key("embedding_length"), config.hidden);
  add_per_layer(writer, key("feed_forward_length"), model, &LayerShape::ffn);
  add_per_layer(writer, key("attention.head_count"), model, &LayerShape::heads);
  add_per_layer(writer, key("attention.head_count_kv"), model, &LayerShape::kv_heads);
  u32(key("attention.key_length"), config.head_dim);
  u32(key("attention.value_length"), config.head_dim);
  writer.add(key("attention.layer_norm_rms_epsilon"), config.norm_eps);
  writer.add(key("rope.freq_base"), config.rope_theta);
  u32(key("rope.dimension_count"), config.head_dim);
  u32(key("vocab_size"), config.vocab);
}

// Linear scaling has keys of its own; any other goes into rope_freqs, which divides the plain frequencies.
std::vector<float> add_rope(io::GgufWriter& writer, const Model& model) {
  const ModelConfig& config = model.config;
  if (!config.rope_scaling.empty() && rope_says_frequencies(config)) {
    const nlohmann::json scaling = io::parse_json(config.rope_scaling, "rope_scaling");
    if (scaling.value("rope_type", "") == "linear") {
      const std::string key = std::string(gguf_architecture(model)) + ".rope.scaling.";
      writer.add(key + "type", std::string("linear"));
      writer.add(key + "factor", scaling.at("factor").get<float>());
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
  writer.add_tensor(name, dtype, {weight.rows(), weight.cols()}, encoded_rows(name, weight, dtype, head_dim));
}

}  // namespace

void export_gguf(const Model& model, DType dtype, const std::string& file, bool force) {
  const GgufMixture mixture = gguf_mixture(model, dtype);
  io::GgufWriter writer;
  add_configuration(writer, model, mixture.file_type);
  const std::vector<float> divisors = add_rope(writer, model);
  if (model.tokenizer) {
    write_gguf_tokenizer(*model.tokenizer, model.config.vocab, writer);
  } else {
    writer.add("tokenizer.ggml.model", std::string("no_vocab"));
    if (model.config.bos) writer.add("tokenizer.ggml.bos_token_id", static_cast<uint32_t>(*model.config.bos));
    if (model.config.eos) writer.add("tokenizer.ggml.eos_token_id", static_cast<uint32_t>(*model.config.eos));
  }
  add_matrix(writer, "token_embd.weight", model.embedding, mixture.embedding);
  if (!divisors.empty()) add_vector(writer, "rope_freqs.weight", divisors);
  for (size_t i = 0; i < model.layers.size(); ++i) {
    const auto index = static_cast<int64_t>(i);
    const Layer& layer = model.layers[i];
    add_vector(writer, gguf_name(index, "attn_norm"), layer.attention_norm);
    add_vector(writer, gguf_name(index, "ffn_norm"), layer.ffn_norm);
    if (!layer.o_bias.empty()) add_vector(writer, gguf_bias_name(index, Proj::kO), layer.o_bias);
    if (!layer.down_bias.empty()) add_vector(writer, gguf_bias_name(index, Proj::kDown), layer.down_bias);
    for (Proj proj : kProjs)
      add_matrix(writer, gguf_name(index, proj), layer[proj], mixture.layers[i][static_cast<size_t>(proj)],
                 proj == Proj::kQ || proj == Proj::kK ? layer.shape.head_dim : 0);
  }
  add_vector(writer, "output_norm.weight", model.final_norm);
  if (model.own_head) add_matrix(writer, "output.weight", *model.own_head, mixture.head);
  writer.write(file, force);
}

}  // namespace brick::model
