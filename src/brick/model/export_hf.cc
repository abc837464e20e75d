#include <algorithm>
#include <filesystem>
#include <optional>
#include <span>

#include "brick/base/error.h"
#include "brick/io/json_file.h"
#include "brick/io/safetensors.h"
#include "brick/model/hf_config.h"
#include "brick/model/load_parts.h"
#include "brick/model/model_card.h"
#include "brick/model/pad.h"
#include "brick/model/save.h"
#include "brick/model/save_parts.h"
#include "brick/model/weight_shape.h"

namespace brick::model {
namespace {

using tensor::DType;

const char* torch_name(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "float32";
    case DType::kF16:
      return "float16";
    case DType::kBF16:
      return "bfloat16";
    default:
      fail(ErrorCode::kInvalidInput, "a Hugging Face folder in {}: expected f32, f16 or bf16", name(dtype));
  }
}

// Empty where the layer has none.
std::span<const float> bias_of(const Layer& layer, Proj proj) {
  if (proj == Proj::kO) return layer.o_bias;
  if (proj == Proj::kDown) return layer.down_bias;
  return {};
}

bool has_bias(const Model& model, Proj proj) {
  return std::any_of(model.layers.begin(), model.layers.end(),
                     [&](const Layer& layer) { return !bias_of(layer, proj).empty(); });
}

void check_alike(const Model& model) {
  const LayerShape& first = model.layers.front().shape;
  for (size_t i = 0; i < model.layers.size(); ++i) {
    const LayerShape& s = model.layers[i].shape;
    if (s != first)
      fail(ErrorCode::kUnsupported,
           "layer {} has {} heads, {} key/value heads and feed-forward size {}, unlike layer 0; transformers wants "
           "them alike: fill them up with zeros (--pad), or export it as GGUF",
           i, s.heads, s.kv_heads, s.ffn);
  }
}

// The fewest heads that divide the model's width and that `shape` fits into, if there are such.
std::optional<LayerShape> with_dividing_heads(LayerShape shape, int64_t hidden) {
  const int64_t queries = shape.heads / shape.kv_heads;
  for (int64_t heads = shape.heads; heads <= hidden; ++heads)
    for (int64_t kv_heads = shape.kv_heads; hidden % heads == 0 && kv_heads * queries <= heads; ++kv_heads)
      if (heads % kv_heads == 0) return LayerShape{heads, kv_heads, shape.head_dim, shape.ffn};
  return std::nullopt;
}

// The shape that all layers have in the folder.
LayerShape common_shape(const Model& model, bool pad) {
  if (!pad) check_alike(model);
  const LayerShape widest = widest_shape(model);
  const int64_t hidden = model.config.hidden;
  if (hidden % widest.heads == 0 || !(has_bias(model, Proj::kO) || has_bias(model, Proj::kDown))) return widest;
  const std::optional<LayerShape> dividing = pad ? with_dividing_heads(widest, hidden) : std::nullopt;
  if (!dividing)
    fail(ErrorCode::kUnsupported,
         "the model has biases, and its width {} is no multiple of its {} heads; transformers has no such model: "
         "{}export it as GGUF",
         hidden, widest.heads, pad ? "" : "add heads of zeros (--pad), or ");
  return *dividing;
}

nlohmann::json config_of(const Model& model, const LayerShape& shape, DType dtype) {
  if (!rope_says_frequencies(model.config))
    fail(ErrorCode::kUnsupported,
         "the model's rotary frequencies are none that config.json can say: export it as GGUF instead");
  ModelConfig common = model.config;
  common.heads = shape.heads;
  common.kv_heads = shape.kv_heads;
  common.ffn = shape.ffn;
  nlohmann::json config = config_to_hf(common);
  config["architectures"] = {"LlamaForCausalLM"};
  // transformers refuses a Llama whose width is no multiple of its heads, as SliceGPT may leave it; its Mistral without
  // a window is the same model without biases and has no such rule.
  if (common.hidden % common.heads != 0) {
    config["model_type"] = "mistral";
    config["architectures"] = {"MistralForCausalLM"};
    config["sliding_window"] = nullptr;
  }
  for (Proj proj : {Proj::kO, Proj::kDown}) config[bias_key(proj)] = has_bias(model, proj);
  config["torch_dtype"] = torch_name(dtype);
  if (model.tokenizer && model.tokenizer->pad) config["pad_token_id"] = *model.tokenizer->pad;
  return config;
}

}  // namespace

int64_t export_hf(const Model& model, DType dtype, const std::string& folder, bool pad) {
  const std::filesystem::path path(folder);
  const LayerShape shape = common_shape(model, pad);
  const nlohmann::json config = config_of(model, shape, dtype);
  const auto shape_of = [&](Proj proj) { return weight_shape(shape, model.config.hidden, proj); };

  io::SafetensorsWriter writer;
  writer.set_metadata("format", "pt");
  const auto matrix = [&](const std::string& name, const tensor::Matrix& weight) {
    writer.add_tensor(name, dtype, {weight.rows(), weight.cols()}, encoded_rows(name, weight, dtype));
  };
  const auto vector = [&](const std::string& name, std::span<const float> values) {
    const tensor::TensorView row{DType::kF32, {1, static_cast<int64_t>(values.size())}, std::as_bytes(values)};
    writer.add_tensor(name, dtype, {static_cast<int64_t>(values.size())},
                      encoded_rows(name, tensor::Matrix::dense(row, nullptr), dtype));
  };
  matrix("model.embed_tokens.weight", model.embedding);
  if (model.own_head) matrix("lm_head.weight", *model.own_head);
  int64_t added = 0;
  for (size_t i = 0; i < model.layers.size(); ++i)
    for (Proj proj : kProjs) {
      const Layer& layer = model.layers[i];
      const std::string name = weight_name(static_cast<int64_t>(i), proj);
      const auto [rows, cols] = shape_of(proj);
      // Padded when its turn comes, so that no more than one is held.
      writer.add_tensor(name, dtype, {rows, cols}, [&layer, name, proj, shape, dtype](const io::ByteSink& sink) {
        encoded_rows(name, padded(layer, proj, shape), dtype)(sink);
      });
      added += rows * cols - layer[proj].rows() * layer[proj].cols();
    }
  for (size_t i = 0; i < model.layers.size(); ++i) {
    vector(attention_norm_name(static_cast<int64_t>(i)), model.layers[i].attention_norm);
    vector(ffn_norm_name(static_cast<int64_t>(i)), model.layers[i].ffn_norm);
  }
  vector("model.norm.weight", model.final_norm);
  // transformers wants biases of all the weights that a key is about, in every layer.
  const std::vector<float> zeros(
      static_cast<size_t>(std::max({shape.heads * shape.head_dim, shape.ffn, model.config.hidden})));
  for (Proj proj : kProjs) {
    if (!config.at(bias_key(proj)).get<bool>()) continue;
    const auto none = std::span(zeros).first(static_cast<size_t>(shape_of(proj)[0]));
    for (size_t i = 0; i < model.layers.size(); ++i) {
      const std::span<const float> own = bias_of(model.layers[i], proj);
      vector(bias_name(static_cast<int64_t>(i), proj), own.empty() ? none : own);
    }
  }
  writer.write(path / "model.safetensors");
  io::write_json_file(path / "config.json", config);
  write_tokenizer_files(model, folder);
  write_model_card(model, CardFor::kTransformers, folder);
  return tensor::row_bytes(dtype, added);
}

}  // namespace brick::model
