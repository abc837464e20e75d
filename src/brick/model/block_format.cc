#include "brick/model/block_format.h"

#include <cmath>

#include "brick/base/checked.h"
#include "brick/base/error.h"
#include "brick/model/hf_config.h"
#include "brick/model/json_fields.h"

namespace brick::model {
namespace {

using nlohmann::json;

// transformers has no such class, so it refuses a block instead of filling in random weights.
constexpr const char* kModelType = "brickwork_block";
constexpr const char* kDense = "dense";
constexpr int64_t kLargestDimension = int64_t{1} << 32;

json stored_json(const tensor::Matrix& weight) {
  return {{"coding", std::string(weight.is_sparse() ? tensor::name(weight.sparse_view().coding) : kDense)},
          {"dtype", std::string(tensor::name(weight.dtype()))},
          {"shape", {weight.rows(), weight.cols()}},
          {"kept", weight.nonzeros()}};
}

StoredMatrix read_stored(const std::string& name, const json& object, std::string_view what) {
  if (!object.is_object()) fail(ErrorCode::kCorrupt, "{}: brick.tensors.{} is no object", what, name);
  const std::string where = fmt::format("{}: brick.tensors.{}", what, name);
  const JsonFields fields(object, where);
  StoredMatrix stored;
  const std::string coding = fields.text("coding"), dtype = fields.text("dtype");
  if (coding != kDense) {
    stored.coding = tensor::find_sparse_coding(coding);
    if (!stored.coding) fields.refuse("coding", "dense, values, q4 and parent are");
  }
  const std::optional<tensor::DType> type = tensor::find_dtype(dtype);
  if (!type || (!tensor::is_float(*type) && !tensor::is_quantised(*type)))
    fields.refuse("dtype", "f32, f16, bf16, q8_0, q4_0 and q4_1 are");
  stored.dtype = *type;
  const json* shape = fields.find("shape");
  if (shape == nullptr || !shape->is_array() || shape->size() != 2 || !(*shape)[0].is_number_unsigned() ||
      !(*shape)[1].is_number_unsigned())
    fail(ErrorCode::kCorrupt, "{}.shape is no pair of sizes", where);
  stored.rows = (*shape)[0];
  stored.cols = (*shape)[1];
  if (stored.rows <= 0 || stored.cols <= 0 || stored.rows > kLargestDimension || stored.cols > kLargestDimension)
    fail(ErrorCode::kCorrupt, "{}.shape is {} x {}", where, stored.rows, stored.cols);
  stored.kept = fields.integer("kept");
  const int64_t all = checked_mul(stored.rows, stored.cols, "block tensor");
  if (stored.kept < 0 || stored.kept > all || (!stored.coding && stored.kept != all))
    fail(ErrorCode::kCorrupt, "{}.kept is {} of {} weights", where, stored.kept, all);
  return stored;
}

std::vector<LayerShape> read_layers(const JsonFields& section, std::string_view what, const ModelConfig& config) {
  const json* list = section.find("layers");
  if (list == nullptr || !list->is_array() || static_cast<int64_t>(list->size()) != config.layers)
    fail(ErrorCode::kCorrupt, "{}: brick.layers is no list of {} layers", what, config.layers);
  std::vector<LayerShape> layers;
  for (const json& layer : *list) {
    if (!layer.is_object()) fail(ErrorCode::kCorrupt, "{}: brick.layers[{}] is no object", what, layers.size());
    const std::string where = fmt::format("{}: brick.layers[{}]", what, layers.size());
    const JsonFields fields(layer, where);
    layers.push_back(
        {fields.integer("heads"), fields.integer("kv_heads"), fields.integer("head_dim"), fields.integer("ffn")});
    const LayerShape& s = layers.back();
    for (int64_t size : {s.heads, s.kv_heads, s.head_dim, s.ffn})
      if (size <= 0 || size > kLargestDimension) fail(ErrorCode::kCorrupt, "{} has the size {}", where, size);
  }
  return layers;
}

// Of a narrowed block; the kept channels are in their tensor.
std::optional<StreamCut> read_stream(const JsonFields& section, std::string_view what) {
  const json* stream = section.find("stream");
  if (stream == nullptr) return std::nullopt;
  if (!stream->is_object()) fail(ErrorCode::kCorrupt, "{}: brick.stream is no object", what);
  const std::string where = fmt::format("{}: brick.stream", what);
  const JsonFields fields(*stream, where);
  return StreamCut{fields.integer("parent_hidden"), {}, fields.text("fingerprint")};
}

// Which layers of the parent there are, and how wide they were; the kept indices are in the tensors.
std::optional<Cut> read_cut(const JsonFields& section, std::string_view what, const std::vector<LayerShape>& shapes) {
  if (section.find("parent_layers") == nullptr) return std::nullopt;
  Cut cut{section.integer("parent_layers"), {}, read_stream(section, what)};
  const json& list = *section.find("layers");
  for (size_t i = 0; i < shapes.size(); ++i) {
    const std::string where = fmt::format("{}: brick.layers[{}].parent", what, i);
    const auto parent = list[i].find("parent");
    if (parent == list[i].end() || !parent->is_object()) fail(ErrorCode::kCorrupt, "{} is no object", where);
    const JsonFields fields(*parent, where);
    cut.layers.push_back(
        {fields.integer("layer"),
         {fields.integer("heads"), fields.integer("kv_heads"), shapes[i].head_dim, fields.integer("ffn")},
         {},
         {},
         {}});
  }
  return cut;
}

std::vector<float> read_frequencies(const JsonFields& section, std::string_view what, const ModelConfig& config) {
  const json* list = section.find("inverse_frequency");
  if (list == nullptr || !list->is_array() || static_cast<int64_t>(list->size()) != config.head_dim / 2)
    fail(ErrorCode::kCorrupt, "{}: brick.inverse_frequency is no list of {} numbers", what, config.head_dim / 2);
  std::vector<float> frequencies;
  for (const json& value : *list) {
    if (!value.is_number() || !std::isfinite(value.get<float>()) || value.get<float>() <= 0)
      fail(ErrorCode::kCorrupt, "{}: brick.inverse_frequency has {}", what, value.dump());
    frequencies.push_back(value.get<float>());
  }
  return frequencies;
}

}  // namespace

bool is_block_config(const json& config) { return config.is_object() && config.contains("brick"); }

BlockSection read_block_section(const json& config, std::string_view what) {
  const json& object = config.at("brick");
  if (!object.is_object()) fail(ErrorCode::kCorrupt, "{}: brick is no object", what);
  const std::string where = fmt::format("{}: brick", what);
  const JsonFields section(object, where);
  if (const int64_t format = section.integer("format"); format != kBlockFormat)
    fail(ErrorCode::kUnsupported, "{}.format is {}, but this version reads {}; update brick", where, format,
         kBlockFormat);
  BlockSection out;
  json llama = config;
  llama["model_type"] = "llama";
  llama.erase("architectures");
  out.config = config_from_hf(llama, what);
  out.config.inverse_frequency = read_frequencies(section, what, out.config);
  out.layers = read_layers(section, what, out.config);
  out.spec.method = section.text_or("method", "");
  out.spec.pattern = section.text_or("pattern", "");
  out.spec.sparsity = section.double_or("sparsity", 0);
  out.spec.values = section.text_or("values", "");
  out.spec.parent = section.text_or("parent", "");
  out.spec.mask_hash = section.text_or("mask_hash", "");
  out.spec.cut = read_cut(section, what, out.layers);
  out.spec.provenance = section.text_or("provenance", "");
  const json* tensors = section.find("tensors");
  if (tensors == nullptr || !tensors->is_object())
    fail(ErrorCode::kCorrupt, "{}.tensors is missing or no object", where);
  for (const auto& [name, stored] : tensors->items()) out.tensors.emplace(name, read_stored(name, stored, what));
  return out;
}

json block_config(const Model& model) {
  json section{{"format", kBlockFormat},
               {"method", model.block.method},
               {"pattern", model.block.pattern},
               {"sparsity", model.block.sparsity},
               {"values", model.block.values},
               {"parent", model.block.parent},
               {"mask_hash", mask_hash(model)},
               {"provenance", model.block.provenance},
               {"inverse_frequency", model.config.inverse_frequency},
               {"layers", json::array()},
               {"tensors", json::object()}};
  for (const Layer& layer : model.layers)
    section["layers"].push_back({{"heads", layer.shape.heads},
                                 {"kv_heads", layer.shape.kv_heads},
                                 {"head_dim", layer.shape.head_dim},
                                 {"ffn", layer.shape.ffn}});
  if (model.block.cut) {
    section["parent_layers"] = model.block.cut->parent_layers;
    for (size_t i = 0; i < model.layers.size(); ++i) {
      const LayerCut& cut = model.block.cut->layers[i];
      section["layers"][i]["parent"] = {{"layer", cut.layer},
                                        {"heads", cut.parent.heads},
                                        {"kv_heads", cut.parent.kv_heads},
                                        {"ffn", cut.parent.ffn}};
    }
    if (const auto& stream = model.block.cut->stream)
      section["stream"] = {{"parent_hidden", stream->parent}, {"fingerprint", stream->fingerprint}};
  }
  for_each_matrix(model, [&](const std::string& name, const tensor::Matrix& weight) {
    section["tensors"][name] = stored_json(weight);
  });
  json config = config_to_hf(model.config);
  config["model_type"] = kModelType;
  config["brick"] = std::move(section);
  return config;
}

}  // namespace brick::model
