#include <filesystem>

#include "brick/io/json_file.h"
#include "brick/io/safetensors.h"
#include "brick/model/block_format.h"
#include "brick/model/load_parts.h"
#include "brick/model/model_card.h"
#include "brick/model/save.h"
#include "brick/model/save_parts.h"

namespace brick::model {
namespace {

using tensor::DType;

void add_vector(io::SafetensorsWriter& writer, const std::string& name, const std::vector<float>& values) {
  writer.add_tensor(name, DType::kF32, {static_cast<int64_t>(values.size())},
                    io::source_of(std::as_bytes(std::span(values))));
}

void add_kept(io::SafetensorsWriter& writer, const std::string& name, const std::vector<int32_t>& indices) {
  writer.add_tensor(name, DType::kI32, {static_cast<int64_t>(indices.size())},
                    io::source_of(std::as_bytes(std::span(indices))));
}

void add_values(io::SafetensorsWriter& writer, const std::string& name, const tensor::SparseMatrix& weight) {
  const std::span<const std::byte> bytes = weight.value_bytes();
  const tensor::SparseView view = weight.view();
  const bool typed = view.coding == tensor::SparseCoding::kValues;
  writer.add_tensor(name + ".values", typed ? view.dtype : DType::kU8,
                    {typed ? weight.nonzeros() : static_cast<int64_t>(bytes.size())}, io::source_of(bytes));
}

void add_dense(io::SafetensorsWriter& writer, const std::string& name, const tensor::Matrix& weight) {
  tensor::TensorView view = weight.tensor_view();
  if (tensor::is_quantised(view.dtype)) {
    view.shape = {weight.rows(), weight.dense_view().stride_bytes()};
    view.dtype = DType::kU8;
  }
  writer.add_tensor(name, view);
}

}  // namespace

void save_block(const Model& model, const std::string& folder) {
  const std::filesystem::path path(folder);
  io::SafetensorsWriter writer;
  writer.set_metadata("format", "brickwork block");
  // Masks first: after float32 values they are then aligned to their words.
  for_each_matrix(model, [&](const std::string& name, const tensor::Matrix& weight) {
    if (!weight.is_sparse()) return;
    const tensor::MaskView mask = weight.sparse_view().mask;
    writer.add_tensor(name + ".mask", DType::kU8, {mask.rows, 8 * tensor::mask_words(mask.cols)},
                      io::source_of(mask.bytes()));
  });
  for_each_matrix(model, [&](const std::string& name, const tensor::Matrix& weight) {
    if (weight.is_sparse())
      add_values(writer, name, weight.sparse_matrix());
    else
      add_dense(writer, name, weight);
  });
  for (size_t i = 0; i < model.layers.size(); ++i) {
    const auto index = static_cast<int64_t>(i);
    const Layer& layer = model.layers[i];
    add_vector(writer, attention_norm_name(index), layer.attention_norm);
    add_vector(writer, ffn_norm_name(index), layer.ffn_norm);
    if (!layer.o_bias.empty()) add_vector(writer, bias_name(index, Proj::kO), layer.o_bias);
    if (!layer.down_bias.empty()) add_vector(writer, bias_name(index, Proj::kDown), layer.down_bias);
    if (!model.block.cut) continue;
    const LayerCut& cut = model.block.cut->layers[i];
    const std::array<std::string, 3> names = kept_names(index);
    add_kept(writer, names[0], cut.heads);
    add_kept(writer, names[1], cut.kv_heads);
    add_kept(writer, names[2], cut.neurons);
  }
  if (model.block.cut && model.block.cut->stream) add_kept(writer, kKeptChannels, model.block.cut->stream->channels);
  add_vector(writer, "model.norm.weight", model.final_norm);
  writer.write(path / "model.safetensors");
  io::write_json_file(path / "config.json", block_config(model));
  write_tokenizer_files(model, folder);
  write_model_card(model, CardFor::kBrick, folder);
}

}  // namespace brick::model
