#include <algorithm>
#include <cctype>
#include <filesystem>
#include <vector>

#include "brick/base/checked.h"
#include "brick/base/error.h"
#include "brick/io/gguf.h"
#include "brick/io/safetensors.h"
#include "brick/kernels/linear.h"
#include "brick/kernels/vector_ops.h"
#include "brick/model/block_format.h"
#include "brick/model/gguf_layout.h"
#include "brick/model/hf_config.h"
#include "brick/model/load_parts.h"

namespace brick::model {
namespace {

namespace fs = std::filesystem;

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

// Adds up tensors, whatever the file calls their types.
class Tally {
 public:
  explicit Tally(ModelSummary& summary) : summary_(summary) {}

  void add(const std::string& dtype, int64_t count, int64_t kept, int64_t bytes, bool linear) {
    summary_.parameters = checked_add(summary_.parameters, count, "parameters");
    summary_.nonzeros = checked_add(summary_.nonzeros, kept, "nonzeros");
    summary_.bytes += bytes;
    ++summary_.tensors_by_dtype[dtype];
    if (linear) linear_[dtype] += count;
  }
  // The dtype that most of the layers' linear weights have.
  std::string commonest() const {
    const auto most = std::max_element(linear_.begin(), linear_.end(),
                                       [](const auto& a, const auto& b) { return a.second < b.second; });
    return most == linear_.end() ? std::string() : most->first;
  }

 private:
  ModelSummary& summary_;
  std::map<std::string, int64_t> linear_;
};

bool is_linear(const std::string& hf_name) { return hf_name.ends_with("_proj.weight"); }

void describe(const ModelConfig& config, ModelSummary& summary) {
  summary.architecture = "llama";
  summary.layers = config.layers;
  summary.hidden = config.hidden;
  summary.heads = config.heads;
  summary.kv_heads = config.kv_heads;
  summary.ffn = config.ffn;
  summary.vocab = config.vocab;
}

// Where layers differ, the widest counts.
void describe_layers(const std::vector<LayerShape>& layers, bool cut, ModelSummary& summary) {
  for (const LayerShape& layer : layers)
    if (cut || layer != layers.front()) summary.widths = layers;
  summary.heads = summary.kv_heads = summary.ffn = 0;
  for (const LayerShape& layer : layers) {
    summary.heads = std::max(summary.heads, layer.heads);
    summary.kv_heads = std::max(summary.kv_heads, layer.kv_heads);
    summary.ffn = std::max(summary.ffn, layer.ffn);
  }
}

void summarise_gguf(const std::string& path, ModelSummary& summary) {
  const io::GgufFile file = open_gguf(path);
  describe(read_gguf_shape(file).config, summary);
  Tally tally(summary);
  for (const io::GgufTensorInfo& tensor : file.tensors()) {
    if (tensor.name == "rope_freqs.weight") continue;
    const int64_t count = tensor::element_count(tensor.shape);
    tally.add(lower(io::ggml_type_name(tensor.ggml_type)), count, count, static_cast<int64_t>(tensor.bytes),
              tensor.name.starts_with("blk.") && tensor.shape.size() == 2);
  }
  summary.dtype = tally.commonest();
}

void summarise_hf(const std::string& path, const nlohmann::json& json, ModelSummary& summary) {
  const ModelConfig config = config_from_hf(json, path + "/config.json");
  describe(config, summary);
  const io::SafetensorsSet set = io::SafetensorsSet::open(path);
  Tally tally(summary);
  for (const std::string& name : set.names()) {
    const io::SafetensorInfo& tensor = *set.find_tensor(name);
    if (name.ends_with("rotary_emb.inv_freq") || (config.tied_head && name == "lm_head.weight")) continue;
    const int64_t count = tensor::element_count(tensor.shape);
    tally.add(lower(tensor.dtype), count, count, static_cast<int64_t>(tensor.bytes), is_linear(name));
  }
  summary.dtype = tally.commonest();
}

void summarise_block(const std::string& path, const nlohmann::json& json, ModelSummary& summary) {
  BlockSection section = read_block_section(json, path + "/config.json");
  describe(section.config, summary);
  describe_layers(section.layers, section.spec.cut.has_value(), summary);
  summary.block = std::move(section.spec);
  const io::SafetensorsSet set = io::SafetensorsSet::open(path);
  const auto bytes_of = [&](const std::string& name) {
    const io::SafetensorInfo* tensor = set.find_tensor(name);
    if (tensor == nullptr) fail(ErrorCode::kNotFound, "{}: has no tensor {}", set.name(), name);
    return static_cast<int64_t>(tensor->bytes);
  };
  Tally tally(summary);
  for (const auto& [name, stored] : section.tensors) {
    const int64_t bytes = stored.coding ? bytes_of(name + ".mask") + bytes_of(name + ".values") : bytes_of(name);
    tally.add(std::string(tensor::name(stored.dtype)), stored.rows * stored.cols, stored.kept, bytes, is_linear(name));
  }
  for (const std::string& name : set.names()) {
    const io::SafetensorInfo& tensor = *set.find_tensor(name);
    if (!name.ends_with("norm.weight") && !name.ends_with(".bias")) continue;
    const int64_t count = tensor::element_count(tensor.shape);
    tally.add(lower(tensor.dtype), count, count, static_cast<int64_t>(tensor.bytes), false);
  }
  summary.dtype = tally.commonest();
}

int64_t count_nonzeros(const std::string& name, const float* values, int64_t count) {
  if (!kernels::all_finite(values, count)) fail(ErrorCode::kNumeric, "{} has weights that are not finite", name);
  return count - std::count(values, values + count, 0.0f);  // both zeros
}

int64_t scan_nonzeros(const Model& model) {
  int64_t nonzeros = 0;
  std::vector<float> piece;
  for_each_matrix(model, [&](const std::string& name, const tensor::Matrix& weight) {
    const int64_t step = kernels::rows_a_piece(weight);
    for (int64_t begin = 0; begin < weight.rows(); begin += step) {
      const int64_t end = std::min(begin + step, weight.rows());
      piece.resize(static_cast<size_t>((end - begin) * weight.cols()));
      kernels::expand_rows(weight, begin, end, piece.data());
      nonzeros += count_nonzeros(name, piece.data(), static_cast<int64_t>(piece.size()));
    }
  });
  const auto vector = [&](const std::vector<float>& values) {
    nonzeros += count_nonzeros("a norm or bias", values.data(), static_cast<int64_t>(values.size()));
  };
  for (const Layer& layer : model.layers) {
    vector(layer.attention_norm);
    vector(layer.ffn_norm);
    vector(layer.o_bias);
    vector(layer.down_bias);
  }
  vector(model.final_norm);
  return nonzeros;
}

}  // namespace

ModelSummary summarise(const std::string& path, bool scan) {
  ModelSummary summary;
  if (!fs::is_directory(path)) {
    summarise_gguf(path, summary);
  } else {
    const nlohmann::json json = read_config_json(path);
    if (is_block_config(json))
      summarise_block(path, json, summary);
    else
      summarise_hf(path, json, summary);
  }
  if (scan) {
    const Model model = load_model(path, {.tokenizer = false});
    try {
      summary.nonzeros = scan_nonzeros(model);
    } catch (const Error& error) {
      fail(error.code(), "{}: {}", path, error.what());
    }
  }
  return summary;
}

}  // namespace brick::model
