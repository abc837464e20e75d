#include <cstring>
#include <set>

#include "brick/base/error.h"
#include "brick/model/gguf_layout.h"
#include "brick/model/load_parts.h"
#include "brick/text/utf8.h"

namespace brick::model {
namespace {

// Whole rows are encoded by themselves, so they are moved as they are.
tensor::Matrix reorder_rows(const tensor::Matrix& stored, int64_t head_dim) {
  const tensor::DenseView from = stored.dense_view();
  tensor::Tensor to(from.dtype, {from.rows, from.cols});
  const auto stride = static_cast<size_t>(from.stride_bytes());
  for (int64_t r = 0; r < from.rows; ++r)
    std::memcpy(to.bytes().data() + static_cast<size_t>(r) * stride, from.row(gguf_row(r, head_dim)), stride);
  return tensor::Matrix::dense(std::move(to));
}

void refuse_other_tensors(const io::GgufFile& file, int64_t layers) {
  std::set<std::string> known{"token_embd.weight", "output_norm.weight", "output.weight", "rope_freqs.weight"};
  for (int64_t i = 0; i < layers; ++i) {
    for (Proj proj : kProjs) known.insert(gguf_name(i, proj));
    known.insert(gguf_name(i, "attn_norm"));
    known.insert(gguf_name(i, "ffn_norm"));
    for (Proj proj : {Proj::kO, Proj::kDown}) known.insert(gguf_bias_name(i, proj));
  }
  for (const io::GgufTensorInfo& tensor : file.tensors())
    if (!known.contains(tensor.name))
      fail(
          ErrorCode::kUnsupported,
          "{}: tensor {} is no part of a llama without experts and biases of its inputs; such models are not supported",
          file.name(), text::printable(tensor.name));
}

}  // namespace

Model load_gguf_weights(const io::GgufFile& file) {
  GgufShape shape = read_gguf_shape(file);
  refuse_other_tensors(file, shape.config.layers);
  Model model;
  model.config = std::move(shape.config);
  const auto matrix = [&](const std::string& name) {
    return load_matrix(file.name(), name, file.tensor(name), file.file());
  };
  const auto norm = [&](const std::string& name) { return load_norm(file.name(), name, file.tensor(name)); };

  const auto bias = [&](const std::string& name) {
    return file.find_tensor(name) != nullptr ? norm(name) : std::vector<float>();
  };

  model.embedding = matrix("token_embd.weight");
  if (!model.config.tied_head) model.own_head = matrix("output.weight");
  model.final_norm = norm("output_norm.weight");
  for (int64_t i = 0; i < model.config.layers; ++i) {
    const auto index = static_cast<size_t>(i);
    Layer layer;
    layer.shape = {shape.heads[index], shape.kv_heads[index], model.config.head_dim, shape.ffn[index]};
    layer.attention_norm = norm(gguf_name(i, "attn_norm"));
    layer.ffn_norm = norm(gguf_name(i, "ffn_norm"));
    layer.o_bias = bias(gguf_bias_name(i, Proj::kO));
    layer.down_bias = bias(gguf_bias_name(i, Proj::kDown));
    for (Proj proj : kProjs) {
      layer[proj] = matrix(gguf_name(i, proj));
      if (proj != Proj::kQ && proj != Proj::kK) continue;
      if (layer[proj].rows() % model.config.head_dim != 0)
        fail(ErrorCode::kCorrupt, "{}: {} has {} rows, no multiple of head size {}", file.name(), gguf_name(i, proj),
             layer[proj].rows(), model.config.head_dim);
      layer[proj] = reorder_rows(layer[proj], model.config.head_dim);
    }
    model.layers.push_back(std::move(layer));
  }
  model.drop_pages = [mapped = file.file()] { mapped->drop_pages(mapped->bytes()); };
  model.drop_pages();  // of the rows that were copied
  return model;
}

}  // namespace brick::model
