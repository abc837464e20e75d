// Adapters as PEFT's folders (huggingface/peft, src/peft/utils/save_and_load.py).
#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>

#include "brick/base/error.h"
#include "brick/io/json_file.h"
#include "brick/io/safetensors.h"
#include "brick/model/adapter.h"
#include "brick/model/json_fields.h"
#include "brick/tensor/pack.h"
#include "brick/text/utf8.h"

namespace brick::model {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kConfigFile = "adapter_config.json";
constexpr const char* kWeightsFile = "adapter_model.safetensors";
constexpr const char* kFingerprintKey = "brick.base_fingerprint";
constexpr int64_t kLargestRank = 1 << 16;

bool says_nothing(const json& value) {
  return value.is_null() || value == json(false) || (value.is_structured() && value.empty());
}

// Settings of PEFT that change what an adapter computes, none of which Brickwork has.
void refuse_other_kinds(const JsonFields& fields) {
  if (fields.text("peft_type") != "LORA") fields.refuse("peft_type", "\"LORA\" is");
  if (fields.text_or("bias", "none") != "none") fields.refuse("bias", "\"none\" is");
  for (const char* key :
       {"modules_to_save", "rank_pattern", "alpha_pattern", "use_dora", "fan_in_fan_out", "layers_to_transform",
        "layer_replication", "lora_bias", "trainable_token_indices", "target_parameters", "use_qalora",
        "alora_invocation_tokens", "use_bdlora", "arrow_config", "megatron_config", "kasa_config", "monteclora_config"})
    if (const json* value = fields.find(key); value != nullptr && !says_nothing(*value))
      fields.refuse(key, "plain LoRA of linear layers is");
  // These change the base weights along with the adapter.
  if (const json* init = fields.find("init_lora_weights"); init != nullptr && init->is_string())
    for (std::string_view kind : {"pissa", "olora", "corda", "loftq", "lora_ga"})
      if (init->get<std::string>().starts_with(kind))
        fields.refuse("init_lora_weights", "adapters of unchanged base weights are");
}

LoraConfig read_config(const json& object, const std::string& what) {
  if (!object.is_object()) fail(ErrorCode::kInvalidInput, "{}: expected a JSON object", what);
  const JsonFields fields(object, what);
  refuse_other_kinds(fields);
  LoraConfig config;
  config.rank = fields.integer("r");
  if (config.rank <= 0 || config.rank > kLargestRank) fields.wrong("r", object["r"], "a rank of 1 to 65536");
  config.alpha = fields.double_or("lora_alpha", 8);  // PEFT's default
  if (!(config.alpha > 0)) fields.wrong("lora_alpha", object["lora_alpha"], "a positive number");
  config.rslora = fields.flag_or("use_rslora", false);
  if (!std::isfinite(config.scale())) fields.wrong("lora_alpha", object["lora_alpha"], "a smaller number");
  config.dropout = fields.double_or("lora_dropout", 0);
  if (config.dropout < 0 || config.dropout >= 1)
    fields.wrong("lora_dropout", object["lora_dropout"], "a probability below 1");
  if (const json* brick = fields.find("brick")) {
    if (!brick->is_object()) fields.wrong("brick", *brick, "an object");
    const JsonFields inner(*brick, what);
    config.masked = inner.flag_or("masked", false);
    config.mask_hash = inner.text_or("mask_hash", "");
    config.cut_hash = inner.text_or("cut_hash", "");
    config.base_fingerprint = inner.text_or("base_fingerprint", "");
    if (config.masked == config.mask_hash.empty())
      fail(ErrorCode::kInvalidInput, "{}: brick.masked is {}, but brick.mask_hash is '{}'", what, config.masked,
           config.mask_hash);
  }
  return config;
}

// Which factor a tensor is: "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", with fewer
// prefixes or with the adapter's name before ".weight" as older files have it.
struct Place {
  int64_t layer;
  Proj proj;
  bool is_b;
};
std::optional<Place> place_of(std::string_view name) {
  if (name.starts_with("base_model.")) name.remove_prefix(11);
  while (name.starts_with("model.")) name.remove_prefix(6);
  if (!name.starts_with("layers.") || !name.ends_with(".weight")) return std::nullopt;
  name.remove_prefix(7);
  name.remove_suffix(7);
  if (name.ends_with(".default")) name.remove_suffix(8);
  Place place{};
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), place.layer);
  if (error != std::errc() || place.layer < 0 || end == name.data() + name.size() || *end != '.') return std::nullopt;
  name.remove_prefix(static_cast<size_t>(end - name.data()) + 1);
  place.is_b = name.ends_with(".lora_B");
  if (!place.is_b && !name.ends_with(".lora_A")) return std::nullopt;
  name.remove_suffix(7);
  for (Proj proj : kProjs) {
    if (module_path(proj) != name) continue;
    place.proj = proj;
    return place;
  }
  return std::nullopt;
}

void check_factor(const io::SafetensorsFile& file, const io::SafetensorInfo& info, bool is_b, int64_t rank) {
  const tensor::TensorView view = file.tensor(info);
  if (!tensor::is_float(view.dtype))
    fail(ErrorCode::kUnsupported, "{}: {} is {}; f32, f16 and bf16 are supported", file.name(), info.name, info.dtype);
  if (view.shape.size() != 2 || view.shape[is_b ? 1 : 0] != rank || view.shape[is_b ? 0 : 1] <= 0)
    fail(ErrorCode::kCorrupt, "{}: {} has shape [{}], but adapter_config.json says rank {}", file.name(), info.name,
         fmt::join(view.shape, ", "), rank);
}

std::string module_name(int64_t layer, Proj proj) {
  return fmt::format("base_model.model.model.layers.{}.{}", layer, module_path(proj));
}

bool is_target(const LoraConfig& config, Proj proj) {
  return std::find(config.targets.begin(), config.targets.end(), proj) != config.targets.end();
}

void check_finite(const tensor::Tensor& values, const std::string& file, const std::string& name) {
  for (int64_t i = 0; i < values.size(); ++i)
    if (!std::isfinite(values.f32()[i]))
      fail(ErrorCode::kNumeric, "{}: {} has the value {} at {}", file, name, values.f32()[i], i);
}

// Names in target_modules are those that have tensors; expressions are PEFT's own (Python), so the tensors decide.
void check_targets(const JsonFields& fields, const LoraConfig& config) {
  const json* targets = fields.find("target_modules");
  if (targets == nullptr || targets->is_string()) return;
  if (!targets->is_array()) fields.wrong("target_modules", *targets, "a list or a string");
  std::set<Proj> named;
  for (const json& target : *targets) {
    const std::string path = target.is_string() ? target.get<std::string>() : std::string();
    const std::optional<Proj> proj = find_proj(path.substr(path.rfind('.') + 1));
    if (!proj || !is_target(config, *proj))
      fields.refuse("target_modules", fmt::format("{} has no tensor in {}", io::compact_json(target), kWeightsFile));
    named.insert(*proj);
  }
  for (const Proj proj : config.targets)  // PEFT would leave them out
    if (!named.empty() && !named.contains(proj))
      fields.refuse("target_modules", fmt::format("{} has tensors of {}, too", kWeightsFile, name(proj)));
}

json config_json(const Adapter& adapter, const std::string& base_name) {
  const LoraConfig& config = adapter.config;
  const bool whole = config.alpha == std::floor(config.alpha) && config.alpha < 1e15;
  json out{{"peft_type", "LORA"},
           {"task_type", "CAUSAL_LM"},
           {"base_model_name_or_path", base_name},
           {"inference_mode", true},
           {"r", config.rank},
           {"lora_alpha", whole ? json(static_cast<int64_t>(config.alpha)) : json(config.alpha)},
           {"lora_dropout", config.dropout},
           {"use_rslora", config.rslora},
           {"bias", "none"},
           {"fan_in_fan_out", false},
           {"init_lora_weights", true},
           {"modules_to_save", nullptr},
           {"rank_pattern", json::object()},
           {"alpha_pattern", json::object()},
           {"target_modules", json::array()}};
  for (Proj proj : config.targets) out["target_modules"].push_back(std::string(name(proj)));
  if (config.masked)
    out["brick"] = {{"masked", true},
                    {"mask_hash", config.mask_hash},
                    {"base_fingerprint", config.base_fingerprint},
                    {"note", "the delta is scale * mask * (B A): PEFT would leave out the mask"}};
  if (!config.cut_hash.empty()) {
    out["brick"]["cut_hash"] = config.cut_hash;
    out["brick"]["base_fingerprint"] = config.base_fingerprint;
  }
  return out;
}

}  // namespace

// All layers must have the same targets.
void AdapterFile::find_factors(const io::SafetensorsFile& file) {
  std::map<int64_t, LayerSlots> layers;
  for (const io::SafetensorInfo& info : file.tensors()) {
    const std::optional<Place> place = place_of(info.name);
    if (!place)
      fail(ErrorCode::kUnsupported, "{}: tensor {} is no LoRA factor of a llama's linear layer", file.name(),
           text::printable(info.name));
    Slot& slot = layers[place->layer][static_cast<size_t>(place->proj)][place->is_b ? 1 : 0];
    if (slot.present())
      fail(ErrorCode::kCorrupt, "{}: tensor {} is there twice under two names", file.name(), info.name);
    check_factor(file, info, place->is_b, config_.rank);
    slot = {info.offset, info.shape[0], info.shape[1], file.tensor(info).dtype};
  }
  if (layers.empty()) fail(ErrorCode::kCorrupt, "{}: holds no tensor", file.name());
  for (Proj proj : kProjs) {
    const auto& [a, b] = layers.begin()->second[static_cast<size_t>(proj)];
    if (a.present() || b.present()) config_.targets.push_back(proj);
  }
  for (const auto& [index, layer] : layers) {
    if (index != this->layers())
      fail(ErrorCode::kUnsupported, "{}: layer {} has no factors, but layer {} has; an adapter has the same in all",
           file.name(), this->layers(), index);
    for (Proj proj : kProjs) {
      const auto& [a, b] = layer[static_cast<size_t>(proj)];
      if (a.present() != b.present())
        fail(ErrorCode::kCorrupt, "{}: {}.lora_{}.weight is missing", file.name(), module_name(index, proj),
             a.present() ? 'B' : 'A');
      if (a.present() != is_target(config_, proj))
        fail(ErrorCode::kUnsupported, "{}: {} is {}, unlike in layer 0; an adapter has the same in all layers",
             file.name(), module_name(index, proj), a.present() ? "present" : "missing");
    }
    layers_.push_back(layer);
  }
}

AdapterFile::AdapterFile(const std::string& path) {
  const fs::path folder(path);
  if (!fs::exists(folder)) fail(ErrorCode::kNotFound, "adapter {}: no such folder", path);
  if (!fs::is_directory(folder)) fail(ErrorCode::kInvalidInput, "adapter {}: is a file; give PEFT's folder", path);
  const std::string config_path = (folder / kConfigFile).string();
  const json object = io::read_json_file(config_path);
  config_ = read_config(object, config_path);
  if (!fs::exists(folder / kWeightsFile) && fs::exists(folder / "adapter_model.bin"))
    fail(ErrorCode::kUnsupported, "{}: adapter_model.bin is not read; save the adapter as {}", path, kWeightsFile);
  const io::SafetensorsFile file = io::SafetensorsFile::open(folder / kWeightsFile);
  file_ = file.file();
  find_factors(file);
  check_targets(JsonFields(object, config_path), config_);
  const auto base = file.metadata().find(kFingerprintKey);
  if (config_.base_fingerprint.empty() && base != file.metadata().end()) config_.base_fingerprint = base->second;
  file_->drop_pages(file_->bytes());
}

tensor::Shape AdapterFile::shape(int64_t layer, Proj proj, bool is_b) const {
  const Slot& slot = layers_[static_cast<size_t>(layer)][static_cast<size_t>(proj)][is_b ? 1 : 0];
  return slot.present() ? tensor::Shape{slot.rows, slot.cols} : tensor::Shape{};
}

tensor::Tensor AdapterFile::read(const Slot& slot) const {
  tensor::Tensor values(slot.dtype, {slot.rows, slot.cols});
  file_->copy(slot.offset, values.bytes());
  return slot.dtype == tensor::DType::kF32 ? std::move(values) : tensor::to_f32(values.view());
}

LoraPair AdapterFile::read(int64_t layer, Proj proj) const {
  const auto& [a, b] = layers_[static_cast<size_t>(layer)][static_cast<size_t>(proj)];
  return {read(a), read(b)};
}

Adapter load_adapter(const std::string& path) {
  const AdapterFile file(path);
  Adapter adapter;
  adapter.config = file.config();
  adapter.layers.resize(static_cast<size_t>(file.layers()));
  for (int64_t layer = 0; layer < file.layers(); ++layer)
    for (Proj proj : adapter.config.targets) {
      LoraPair pair = file.read(layer, proj);
      const std::string weights = (fs::path(path) / kWeightsFile).string();
      check_finite(pair.a, weights, module_name(layer, proj) + ".lora_A.weight");
      check_finite(pair.b, weights, module_name(layer, proj) + ".lora_B.weight");
      adapter.at(layer, proj) = std::move(pair);
    }
  return adapter;
}

void save_adapter(const Adapter& adapter, const std::string& base_name, const std::string& path) {
  const fs::path folder(path);
  io::write_json_file(folder / kConfigFile, config_json(adapter, base_name));
  io::SafetensorsWriter writer;
  writer.set_metadata("format", "pt");
  if (!adapter.config.base_fingerprint.empty()) writer.set_metadata(kFingerprintKey, adapter.config.base_fingerprint);
  for_each_pair(adapter, [&](int64_t layer, Proj proj, const LoraPair& pair) {
    writer.add_tensor(module_name(layer, proj) + ".lora_A.weight", pair.a.view());
    writer.add_tensor(module_name(layer, proj) + ".lora_B.weight", pair.b.view());
  });
  writer.write(folder / kWeightsFile);
}

}  // namespace brick::model
