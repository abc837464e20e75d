#include <algorithm>

#include "brick/base/error.h"
#include "brick/model/hf_config.h"
#include "brick/model/json_fields.h"
#include "brick/model/load_parts.h"

namespace brick::model {

Model load_hf_weights(const std::string& folder, const nlohmann::json& config) {
  Model model;
  const std::string config_file = folder + "/config.json";
  model.config = config_from_hf(config, config_file);
  const JsonFields fields(config, config_file);
  const auto set = std::make_shared<const io::SafetensorsSet>(io::SafetensorsSet::open(folder));
  std::vector<std::string> known{"lm_head.weight"};  // of a tied model: a copy that some tools write
  const auto find = [&](const std::string& name) {
    known.push_back(name);
    return set->tensor(name);
  };
  const auto matrix = [&](const std::string& name) { return load_matrix(set->name(), name, find(name), set); };
  const auto norm = [&](const std::string& name) { return load_norm(set->name(), name, find(name)); };

  // Zeros, as exports have where a layer has no bias, are none.
  const auto read_bias = [&](int64_t index, Proj proj, Layer& layer) {
    const std::string name = bias_name(index, proj);
    std::vector<float> bias = norm(name);
    if (std::all_of(bias.begin(), bias.end(), [](float v) { return v == 0.0f; })) return;
    if (!writes_stream(proj))
      fail(ErrorCode::kUnsupported, "{}: {} is not all zeros; biases of o_proj and down_proj alone are supported",
           set->name(), name);
    (proj == Proj::kO ? layer.o_bias : layer.down_bias) = std::move(bias);
  };

  model.embedding = matrix("model.embed_tokens.weight");
  if (!model.config.tied_head) model.own_head = matrix("lm_head.weight");
  model.final_norm = norm("model.norm.weight");
  for (int64_t i = 0; i < model.config.layers; ++i) {
    Layer layer;
    layer.shape = {model.config.heads, model.config.kv_heads, model.config.head_dim, model.config.ffn};
    layer.attention_norm = norm(attention_norm_name(i));
    layer.ffn_norm = norm(ffn_norm_name(i));
    for (Proj proj : kProjs) {
      layer[proj] = matrix(weight_name(i, proj));
      if (fields.flag_or(bias_key(proj), false)) read_bias(i, proj, layer);
    }
    model.layers.push_back(std::move(layer));
  }
  refuse_others(*set, known);
  model.drop_pages = [set] { set->drop_pages(); };
  return model;
}

}  // namespace brick::model
