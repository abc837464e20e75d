#include "brick/model/load_parts.h"

#include <cmath>
#include <filesystem>
#include <set>

#include "brick/base/error.h"
#include "brick/io/json_file.h"
#include "brick/tensor/pack.h"
#include "brick/text/utf8.h"

namespace brick::model {

io::GgufFile open_gguf(const std::string& path) {
  if (std::filesystem::path(path).extension() == ".safetensors" && std::filesystem::exists(path))
    fail(ErrorCode::kInvalidInput, "{}: is part of a model; give the folder that holds it", path);
  return io::GgufFile::open(path);
}

nlohmann::json read_config_json(const std::string& folder) {
  const std::filesystem::path path(folder);
  if (!std::filesystem::exists(path / "config.json") && std::filesystem::exists(path / "adapter_config.json"))
    fail(ErrorCode::kInvalidInput, "{}: is an adapter; give its model, and this with --adapter", folder);
  return io::read_json_file(path / "config.json");
}

tensor::Matrix load_matrix(const std::string& file, const std::string& name, const tensor::TensorView& view,
                           std::shared_ptr<const void> keep) {
  try {
    return tensor::Matrix::dense(view, std::move(keep));
  } catch (const Error& e) {
    throw Error(e.code(), fmt::format("{}: {}: {}", file, name, e.what()));
  }
}

std::vector<float> load_norm(const std::string& file, const std::string& name, const tensor::TensorView& view) {
  if (view.shape.size() != 1 || !tensor::is_float(view.dtype))
    fail(ErrorCode::kCorrupt, "{}: {} has {} dimensions of {}, expected one of f32, f16 or bf16", file, name,
         view.shape.size(), tensor::name(view.dtype));
  const tensor::Tensor values = tensor::to_f32(view);
  std::vector<float> out(values.f32(), values.f32() + values.size());
  for (size_t i = 0; i < out.size(); ++i)
    if (!std::isfinite(out[i])) fail(ErrorCode::kNumeric, "{}: {}[{}] is {}", file, name, i, out[i]);
  return out;
}

void refuse_others(const io::SafetensorsSet& set, const std::vector<std::string>& known) {
  const std::set<std::string_view> names(known.begin(), known.end());
  for (const std::string& name : set.names())
    if (!names.contains(name) && !name.ends_with("rotary_emb.inv_freq"))
      fail(ErrorCode::kUnsupported, "{}: tensor {} is no part of a llama without biases; such models are not supported",
           set.name(), text::printable(name));
}

std::string attention_norm_name(int64_t layer) { return fmt::format("model.layers.{}.input_layernorm.weight", layer); }
std::string ffn_norm_name(int64_t layer) {
  return fmt::format("model.layers.{}.post_attention_layernorm.weight", layer);
}

std::array<std::string, 3> kept_names(int64_t layer) {
  return {fmt::format("model.layers.{}.self_attn.kept_heads", layer),
          fmt::format("model.layers.{}.self_attn.kept_kv_heads", layer),
          fmt::format("model.layers.{}.mlp.kept_neurons", layer)};
}

}  // namespace brick::model
