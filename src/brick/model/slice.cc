#include <algorithm>
#include <cstring>

#include "brick/base/error.h"
#include "brick/base/parallel.h"
#include "brick/kernels/linear.h"
#include "brick/model/cut.h"
#include "brick/model/model.h"
#include "brick/tensor/pack.h"

namespace brick::model {
namespace {

using tensor::DType;
using tensor::Matrix;

constexpr int64_t kRowGrain = 16;

using Kept = std::optional<std::vector<int32_t>>;

int64_t count(const Kept& kept, int64_t all) { return kept ? static_cast<int64_t>(kept->size()) : all; }
int64_t place(const Kept& kept, int64_t i) { return kept ? (*kept)[static_cast<size_t>(i)] : i; }

// None: as the weight has them.
std::optional<DType> dtype_of(const std::string& values) {
  if (values == "f32") return DType::kF32;
  if (values == "bf16") return DType::kBF16;
  if (values == "q4") return DType::kQ4_1;
  if (values == "keep") return std::nullopt;
  fail(ErrorCode::kInvalidInput, "values '{}': expected f32, bf16, q4 or keep", values);
}

// The kept columns as whole quantised blocks; Error where they are none.
std::vector<int32_t> kept_blocks(const std::vector<int32_t>& cols, DType dtype, const std::string& name) {
  constexpr int32_t kBlock = tensor::kQuantBlock;
  std::vector<int32_t> blocks;
  for (size_t i = 0; i < cols.size(); ++i) {
    const auto within = static_cast<int32_t>(i % kBlock);
    if (within == 0) blocks.push_back(cols[i] / kBlock);
    if (cols[i] != blocks.back() * kBlock + within || cols.size() % kBlock != 0)
      fail(ErrorCode::kUnsupported,
           "{}: its {} columns go in blocks of {}, which this cut takes apart; use --values bf16, f32 or q4", name,
           tensor::name(dtype), kBlock);
  }
  return blocks;
}

// Encoded rows and blocks, moved as they are.
Matrix take_encoded(const Matrix& weight, const Kept& rows, const Kept& cols, const std::string& name) {
  const tensor::DenseView from = weight.dense_view();
  const Kept blocks = cols ? Kept(kept_blocks(*cols, from.dtype, name)) : std::nullopt;
  tensor::Tensor out(from.dtype, {count(rows, from.rows), count(cols, from.cols)});
  const auto block_bytes = static_cast<size_t>(tensor::info(from.dtype).block_bytes);
  const auto stride = static_cast<size_t>(tensor::row_bytes(from.dtype, count(cols, from.cols)));
  for (int64_t r = 0; r < count(rows, from.rows); ++r) {
    const std::byte* source = from.row(place(rows, r));
    std::byte* target = out.bytes().data() + static_cast<size_t>(r) * stride;
    if (!blocks) {
      std::memcpy(target, source, stride);
      continue;
    }
    for (size_t b = 0; b < blocks->size(); ++b)
      std::memcpy(target + b * block_bytes, source + static_cast<size_t>((*blocks)[b]) * block_bytes, block_bytes);
  }
  return Matrix::dense(std::move(out));
}

Matrix take_decoded(const Matrix& weight, const Kept& rows, const Kept& cols, DType dtype) {
  const int64_t height = count(rows, weight.rows()), width = count(cols, weight.cols());
  tensor::Tensor out(dtype, {height, width});
  const auto stride = static_cast<size_t>(tensor::row_bytes(dtype, width));
  parallel_ranges(height, kRowGrain, [&](int64_t begin, int64_t end) {
    std::vector<float> row(static_cast<size_t>(weight.cols()));
    std::vector<float> kept(static_cast<size_t>(width));
    for (int64_t r = begin; r < end; ++r) {
      kernels::expand_row(weight, place(rows, r), row.data());
      for (int64_t c = 0; c < width; ++c) kept[static_cast<size_t>(c)] = row[static_cast<size_t>(place(cols, c))];
      tensor::pack(dtype, kept.data(), width, out.bytes().data() + static_cast<size_t>(r) * stride);
    }
  });
  return Matrix::dense(std::move(out));
}

Matrix take(const Matrix& weight, const Kept& rows, const Kept& cols, std::optional<DType> dtype,
            const std::string& name) {
  const bool all = count(rows, weight.rows()) == weight.rows() && count(cols, weight.cols()) == weight.cols();
  if (all && (weight.is_sparse() || !dtype || *dtype == weight.dtype())) return weight;
  if (weight.is_sparse())
    fail(ErrorCode::kUnsupported, "{} is masked; cut structures out first and prune what is left", name);
  if (dtype && tensor::is_quantised(*dtype) && count(cols, weight.cols()) % tensor::kQuantBlock != 0)
    fail(ErrorCode::kUnsupported, "{}: rows of {} weights are no blocks of {}; use --values bf16 or f32", name,
         count(cols, weight.cols()), tensor::kQuantBlock);
  if (!dtype && tensor::is_quantised(weight.dtype())) return take_encoded(weight, rows, cols, name);
  return take_decoded(weight, rows, cols, dtype.value_or(weight.dtype()));
}

std::vector<int32_t> composed(const std::vector<int32_t>& outer, const std::vector<int32_t>& inner) {
  std::vector<int32_t> out;
  for (const int32_t i : inner) out.push_back(outer[static_cast<size_t>(i)]);
  return out;
}

// `cut` counts in the model; the result in the model's first parent.
Cut in_first_parent(const Model& model, const Cut& cut) {
  if (!model.block.cut) return cut;
  const Cut& before = *model.block.cut;
  Cut out{before.parent_layers, {}, cut.stream ? cut.stream : before.stream};
  if (cut.stream && before.stream)
    out.stream = {before.stream->parent, composed(before.stream->channels, cut.stream->channels),
                  before.stream->fingerprint};
  for (const LayerCut& inner : cut.layers) {
    const LayerCut& outer = before.layers[static_cast<size_t>(inner.layer)];
    out.layers.push_back({outer.layer, outer.parent, composed(outer.heads, inner.heads),
                          composed(outer.kv_heads, inner.kv_heads), composed(outer.neurons, inner.neurons)});
  }
  return out;
}

std::vector<float> entries(const std::vector<float>& all, const std::vector<int32_t>& kept) {
  std::vector<float> out;
  if (!all.empty())
    for (const int32_t i : kept) out.push_back(all[static_cast<size_t>(i)]);
  return out;
}

// Of what is not in a layer, the kept channels.
void narrow_ends(const Model& model, const std::vector<int32_t>& channels, std::optional<DType> dtype, Model& out) {
  if (dtype == DType::kQ4_1) dtype = DType::kQ8_0;
  out.config.hidden = static_cast<int64_t>(channels.size());
  out.embedding = take(model.embedding, {}, channels, dtype, "model.embed_tokens.weight");
  if (model.own_head) out.own_head = take(*model.own_head, {}, channels, dtype, "lm_head.weight");
  out.final_norm = entries(model.final_norm, channels);
}

}  // namespace

Model slice(const Model& model, const Cut& cut, const std::string& values) {
  const std::optional<DType> dtype = dtype_of(values);
  Model out = model;
  out.layers.clear();
  std::vector<LayerShape> shapes;
  for (const LayerCut& kept : cut.layers)
    shapes.push_back({static_cast<int64_t>(kept.heads.size()), static_cast<int64_t>(kept.kv_heads.size()),
                      kept.parent.head_dim, static_cast<int64_t>(kept.neurons.size())});
  check_cut(cut, shapes, cut.stream ? static_cast<int64_t>(cut.stream->channels.size()) : model.config.hidden, "cut");
  if (cut.stream) narrow_ends(model, cut.stream->channels, dtype, out);
  for (size_t i = 0; i < shapes.size(); ++i) {
    const LayerCut& kept = cut.layers[i];
    Layer layer = model.layers[static_cast<size_t>(kept.layer)];
    layer.shape = shapes[i];
    for (Proj proj : kProjs)
      layer[proj] = take(layer[proj], kept_rows(cut, kept, proj), kept_cols(cut, kept, proj), dtype,
                         weight_name(kept.layer, proj));
    if (cut.stream)
      for (std::vector<float>* of_stream : {&layer.attention_norm, &layer.ffn_norm, &layer.o_bias, &layer.down_bias})
        *of_stream = entries(*of_stream, cut.stream->channels);
    out.layers.push_back(std::move(layer));
    model.drop_pages();
  }
  out.config.layers = static_cast<int64_t>(out.layers.size());
  out.block = {};
  out.block.cut = in_first_parent(model, cut);
  return out;
}

}  // namespace brick::model
