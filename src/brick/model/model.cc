#include "brick/model/model.h"

#include <algorithm>
#include <bit>

#include "brick/base/error.h"
#include "brick/base/sha256.h"
#include "brick/model/weight_shape.h"
#include "brick/tensor/dtype.h"

namespace brick::model {

static_assert(std::endian::native == std::endian::little, "hashes and block files are little-endian");

namespace {

constexpr int64_t kSampledRows = 64;

template <class Visit>
void for_each_weight(const Model& model, Visit&& visit) {
  visit(model.embedding);
  if (model.own_head) visit(*model.own_head);
  for (const Layer& layer : model.layers)
    for (const tensor::Matrix& weight : layer.projections) visit(weight);
}

// Norms and biases.
int64_t vector_parameters(const Model& model) {
  auto count = static_cast<int64_t>(model.final_norm.size());
  for (const Layer& layer : model.layers)
    for (const std::vector<float>* values : {&layer.attention_norm, &layer.ffn_norm, &layer.o_bias, &layer.down_bias})
      count += static_cast<int64_t>(values->size());
  return count;
}

void hash_as_bf16(Sha256& hash, const std::vector<float>& values) {
  std::vector<uint16_t> rounded;
  rounded.reserve(values.size());
  for (float value : values) rounded.push_back(tensor::f32_to_bf16(value));
  hash.update(std::as_bytes(std::span(rounded)));
}

void check_matrix(const tensor::Matrix& weight, const std::string& name, int64_t rows, int64_t cols) {
  if (weight.empty()) fail(ErrorCode::kCorrupt, "{} is missing", name);
  if (weight.rows() != rows || weight.cols() != cols)
    fail(ErrorCode::kCorrupt, "{} is {} x {}, but the configuration asks for {} x {}", name, weight.rows(),
         weight.cols(), rows, cols);
}

void check_vector(const std::vector<float>& weight, const std::string& name, int64_t size) {
  if (static_cast<int64_t>(weight.size()) != size)
    fail(ErrorCode::kCorrupt, "{} has {} values, but the configuration asks for {}", name, weight.size(), size);
}

void check_layer(const ModelConfig& config, const Layer& layer, int64_t index) {
  const LayerShape& s = layer.shape;
  if (s.heads <= 0 || s.kv_heads <= 0 || s.ffn <= 0 || s.heads % s.kv_heads != 0)
    fail(ErrorCode::kCorrupt, "layer {}: {} heads, {} key/value heads and feed-forward size {} make no layer", index,
         s.heads, s.kv_heads, s.ffn);
  if (s.head_dim != config.head_dim)
    fail(ErrorCode::kCorrupt, "layer {}: head size {}, but the configuration asks for {}", index, s.head_dim,
         config.head_dim);
  const int64_t d = config.hidden;
  for (Proj proj : kProjs) {
    const auto [rows, cols] = weight_shape(s, d, proj);
    check_matrix(layer[proj], weight_name(index, proj), rows, cols);
  }
  check_vector(layer.attention_norm, fmt::format("model.layers.{}.input_layernorm.weight", index), d);
  check_vector(layer.ffn_norm, fmt::format("model.layers.{}.post_attention_layernorm.weight", index), d);
  if (!layer.o_bias.empty()) check_vector(layer.o_bias, bias_name(index, Proj::kO), d);
  if (!layer.down_bias.empty()) check_vector(layer.down_bias, bias_name(index, Proj::kDown), d);
}

}  // namespace

int64_t Model::parameters() const {
  int64_t count = vector_parameters(*this);
  for_each_weight(*this, [&](const tensor::Matrix& weight) { count += weight.rows() * weight.cols(); });
  return count;
}

int64_t Model::nonzeros() const {
  int64_t count = vector_parameters(*this);
  for_each_weight(*this, [&](const tensor::Matrix& weight) { count += weight.nonzeros(); });
  return count;
}

int64_t Model::linear_parameters() const {
  int64_t count = 0;
  for (const Layer& layer : layers)
    for (const tensor::Matrix& weight : layer.projections) count += weight.rows() * weight.cols();
  return count;
}

int64_t Model::weight_bytes() const {
  int64_t bytes = vector_parameters(*this) * static_cast<int64_t>(sizeof(float));
  for_each_weight(*this, [&](const tensor::Matrix& weight) { bytes += weight.bytes(); });
  return bytes;
}

std::string fingerprint(const Model& model) {
  if (model.block.cut && model.block.cut->stream) return model.block.cut->stream->fingerprint;
  const ModelConfig& config = model.config;
  Sha256 hash;
  hash.update(fmt::format("brick model {} {} {}\n", config.vocab, config.hidden, config.head_dim));
  hash_as_bf16(hash, model.final_norm);
  const int64_t rows = std::min(model.embedding.rows(), kSampledRows);
  std::vector<float> row(static_cast<size_t>(model.embedding.cols()));
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t r = i * model.embedding.rows() / rows;
    model.embedding.unpack_rows(r, r + 1, row.data(), model.embedding.cols());
    hash_as_bf16(hash, row);
  }
  return hash.hex();
}

std::string mask_hash(const Model& model) {
  Sha256 hash;
  bool masked = false;
  for (size_t i = 0; i < model.layers.size(); ++i) {
    for (Proj proj : kProjs) {
      const tensor::Matrix& weight = model.layers[i][proj];
      if (!weight.is_sparse()) continue;
      masked = true;
      hash.update(fmt::format("{} {} {}\n", weight_name(static_cast<int64_t>(i), proj), weight.rows(), weight.cols()));
      hash.update(weight.sparse_view().mask.bytes());
    }
  }
  return masked ? hash.hex() : std::string();
}

std::string weights_hash(const Model& model) {
  Sha256 hash;
  for_each_weight(model, [&](const tensor::Matrix& weight) {
    hash.update(
        fmt::format("{} {} {} {}\n", weight.rows(), weight.cols(), tensor::name(weight.dtype()), weight.is_sparse()));
    if (weight.is_sparse())
      hash.update(weight.sparse_view().mask.bytes()).update(weight.sparse_matrix().value_bytes());
    else
      hash.update(weight.tensor_view().bytes);
  });
  const auto vector = [&](const std::vector<float>& values) { hash.update(std::as_bytes(std::span(values))); };
  for (const Layer& layer : model.layers)
    for (const std::vector<float>* values : {&layer.attention_norm, &layer.ffn_norm, &layer.o_bias, &layer.down_bias})
      vector(*values);
  vector(model.final_norm);
  return hash.hex();
}

void check_shapes(const Model& model) {
  const ModelConfig& config = model.config;
  config.validate();
  check_matrix(model.embedding, "model.embed_tokens.weight", config.vocab, config.hidden);
  if (config.tied_head == model.own_head.has_value())
    fail(ErrorCode::kCorrupt, "lm_head.weight is {}, but the configuration says that the head is {}",
         model.own_head ? "present" : "missing", config.tied_head ? "the embedding" : "a matrix of its own");
  if (model.own_head) check_matrix(*model.own_head, "lm_head.weight", config.vocab, config.hidden);
  if (static_cast<int64_t>(model.layers.size()) != config.layers)
    fail(ErrorCode::kCorrupt, "{} layers, but the configuration asks for {}", model.layers.size(), config.layers);
  for (size_t i = 0; i < model.layers.size(); ++i) check_layer(config, model.layers[i], static_cast<int64_t>(i));
  check_vector(model.final_norm, "model.norm.weight", config.hidden);
}

}  // namespace brick::model
