#include <cstring>

#include "brick/base/checked.h"
#include "brick/base/error.h"
#include "brick/model/block_format.h"
#include "brick/model/load_parts.h"

namespace brick::model {
namespace {

using Set = std::shared_ptr<const io::SafetensorsSet>;

tensor::TensorView read(const Set& set, const std::string& name, tensor::DType dtype, const tensor::Shape& shape) {
  const tensor::TensorView view = set->tensor(name);
  if (view.dtype != dtype || view.shape != shape)
    fail(ErrorCode::kCorrupt, "{}: {} is {} [{}], but config.json asks for {} [{}]", set->name(), name,
         tensor::name(view.dtype), fmt::join(view.shape, ", "), tensor::name(dtype), fmt::join(shape, ", "));
  return view;
}

std::vector<int32_t> read_indices(const Set& set, const std::string& name, int64_t count) {
  const tensor::TensorView view = read(set, name, tensor::DType::kI32, {count});
  std::vector<int32_t> indices(static_cast<size_t>(count));
  std::memcpy(indices.data(), view.bytes.data(), view.bytes.size());
  return indices;
}

// The mask's words, copied where the file does not align them; `keep` then owns the copy too.
const uint64_t* aligned_words(std::span<const std::byte> bytes, std::shared_ptr<const void>& keep) {
  if (reinterpret_cast<uintptr_t>(bytes.data()) % alignof(uint64_t) == 0)
    return reinterpret_cast<const uint64_t*>(bytes.data());
  struct Copy {
    std::vector<uint64_t> words;
    std::shared_ptr<const void> file;
  };
  auto copy = std::make_shared<Copy>(Copy{std::vector<uint64_t>(bytes.size() / sizeof(uint64_t)), keep});
  std::memcpy(copy->words.data(), bytes.data(), bytes.size());
  keep = copy;
  return copy->words.data();
}

tensor::Matrix read_sparse(const Set& set, const std::string& name, const StoredMatrix& stored) {
  const int64_t row_bytes = 8 * tensor::mask_words(stored.cols);
  const tensor::TensorView mask = read(set, name + ".mask", tensor::DType::kU8, {stored.rows, row_bytes});
  const tensor::TensorView values = set->tensor(name + ".values");
  const bool typed = stored.coding == tensor::SparseCoding::kValues;
  if (values.shape.size() != 1 || values.dtype != (typed ? stored.dtype : tensor::DType::kU8))
    fail(ErrorCode::kCorrupt, "{}: {}.values is {} of {} dimensions, expected one of {}", set->name(), name,
         tensor::name(values.dtype), values.shape.size(), typed ? tensor::name(stored.dtype) : "u8");
  std::shared_ptr<const void> keep = set;
  const uint64_t* words = aligned_words(mask.bytes, keep);
  tensor::SparseMatrix weight = tensor::SparseMatrix::wrap({words, stored.rows, stored.cols}, *stored.coding,
                                                           stored.dtype, values.bytes, std::move(keep));
  if (weight.nonzeros() != stored.kept)
    fail(ErrorCode::kCorrupt, "the mask keeps {} weights, but config.json says {}", weight.nonzeros(), stored.kept);
  return tensor::Matrix::sparse(std::move(weight));
}

tensor::Matrix read_dense(const Set& set, const std::string& name, const StoredMatrix& stored) {
  tensor::TensorView view;
  if (tensor::is_quantised(stored.dtype)) {
    view = read(set, name, tensor::DType::kU8, {stored.rows, tensor::row_bytes(stored.dtype, stored.cols)});
    view.dtype = stored.dtype;
    view.shape = {stored.rows, stored.cols};
  } else {
    view = read(set, name, stored.dtype, {stored.rows, stored.cols});
  }
  return tensor::Matrix::dense(view, set);
}

}  // namespace

Model load_block_weights(const std::string& folder, const nlohmann::json& config) {
  BlockSection section = read_block_section(config, folder + "/config.json");
  const Set set = std::make_shared<const io::SafetensorsSet>(io::SafetensorsSet::open(folder));
  std::vector<std::string> known;
  const auto matrix = [&](const std::string& name, bool may_be_sparse) {
    const auto stored = section.tensors.find(name);
    if (stored == section.tensors.end())
      fail(ErrorCode::kCorrupt, "{}/config.json: brick.tensors lacks {}", folder, name);
    const bool sparse = stored->second.coding.has_value();
    if (sparse && !may_be_sparse) fail(ErrorCode::kUnsupported, "{}: {} is sparse; embeddings are dense", folder, name);
    if (sparse) {
      known.push_back(name + ".mask");
      known.push_back(name + ".values");
    } else {
      known.push_back(name);
    }
    try {
      return sparse ? read_sparse(set, name, stored->second) : read_dense(set, name, stored->second);
    } catch (const Error& e) {
      if (std::string_view(e.what()).find(name) != std::string_view::npos) throw;
      throw Error(e.code(), fmt::format("{}: {}: {}", set->name(), name, e.what()));
    }
  };
  const auto norm = [&](const std::string& name) {
    known.push_back(name);
    return load_norm(set->name(), name, set->tensor(name));
  };

  const auto bias = [&](const std::string& name) {
    return set->find_tensor(name) != nullptr ? norm(name) : std::vector<float>();
  };

  Model model;
  model.config = std::move(section.config);
  model.block = std::move(section.spec);
  const auto read_cut = [&](int64_t layer, const LayerShape& shape) {
    LayerCut& cut = model.block.cut->layers[static_cast<size_t>(layer)];
    const std::array<std::string, 3> names = kept_names(layer);
    cut.heads = read_indices(set, names[0], shape.heads);
    cut.kv_heads = read_indices(set, names[1], shape.kv_heads);
    cut.neurons = read_indices(set, names[2], shape.ffn);
    known.insert(known.end(), names.begin(), names.end());
  };
  model.embedding = matrix("model.embed_tokens.weight", false);
  if (!model.config.tied_head) model.own_head = matrix("lm_head.weight", false);
  model.final_norm = norm("model.norm.weight");
  for (int64_t i = 0; i < model.config.layers; ++i) {
    Layer layer;
    layer.shape = section.layers[static_cast<size_t>(i)];
    layer.attention_norm = norm(attention_norm_name(i));
    layer.ffn_norm = norm(ffn_norm_name(i));
    for (Proj proj : kProjs) layer[proj] = matrix(weight_name(i, proj), true);
    layer.o_bias = bias(bias_name(i, Proj::kO));
    layer.down_bias = bias(bias_name(i, Proj::kDown));
    if (model.block.cut) read_cut(i, layer.shape);
    model.layers.push_back(std::move(layer));
  }
  if (model.block.cut) {
    if (std::optional<StreamCut>& stream = model.block.cut->stream) {
      stream->channels = read_indices(set, kKeptChannels, model.config.hidden);
      known.emplace_back(kKeptChannels);
    }
    check_cut(*model.block.cut, section.layers, model.config.hidden, folder);
  }
  refuse_others(*set, known);
  model.drop_pages = [set] { set->drop_pages(); };
  if (const std::string found = mask_hash(model); found != model.block.mask_hash)
    fail(ErrorCode::kCorrupt, "{}: the masks hash to '{}', but config.json says '{}': the block was altered", folder,
         found.substr(0, 12), model.block.mask_hash.substr(0, 12));
  return model;
}

}  // namespace brick::model
