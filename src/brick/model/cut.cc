#include "brick/model/cut.h"

#include <algorithm>
#include <numeric>

#include "brick/base/error.h"
#include "brick/base/sha256.h"
#include "brick/model/model.h"

namespace brick::model {
namespace {

constexpr int64_t kLargestWidth = int64_t{1} << 24;  // of a parent: its products fit 64 bits, its rows an int32_t

std::vector<int32_t> all_of(int64_t count) {
  std::vector<int32_t> indices(static_cast<size_t>(count));
  std::iota(indices.begin(), indices.end(), 0);
  return indices;
}

void check_indices(const std::vector<int32_t>& kept, int64_t width, int64_t parent_width, const std::string& where,
                   const char* kind) {
  if (static_cast<int64_t>(kept.size()) != width)
    fail(ErrorCode::kCorrupt, "{} keeps {} {}, but is {} wide", where, kept.size(), kind, width);
  for (size_t i = 0; i < kept.size(); ++i) {
    if (kept[i] < 0 || kept[i] >= parent_width)
      fail(ErrorCode::kCorrupt, "{} keeps number {} of the parent's {} {}", where, kept[i], parent_width, kind);
    if (i > 0 && kept[i] <= kept[i - 1])
      fail(ErrorCode::kCorrupt, "{} keeps {} {} behind {}: they must ascend", where, kind, kept[i], kept[i - 1]);
  }
}

void check_layer(const LayerCut& cut, const LayerShape& shape, const std::string& where) {
  const LayerShape& parent = cut.parent;
  if (parent.heads <= 0 || parent.kv_heads <= 0 || parent.ffn <= 0 || parent.heads % parent.kv_heads != 0 ||
      parent.head_dim != shape.head_dim || parent.heads > kLargestWidth / parent.head_dim || parent.ffn > kLargestWidth)
    fail(ErrorCode::kCorrupt, "{} has a parent of {} heads of {}, {} key/value heads and feed-forward size {}", where,
         parent.heads, parent.head_dim, parent.kv_heads, parent.ffn);
  check_indices(cut.heads, shape.heads, parent.heads, where, "heads");
  check_indices(cut.kv_heads, shape.kv_heads, parent.kv_heads, where, "key/value heads");
  check_indices(cut.neurons, shape.ffn, parent.ffn, where, "neurons");
  const int64_t now = shape.heads / shape.kv_heads, before = parent.heads / parent.kv_heads;
  for (int64_t i = 0; i < shape.heads; ++i)
    if (const int64_t head = cut.heads[static_cast<size_t>(i)];
        shape.heads % shape.kv_heads != 0 || head / before != cut.kv_heads[static_cast<size_t>(i / now)])
      fail(ErrorCode::kCorrupt, "{} keeps head {} without the key/value head that it had", where, head);
}

void check_stream(const StreamCut& stream, int64_t hidden, const std::string& where) {
  if (stream.parent <= 0 || stream.parent > kLargestWidth)
    fail(ErrorCode::kCorrupt, "{} has a parent of width {}", where, stream.parent);
  check_indices(stream.channels, hidden, stream.parent, where, "channels");
}

std::optional<std::vector<int32_t>> kept_channels(const Cut& cut) {
  return cut.stream ? std::optional(cut.stream->channels) : std::nullopt;
}

std::vector<int32_t> rows_of_heads(const std::vector<int32_t>& heads, int64_t head_dim) {
  std::vector<int32_t> rows;
  rows.reserve(heads.size() * static_cast<size_t>(head_dim));
  for (const int32_t head : heads)
    for (int64_t i = 0; i < head_dim; ++i) rows.push_back(static_cast<int32_t>(head * head_dim + i));
  return rows;
}

}  // namespace

Cut whole_cut(const Model& model) {
  Cut cut{static_cast<int64_t>(model.layers.size()), {}, {}};
  for (size_t i = 0; i < model.layers.size(); ++i) {
    const LayerShape& shape = model.layers[i].shape;
    cut.layers.push_back(
        {static_cast<int64_t>(i), shape, all_of(shape.heads), all_of(shape.kv_heads), all_of(shape.ffn)});
  }
  return cut;
}

Cut channel_cut(const Model& model, std::vector<int32_t> channels) {
  Cut cut = whole_cut(model);
  cut.stream = {model.config.hidden, std::move(channels), fingerprint(model)};
  return cut;
}

void check_cut(const Cut& cut, std::span<const LayerShape> shapes, int64_t hidden, const std::string& what) {
  if (cut.stream) check_stream(*cut.stream, hidden, what + ": the residual stream");
  if (cut.layers.size() != shapes.size())
    fail(ErrorCode::kCorrupt, "{}: {} layers were cut from the parent, but there are {}", what, cut.layers.size(),
         shapes.size());
  int64_t last = -1;
  for (size_t i = 0; i < shapes.size(); ++i) {
    const LayerCut& layer = cut.layers[i];
    const std::string where = fmt::format("{}: layer {}", what, i);
    if (layer.layer <= last || layer.layer >= cut.parent_layers)
      fail(ErrorCode::kCorrupt, "{} is the parent's layer {} of {}, behind {}", where, layer.layer, cut.parent_layers,
           last);
    last = layer.layer;
    check_layer(layer, shapes[i], where);
  }
}

std::optional<std::vector<int32_t>> kept_rows(const Cut& cut, const LayerCut& layer, Proj proj) {
  switch (proj) {
    case Proj::kQ:
      return rows_of_heads(layer.heads, layer.parent.head_dim);
    case Proj::kK:
    case Proj::kV:
      return rows_of_heads(layer.kv_heads, layer.parent.head_dim);
    case Proj::kGate:
    case Proj::kUp:
      return layer.neurons;
    case Proj::kO:
    case Proj::kDown:
      break;
  }
  return kept_channels(cut);
}

std::optional<std::vector<int32_t>> kept_cols(const Cut& cut, const LayerCut& layer, Proj proj) {
  if (proj == Proj::kO) return rows_of_heads(layer.heads, layer.parent.head_dim);
  if (proj == Proj::kDown) return layer.neurons;
  return kept_channels(cut);
}

std::string cut_hash(const Model& model) {
  if (!model.block.cut) return {};
  Sha256 hash;
  hash.update(fmt::format("brick cut {}\n", model.block.cut->parent_layers));
  for (const LayerCut& layer : model.block.cut->layers) {
    const LayerShape& s = layer.parent;
    hash.update(fmt::format("{} {} {} {} {}\n{}\n{}\n{}\n", layer.layer, s.heads, s.kv_heads, s.head_dim, s.ffn,
                            fmt::join(layer.heads, " "), fmt::join(layer.kv_heads, " "),
                            fmt::join(layer.neurons, " ")));
  }
  if (const auto& stream = model.block.cut->stream)
    hash.update(fmt::format("channels {}\n{}\n", stream->parent, fmt::join(stream->channels, " ")));
  return hash.hex();
}

}  // namespace brick::model
