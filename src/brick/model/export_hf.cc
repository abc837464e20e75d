#include <filesystem>

#include "brick/base/error.h"
#include "brick/io/json_file.h"
#include "brick/io/safetensors.h"
#include "brick/model/block_format.h"
#include "brick/model/hf_config.h"
#include "brick/model/load_parts.h"
#include "brick/model/model_card.h"
#include "brick/model/save.h"
#include "brick/model/save_parts.h"

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

// The configuration with the layers' own widths, which must be the same in all.
ModelConfig common_config(const Model& model) {
  ModelConfig config = model.config;
  const LayerShape& first = model.layers.front().shape;
  for (size_t i = 0; i < model.layers.size(); ++i) {
    const LayerShape& s = model.layers[i].shape;
    if (s.heads != first.heads || s.kv_heads != first.kv_heads || s.ffn != first.ffn)
      fail(ErrorCode::kUnsupported,
           "layer {} has {} heads, {} key/value heads and feed-forward size {}, unlike layer 0; transformers "
           "wants "
           "them alike: export it as GGUF instead",
           i, s.heads, s.kv_heads, s.ffn);
    if (!model.layers[i].o_bias.empty() || !model.layers[i].down_bias.empty())
      fail(ErrorCode::kUnsupported,
           "layer {} has biases, as FLAP gives them; config.json cannot say which: export it as GGUF instead", i);
  }
  config.heads = first.heads;
  config.kv_heads = first.kv_heads;
  config.ffn = first.ffn;
  if (!rope_says_frequencies(config))
    fail(ErrorCode::kUnsupported,
         "the model's rotary frequencies are none that config.json can say: export it as GGUF instead");
  return config;
}

}  // namespace

void export_hf(const Model& model, DType dtype, const std::string& folder) {
  const std::filesystem::path path(folder);
  nlohmann::json config = config_to_hf(common_config(model));
  config["architectures"] = {"LlamaForCausalLM"};
  // transformers refuses a Llama whose width is no multiple of its heads, as SliceGPT may leave it; its Mistral without
  // a window is the same model and has no such rule.
  if (model.config.hidden % config["num_attention_heads"].get<int64_t>() != 0) {
    config["model_type"] = "mistral";
    config["architectures"] = {"MistralForCausalLM"};
    config["sliding_window"] = nullptr;
  }
  config["torch_dtype"] = torch_name(dtype);
  if (model.tokenizer && model.tokenizer->pad) config["pad_token_id"] = *model.tokenizer->pad;

  io::SafetensorsWriter writer;
  writer.set_metadata("format", "pt");
  for_each_matrix(model, [&](const std::string& name, const tensor::Matrix& weight) {
    writer.add_tensor(name, dtype, {weight.rows(), weight.cols()}, encoded_rows(name, weight, dtype));
  });
  const auto norm = [&](const std::string& name, const std::vector<float>& values) {
    const tensor::TensorView row{
        DType::kF32, {1, static_cast<int64_t>(values.size())}, std::as_bytes(std::span(values))};
    writer.add_tensor(name, dtype, {static_cast<int64_t>(values.size())},
                      encoded_rows(name, tensor::Matrix::dense(row, nullptr), dtype));
  };
  for (size_t i = 0; i < model.layers.size(); ++i) {
    norm(attention_norm_name(static_cast<int64_t>(i)), model.layers[i].attention_norm);
    norm(ffn_norm_name(static_cast<int64_t>(i)), model.layers[i].ffn_norm);
  }
  norm("model.norm.weight", model.final_norm);
  writer.write(path / "model.safetensors");
  io::write_json_file(path / "config.json", config);
  write_tokenizer_files(model, folder);
  write_model_card(model, CardFor::kTransformers, folder);
}

}  // namespace brick::model
