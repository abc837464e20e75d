// Blocks from which heads, neurons and layers were cut, and the biases that some methods add.
#include "brick/model/cut.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <numeric>

#include "brick/io/json_file.h"
#include "brick/io/safetensors.h"
#include "brick/model/decode.h"
#include "brick/model/load.h"
#include "brick/model/loss.h"
#include "brick/model/merge.h"
#include "brick/model/restrict_adapter.h"
#include "brick/model/save.h"
#include "model/compare.h"
#include "model/cut_model.h"
#include "model/expect_error.h"
#include "model/logits.h"
#include "model/tiny_model.h"

namespace brick::model {
namespace {

using tensor::DType;

constexpr LoadOptions kNoTokenizer{.tokenizer = false};
constexpr float kSameLogits = 1e-5f;  // float32 sums in another order
constexpr float kDifference = 1e-2f;  // relative, of a gradient and a central difference in float32

// The parent with zeros where the cut takes something away, and no other layers than the block's.
Model zeroed(const Model& parent, const Cut& cut) {
  Model out = parent;
  out.layers.clear();
  for (const LayerCut& kept : cut.layers) {
    Layer layer = parent.layers[size_t(kept.layer)];
    for (const Proj proj : {Proj::kO, Proj::kDown}) {
      tensor::Tensor weight = layer[proj].to_f32();
      std::vector<bool> keep(size_t(weight.shape()[1]), false);
      const std::vector<int32_t> cols = *kept_cols(cut, kept, proj);
      for (const int32_t c : cols) keep[size_t(c)] = true;
      for (int64_t i = 0; i < weight.size(); ++i)
        if (!keep[size_t(i % weight.shape()[1])]) weight.f32()[i] = 0;
      layer[proj] = tensor::Matrix::dense(std::move(weight));
    }
    out.layers.push_back(std::move(layer));
  }
  out.config.layers = int64_t(out.layers.size());
  return out;
}

TEST(Slice, ComputesWhatItsParentWouldWithoutThoseParts) {
  const Model parent = tiny_model({.layers = 3});
  const Model block = slice(parent, tiny_cut(), "f32");
  ASSERT_EQ(block.layers.size(), 2u);
  EXPECT_EQ(block.layers[0].shape, (LayerShape{2, 1, 8, 32}));
  EXPECT_EQ(block.layers[1].shape, (LayerShape{2, 2, 8, 64}));
  check_shapes(block);
  EXPECT_EQ(fingerprint(block), fingerprint(parent));
  expect_near(logits_of(block), logits_of(zeroed(parent, tiny_cut())), kSameLogits);
}

TEST(Slice, OfASliceCountsInTheFirstParent) {
  const Model block = slice(tiny_model({.layers = 3}), tiny_cut(), "f32");
  Cut again = whole_cut(block);
  again.layers.erase(again.layers.begin() + 1);
  again.layers[0].neurons = {1, 2, 30};
  const Model twice = slice(block, again, "f32");
  ASSERT_EQ(twice.block.cut->layers.size(), 1u);
  EXPECT_EQ(twice.block.cut->parent_layers, 3);
  EXPECT_EQ(twice.block.cut->layers[0].layer, 0);
  EXPECT_EQ(twice.block.cut->layers[0].parent, (LayerShape{4, 2, 8, 64}));
  EXPECT_EQ(twice.block.cut->layers[0].kv_heads, std::vector<int32_t>{1});
  EXPECT_EQ(twice.block.cut->layers[0].neurons, (std::vector<int32_t>{3, 5, 61}));
}

TEST(Slice, OfChannelsCountsInTheFirstParentToo) {
  const Model parent = tiny_model({.layers = 3});
  const Model block = slice(parent, tiny_narrow_cut(parent), "f32");
  check_shapes(block);
  EXPECT_EQ(block.config.hidden, 24);
  EXPECT_EQ(fingerprint(block), fingerprint(parent));
  EXPECT_NE(cut_hash(block), cut_hash(slice(parent, tiny_cut(), "f32")));
  EXPECT_EQ(block.embedding.to_f32().mat()(7, 3), parent.embedding.to_f32().mat()(7, 5));  // channels 1, 2, 3, 5, …
  EXPECT_EQ(block.layers[1][Proj::kQ].to_f32().mat()(8, 3), parent.layers[2][Proj::kQ].to_f32().mat()(24, 5));
  EXPECT_EQ(block.layers[0][Proj::kDown].to_f32().mat()(3, 1), parent.layers[0][Proj::kDown].to_f32().mat()(5, 3));
  EXPECT_EQ(block.layers[1].ffn_norm[3], parent.layers[2].ffn_norm[5]);
  EXPECT_EQ(block.final_norm[23], parent.final_norm[31]);

  const Model again = slice(block, channel_cut(block, {0, 3, 4}), "f32");
  ASSERT_TRUE(again.block.cut->stream);
  EXPECT_EQ(again.block.cut->stream->parent, 32);
  EXPECT_EQ(again.block.cut->stream->channels, (std::vector<int32_t>{1, 5, 6}));
  EXPECT_EQ(again.block.cut->layers[0].heads, (std::vector<int32_t>{2, 3}));
  EXPECT_EQ(fingerprint(again), fingerprint(parent));
  Cut shallower = whole_cut(again);
  shallower.layers.pop_back();
  EXPECT_EQ(slice(again, shallower, "f32").block.cut->stream->channels, (std::vector<int32_t>{1, 5, 6}));
  expect_error(ErrorCode::kCorrupt, "number 24 of the parent's 24 channels", [&] {
    slice(block, channel_cut(block, {0, 24}), "f32");
  });
}

TEST(Slice, HoldsWeightsAsAsked) {
  const Model parent = tiny_model(
      {.layers = 3, .hidden = 64, .heads = 2, .kv_heads = 1, .head_dim = 32, .ffn = 96, .dtype = DType::kQ4_1});
  Cut cut = whole_cut(parent);
  for (LayerCut& layer : cut.layers) layer.neurons.erase(layer.neurons.begin() + 32, layer.neurons.begin() + 64);
  EXPECT_EQ(slice(parent, cut, "bf16").layers[0][Proj::kDown].dtype(), DType::kBF16);
  EXPECT_EQ(slice(parent, cut, "q4").layers[0][Proj::kDown].dtype(), DType::kQ4_1);
  // Whole blocks move as they are, so nothing is rounded again.
  const Model kept = slice(parent, cut, "keep");
  EXPECT_EQ(kept.layers[0][Proj::kDown].dtype(), DType::kQ4_1);
  expect_same_model(kept, slice(parent, cut, "f32"));
  cut.layers[0].neurons.front() = 1;
  cut.layers[0].neurons[1] = 2;
  std::iota(cut.layers[0].neurons.begin(), cut.layers[0].neurons.begin() + 32, 1);
  expect_error(ErrorCode::kUnsupported, "layers.0.mlp.down_proj", [&] { slice(parent, cut, "keep"); });
  expect_error(ErrorCode::kInvalidInput, "q5", [&] { slice(parent, cut, "q5"); });
  cut.layers[0].neurons.pop_back();
  expect_error(ErrorCode::kUnsupported, "layers.0.mlp.down_proj", [&] { slice(parent, cut, "q4"); });
  expect_error(ErrorCode::kUnsupported, "is masked",
               [&] { slice(tiny_block(tiny_model({.layers = 3})), tiny_cut(), "f32"); });
}

TEST(CutBlock, ComesBackWithItsCutAndBiases) {
  const Model block = tiny_cut_block();
  const TempFolder folder;
  save_block(block, folder.folder("b"));
  const Model back = load_model(folder.file("b"), kNoTokenizer);
  expect_same_model(block, back);
  EXPECT_EQ(back.layers[0].o_bias, block.layers[0].o_bias);
  EXPECT_EQ(back.layers[1].down_bias, block.layers[1].down_bias);
  EXPECT_TRUE(back.layers[1].o_bias.empty());
  EXPECT_EQ(cut_hash(back), cut_hash(block));
  EXPECT_EQ(back.block.cut->layers[0].heads, (std::vector<int32_t>{2, 3}));
  EXPECT_EQ(back.parameters(), block.parameters());

  const ModelSummary summary = summarise(folder.file("b"), false);
  EXPECT_EQ(summary.parameters, block.parameters());
  EXPECT_EQ(summary.bytes, block.weight_bytes());
  ASSERT_EQ(summary.widths.size(), 2u);
  EXPECT_EQ(summary.widths[0], block.layers[0].shape);
  EXPECT_EQ(summary.block.cut->parent_layers, 3);
  EXPECT_EQ(summary.block.cut->layers[1].layer, 2);
  EXPECT_EQ(summarise(folder.file("b"), true).nonzeros, block.nonzeros());
}

TEST(CutBlock, BiasesAreAddedToTheOutputs) {
  Model block = tiny_cut_block();
  // The first layer's attention as nothing but its bias.
  block.layers[0][Proj::kO] = tensor::Matrix::dense(tensor::matrix(32, 16));
  kernels::Context context;
  Transformer transformer(block, context, 8);
  tensor::Tensor x = tensor::matrix(8, 32);
  tensor::Tensor seen = tensor::matrix(8, 32);
  const std::vector<int64_t> offsets{0, 8};
  transformer.embed(kIds, x.mat());
  const tensor::Tensor before = x.clone();
  block.layers[0][Proj::kDown] = tensor::Matrix::dense(tensor::matrix(32, 32));
  transformer.layer_forward(0, offsets, x.mat());
  for (int64_t i = 0; i < x.size(); ++i)
    ASSERT_FLOAT_EQ(x.f32()[i], before.f32()[i] + block.layers[0].o_bias[size_t(i % 32)]);
}

TEST(CutBlock, DecodesWhatItsForwardSays) {
  const Model block = tiny_cut_block();
  const tensor::Tensor whole = logits_of(block);
  kernels::Context context;
  Decoder decoder(block, context, {}, 8);
  for (int64_t t = 0; t < 8; ++t) {
    const std::span<float> next = decoder.feed(std::span(kIds).subspan(size_t(t), 1));
    for (int64_t v = 0; v < block.config.vocab; ++v) ASSERT_NEAR(next[size_t(v)], whole.mat()(t, v), kSameLogits);
  }
}

TEST(CutBlock, TrainsAndMergesAnAdapter) {
  const Model block = tiny_cut_block();
  Adapter adapter = make_adapter(block, {.rank = 2, .targets = {kProjs.begin(), kProjs.end()}}, 0);
  randomise(adapter, 1);
  const std::vector<int64_t> offsets{0, 8};
  const std::vector<uint8_t> supervised(8, 1);
  const std::vector<ScoredToken> scored = scored_tokens(kIds, supervised, offsets);
  kernels::Context context;
  const auto loss = [&](Adapter* gradients) {
    Transformer transformer(block, context, 8, true);
    const TokenBatch batch{kIds, offsets};
    const AdapterUse use{.adapter = &adapter};
    const tensor::MatView hidden = transformer.forward(batch, use);
    std::vector<float> losses(scored.size());
    tensor::Tensor d_hidden = tensor::matrix(8, block.config.hidden);
    token_losses(context, block, hidden, scored, losses, 1.0f, d_hidden.mat());
    if (gradients != nullptr) transformer.backward(batch, use, d_hidden.mat(), *gradients);
    double sum = 0;
    for (const float l : losses) sum += l;
    return sum;
  };
  Adapter gradients = zeros_like(adapter);
  loss(&gradients);
  constexpr float kStep = 1e-2f;
  for_each_pair(adapter, [&](int64_t layer, Proj proj, LoraPair& pair) {
    float& entry = pair.b.f32()[1];
    const float at = entry;
    entry = at + kStep;
    const double up = loss(nullptr);
    entry = at - kStep;
    const double down = loss(nullptr);
    entry = at;
    const double difference = (up - down) / (2 * kStep);
    EXPECT_NEAR(gradients.at(layer, proj).b.f32()[1], difference, kDifference * std::max(1.0, std::fabs(difference)));
  });
  const Model merged = merge(block, adapter, "f32");
  EXPECT_EQ(cut_hash(merged), cut_hash(block));
  expect_near(logits_of(merged), logits_of(block, {.adapter = &adapter}), 10 * kSameLogits);
}

TEST(CutBlock, AdaptersFitTheirOwnBlockOnly) {
  const Model block = tiny_cut_block();
  const Adapter adapter = make_adapter(block, {.targets = {Proj::kQ}}, 0);
  const TempFolder folder;
  save_adapter(adapter, "tiny", folder.folder("a"));
  const Adapter back = load_adapter(folder.file("a"));
  EXPECT_EQ(back.config.cut_hash, cut_hash(block));
  check_fits(back, block);
  Model other = block;  // of the same shape
  other.block.cut->layers[0].neurons[3] += 1;
  expect_error(ErrorCode::kMismatch, "structured block with cut", [&] { check_fits(back, other); });
}

// With it the block computes what its parent would with the whole adapter and without the parts that were cut out.
TEST(CutBlock, TakesItsPartOfTheParentsAdapter) {
  const Model parent = tiny_model({.layers = 3});
  const Cut cut = tiny_cut();
  const Model block = slice(parent, cut, "f32");
  Adapter whole = make_adapter(parent, {.rank = 2, .targets = {kProjs.begin(), kProjs.end()}}, 0);
  randomise(whole, 1);
  const Adapter part = restricted(whole, block);
  check_fits(part, block);
  EXPECT_EQ(part.config.cut_hash, cut_hash(block));
  // What o and down add for inputs that the block lacks is gone with them.
  Adapter without;
  without.config = whole.config;
  for (const LayerCut& kept : cut.layers) {
    auto& layer = without.layers.emplace_back();
    for (const Proj proj : kProjs) {
      const LoraPair& pair = whole.at(kept.layer, proj);
      LoraPair& to = layer[size_t(proj)] = {pair.a.clone(), pair.b.clone()};
      const auto cols = kept_cols(cut, kept, proj);
      for (int32_t c = 0; cols && c < to.a.shape()[1]; ++c)
        if (std::find(cols->begin(), cols->end(), c) == cols->end())
          for (int64_t i = 0; i < 2; ++i) to.a.mat()(i, c) = 0;
    }
  }
  expect_near(logits_of(block, {.adapter = &part}), logits_of(zeroed(parent, cut), {.adapter = &without}),
              10 * kSameLogits);
  EXPECT_EQ(restricted(part, block).parameters(), part.parameters());
  EXPECT_EQ(restricted(whole, parent).parameters(), whole.parameters());
  expect_error(ErrorCode::kMismatch, "structured block", [&] { restricted(part, parent); });
  const Adapter shallow = make_adapter(tiny_model(), {.targets = {Proj::kQ}}, 0);
  expect_error(ErrorCode::kMismatch, "2 layers", [&] { restricted(shallow, block); });
  const Adapter narrow = make_adapter(tiny_model({.layers = 3, .ffn = 32}), {.targets = {Proj::kUp}}, 0);
  expect_error(ErrorCode::kMismatch, "mlp.up_proj.weight", [&] { restricted(narrow, block); });
}

TEST(NarrowBlock, TakesItsPartOfTheParentsAdapter) {
  const Model parent = tiny_model({.layers = 3});
  const Model block = slice(parent, tiny_narrow_cut(parent), "f32");
  Adapter whole = make_adapter(parent, {.rank = 2, .targets = {kProjs.begin(), kProjs.end()}}, 0);
  randomise(whole, 1);
  const Adapter part = restricted(whole, block);
  check_fits(part, block);
  EXPECT_EQ(part.config.cut_hash, cut_hash(block));
  EXPECT_EQ(make_adapter(block, {.targets = {Proj::kQ}}, 0).config.base_fingerprint, whole.config.base_fingerprint);
  const auto pair = [&](Proj proj) { return std::pair(&part.at(1, proj), &whole.at(2, proj)); };
  for (const Proj proj : {Proj::kQ, Proj::kUp})
    EXPECT_EQ(pair(proj).first->a.mat()(1, 3), pair(proj).second->a.mat()(1, 5));
  for (const Proj proj : {Proj::kO, Proj::kDown})
    EXPECT_EQ(pair(proj).first->b.mat()(3, 1), pair(proj).second->b.mat()(5, 1));
  EXPECT_EQ(pair(Proj::kQ).first->b.mat()(8, 1), pair(Proj::kQ).second->b.mat()(24, 1));
  const Adapter other = make_adapter(tiny_model({.layers = 3, .hidden = 24}), {.targets = {Proj::kQ}}, 0);
  expect_error(ErrorCode::kMismatch, "self_attn.q_proj.weight", [&] { restricted(other, block); });
}

TEST(CutBlock, GoesToGgufWithItsBiases) {
  const Model block = tiny_cut_block();
  const TempFolder folder;
  export_gguf(block, DType::kF32, folder.file("m.gguf"));
  const Model back = load_model(folder.file("m.gguf"), kNoTokenizer);
  expect_near(logits_of(back), logits_of(block), 0);
}

TEST(CutBlock, GoesToTransformersFilledUpWithZeros) {
  const Model block = tiny_cut_block();
  const TempFolder folder;
  expect_error(ErrorCode::kUnsupported, "--pad", [&] { export_hf(block, DType::kF32, folder.folder("refused")); });
  // The first layer lacks two query heads, a key/value head and 32 neurons, the last two query heads.
  constexpr int64_t kAdded = 32 * (2 * 16 + 2 * 8 + 3 * 32) + 32 * 2 * 16;
  EXPECT_EQ(export_hf(block, DType::kF32, folder.folder("hf"), true), 4 * kAdded);
  EXPECT_EQ(export_hf(block, DType::kBF16, folder.folder("half"), true), 2 * kAdded);
  const nlohmann::json config = io::read_json_file(folder.file("hf/config.json"));
  EXPECT_EQ(config["attention_bias"], true);
  EXPECT_EQ(config["mlp_bias"], true);

  Model back = load_model(folder.file("hf"), kNoTokenizer);
  EXPECT_EQ(back.parameters(), block.parameters() + kAdded);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(back.layers[i].shape, (LayerShape{4, 2, 8, 64}));
    EXPECT_EQ(back.layers[i].o_bias, block.layers[i].o_bias);
    EXPECT_EQ(back.layers[i].down_bias, block.layers[i].down_bias);
  }
  const tensor::Tensor same = logits_of(back);
  expect_near(same, logits_of(block), kSameLogits);
  back.layers[0].o_bias.clear();
  EXPECT_GT(std::fabs(logits_of(back).f32()[0] - same.f32()[0]), kSameLogits);
}

TEST(CutBlock, IsFilledUpWhereItIsMasked) {
  const Model block = tiny_block(tiny_cut_block());
  const TempFolder folder;
  export_hf(block, DType::kF32, folder.folder("hf"), true);
  expect_near(logits_of(load_model(folder.file("hf"), kNoTokenizer)), logits_of(block), kSameLogits);
}

// Saves a structured block, edits its files and loads it.
struct Files {
  nlohmann::json config;
  std::vector<std::pair<std::string, tensor::Tensor>> tensors;

  tensor::Tensor& at(const std::string& name) {
    for (auto& [key, value] : tensors)
      if (key == name) return value;
    throw std::out_of_range(name);
  }
};
void expect_refused(ErrorCode code, const std::string& part, const std::function<void(Files&)>& edit,
                    const Model& block = tiny_cut_block()) {
  const TempFolder folder;
  save_block(block, folder.folder("a"));
  const auto file = io::SafetensorsFile::open(folder.file("a/model.safetensors"));
  Files files{io::read_json_file(folder.file("a/config.json")), {}};
  for (const auto& info : file.tensors()) {
    const tensor::TensorView view = file.tensor(info);
    tensor::Tensor copy(view.dtype, view.shape);
    std::copy(view.bytes.begin(), view.bytes.end(), copy.bytes().begin());
    files.tensors.emplace_back(info.name, std::move(copy));
  }
  edit(files);
  folder.folder("b");
  io::write_json_file(folder.file("b/config.json"), files.config);
  io::SafetensorsWriter writer;
  for (const auto& [name, tensor] : files.tensors) writer.add_tensor(name, tensor.view());
  writer.write(folder.file("b/model.safetensors"));
  expect_error(code, part, [&] { load_model(folder.file("b"), kNoTokenizer); });
}

TEST(CutBlock, RefusesWhatWasAlteredByName) {
  const std::string heads = "model.layers.0.self_attn.kept_heads", neurons = "model.layers.0.mlp.kept_neurons",
                    kv_heads = "model.layers.0.self_attn.kept_kv_heads";
  const auto number = [](Files& f, const std::string& name, size_t i) -> int32_t& {
    return reinterpret_cast<int32_t*>(f.at(name).bytes().data())[i];
  };
  const auto parent = [](Files& f) -> nlohmann::json& { return f.config["brick"]["layers"][0]["parent"]; };
  expect_refused(ErrorCode::kCorrupt, "number 64", [&](Files& f) { number(f, neurons, 31) = 64; });
  expect_refused(ErrorCode::kCorrupt, "number -1", [&](Files& f) { number(f, neurons, 0) = -1; });
  expect_refused(ErrorCode::kCorrupt, "ascend", [&](Files& f) { number(f, neurons, 1) = number(f, neurons, 0); });
  expect_refused(ErrorCode::kCorrupt, "head 1", [&](Files& f) { number(f, heads, 0) = 1; });
  expect_refused(ErrorCode::kCorrupt, "head 2", [&](Files& f) { number(f, kv_heads, 0) = 0; });
  expect_refused(ErrorCode::kCorrupt, neurons,
                 [&](Files& f) { f.at(neurons) = tensor::Tensor(DType::kI32, tensor::Shape{31}); });
  expect_refused(ErrorCode::kCorrupt, neurons,
                 [&](Files& f) { f.at(neurons) = tensor::Tensor(DType::kI64, tensor::Shape{32}); });
  expect_refused(ErrorCode::kNotFound, heads,
                 [&](Files& f) { std::erase_if(f.tensors, [&](const auto& t) { return t.first == heads; }); });
  expect_refused(ErrorCode::kCorrupt, "layers[0].parent", [&](Files& f) { parent(f) = 3; });
  expect_refused(ErrorCode::kCorrupt, "layer 3 of 3", [&](Files& f) { parent(f)["layer"] = 3; });
  expect_refused(ErrorCode::kCorrupt, "layer 2 of 3, behind 2", [&](Files& f) { parent(f)["layer"] = 2; });
  expect_refused(ErrorCode::kCorrupt, "parent of 3 heads", [&](Files& f) { parent(f)["heads"] = 3; });
  expect_refused(ErrorCode::kCorrupt, "parent of 0 heads", [&](Files& f) { parent(f)["heads"] = 0; });
  // 8 (2^61 + 4) is 32 in 64 bits.
  const int64_t wraps = (int64_t{1} << 61) + 4;
  expect_refused(ErrorCode::kCorrupt, fmt::format("parent of {} heads", wraps),
                 [&](Files& f) { parent(f)["heads"] = parent(f)["kv_heads"] = wraps; });
  expect_refused(ErrorCode::kCorrupt, "feed-forward size 16777217", [&](Files& f) { parent(f)["ffn"] = 16777217; });
  expect_refused(ErrorCode::kCorrupt, "of 1", [&](Files& f) { f.config["brick"]["parent_layers"] = 1; });
  expect_refused(ErrorCode::kUnsupported, "kept", [&](Files& f) { f.config["brick"].erase("parent_layers"); });
  expect_refused(ErrorCode::kCorrupt, "o_proj.bias", [&](Files& f) {
    f.at("model.layers.0.self_attn.o_proj.bias") = tensor::Tensor(DType::kF32, tensor::Shape{31});
  });
  expect_refused(ErrorCode::kNumeric, "o_proj.bias",
                 [&](Files& f) { f.at("model.layers.0.self_attn.o_proj.bias").f32()[2] = NAN; });
}

TEST(NarrowBlock, ComesBackWithItsChannelsOrIsRefusedByName) {
  const Model parent = tiny_model({.layers = 3});
  const Model block = slice(parent, tiny_narrow_cut(parent), "f32");
  const TempFolder folder;
  save_block(block, folder.folder("b"));
  const Model back = load_model(folder.file("b"), kNoTokenizer);
  EXPECT_EQ(back.block.cut->stream->channels, block.block.cut->stream->channels);
  EXPECT_EQ(cut_hash(back), cut_hash(block));
  EXPECT_EQ(fingerprint(back), fingerprint(parent));
  EXPECT_EQ(summarise(folder.file("b"), false).block.cut->stream->parent, 32);

  const std::string channels = "model.kept_channels";
  const auto refused = [&](ErrorCode code, const std::string& part, const std::function<void(Files&)>& edit) {
    expect_refused(code, part, edit, block);
  };
  const auto number = [&](Files& f, size_t i) -> int32_t& {
    return reinterpret_cast<int32_t*>(f.at(channels).bytes().data())[i];
  };
  const auto stream = [](Files& f) -> nlohmann::json& { return f.config["brick"]["stream"]; };
  refused(ErrorCode::kCorrupt, "number 32 of the parent's 32 channels", [&](Files& f) { number(f, 23) = 32; });
  refused(ErrorCode::kCorrupt, "number -1", [&](Files& f) { number(f, 0) = -1; });
  refused(ErrorCode::kCorrupt, "ascend", [&](Files& f) { number(f, 1) = number(f, 0); });
  refused(ErrorCode::kCorrupt, channels,
          [&](Files& f) { f.at(channels) = tensor::Tensor(DType::kI32, tensor::Shape{23}); });
  refused(ErrorCode::kNotFound, channels,
          [&](Files& f) { std::erase_if(f.tensors, [&](const auto& t) { return t.first == channels; }); });
  refused(ErrorCode::kUnsupported, channels, [&](Files& f) { f.config["brick"].erase("stream"); });
  refused(ErrorCode::kCorrupt, "brick.stream is no object", [&](Files& f) { stream(f) = 3; });
  refused(ErrorCode::kCorrupt, "parent of width 0", [&](Files& f) { stream(f)["parent_hidden"] = 0; });
  refused(ErrorCode::kCorrupt, "parent of width 16777217", [&](Files& f) { stream(f)["parent_hidden"] = 16777217; });
  refused(ErrorCode::kCorrupt, "of the parent's 16 channels", [&](Files& f) { stream(f)["parent_hidden"] = 16; });
  refused(ErrorCode::kInvalidInput, "fingerprint is missing", [&](Files& f) { stream(f).erase("fingerprint"); });
}

}  // namespace
}  // namespace brick::model
