#include "brick/model/adapter.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>

#include "brick/io/json_file.h"
#include "brick/io/safetensors.h"
#include "model/expect_error.h"
#include "model/tiny_model.h"

namespace brick::model {
namespace {

using nlohmann::json;

Adapter filled_adapter(const Model& model, LoraConfig config = {}) {
  if (config.targets.empty()) config.targets = parse_targets("all");
  Adapter adapter = make_adapter(model, config, 3);
  randomise(adapter, 4);
  return adapter;
}

void expect_same(const tensor::Tensor& a, const tensor::Tensor& b) {
  ASSERT_EQ(a.shape(), b.shape());
  EXPECT_EQ(std::memcmp(a.bytes().data(), b.bytes().data(), a.bytes().size()), 0);
}

void expect_same(const Adapter& a, const Adapter& b) {
  ASSERT_EQ(a.layers.size(), b.layers.size());
  EXPECT_EQ(a.config.rank, b.config.rank);
  EXPECT_EQ(a.config.alpha, b.config.alpha);
  EXPECT_EQ(a.config.rslora, b.config.rslora);
  EXPECT_EQ(a.config.dropout, b.config.dropout);
  EXPECT_EQ(a.config.targets, b.config.targets);
  EXPECT_EQ(a.config.masked, b.config.masked);
  EXPECT_EQ(a.config.mask_hash, b.config.mask_hash);
  EXPECT_EQ(a.config.base_fingerprint, b.config.base_fingerprint);
  EXPECT_EQ(a.parameters(), b.parameters());
  for_each_pair(a, [&](int64_t layer, Proj proj, const LoraPair& pair) {
    expect_same(pair.a, b.at(layer, proj).a);
    expect_same(pair.b, b.at(layer, proj).b);
  });
}

TEST(Adapter, ScaleIsAlphaOverRankOrItsRoot) {
  EXPECT_FLOAT_EQ((LoraConfig{.rank = 16, .alpha = 8}).scale(), 0.5f);
  EXPECT_FLOAT_EQ((LoraConfig{.rank = 16, .alpha = 8, .rslora = true}).scale(), 2.0f);
}

TEST(Adapter, StartsAsNothing) {
  const Model model = tiny_model();
  const Adapter adapter = make_adapter(model, {.rank = 4, .targets = {Proj::kV, Proj::kQ}}, 7);
  EXPECT_EQ(adapter.config.targets, (std::vector<Proj>{Proj::kQ, Proj::kV}));
  EXPECT_EQ(adapter.config.base_fingerprint, fingerprint(model));
  EXPECT_EQ(adapter.parameters(), 2 * (4 * 32 + 32 * 4 + 4 * 32 + 16 * 4));
  const float bound = 1.0f / std::sqrt(32.0f);
  float largest = 0;
  for_each_pair(adapter, [&](int64_t, Proj, const LoraPair& pair) {
    for (int64_t i = 0; i < pair.a.size(); ++i) largest = std::max(largest, std::fabs(pair.a.f32()[i]));
    for (int64_t i = 0; i < pair.b.size(); ++i) EXPECT_EQ(pair.b.f32()[i], 0.0f);
  });
  EXPECT_LE(largest, bound);
  EXPECT_GT(largest, 0.9f * bound);
  expect_same(adapter, make_adapter(model, {.rank = 4, .targets = {Proj::kQ, Proj::kV}}, 7));
  EXPECT_NE(adapter.at(0, Proj::kQ).a.f32()[0], adapter.at(1, Proj::kQ).a.f32()[0]);
  EXPECT_NE(adapter.at(0, Proj::kQ).a.f32()[0], make_adapter(model, adapter.config, 8).at(0, Proj::kQ).a.f32()[0]);
}

TEST(Adapter, RefusesSenselessConfigurations) {
  const Model model = tiny_model();
  const std::vector<Proj> all(kProjs.begin(), kProjs.end());
  const auto make = [&](LoraConfig config) { return [&model, config] { make_adapter(model, config, 0); }; };
  expect_error(ErrorCode::kInvalidInput, "rank 0", make({.rank = 0, .targets = all}));
  expect_error(ErrorCode::kInvalidInput, "alpha", make({.alpha = -1, .targets = all}));
  expect_error(ErrorCode::kInvalidInput, "dropout 1", make({.dropout = 1, .targets = all}));
  expect_error(ErrorCode::kInvalidInput, "targets", make({}));
  expect_error(ErrorCode::kMismatch, "masked", make({.targets = all, .masked = true}));
}

TEST(Targets, AreNamesOrExpressions) {
  EXPECT_EQ(parse_targets("all").size(), 7u);
  EXPECT_EQ(parse_targets("all-linear").size(), 7u);
  EXPECT_EQ(parse_targets("v_proj, q_proj"), (std::vector<Proj>{Proj::kQ, Proj::kV}));
  EXPECT_EQ(parse_targets("(q|k)_proj"), (std::vector<Proj>{Proj::kQ, Proj::kK}));
  EXPECT_EQ(parse_targets(".*self_attn.*"), (std::vector<Proj>{Proj::kQ, Proj::kK, Proj::kV, Proj::kO}));
  EXPECT_EQ(parse_targets(R"(model\.layers\.\d+\.mlp\.(gate|up)_proj)"), (std::vector<Proj>{Proj::kGate, Proj::kUp}));
  expect_error(ErrorCode::kInvalidInput, "c_attn", [] { parse_targets("q_proj,c_attn"); });
  expect_error(ErrorCode::kInvalidInput, "match nothing", [] { parse_targets("proj"); });
  expect_error(ErrorCode::kInvalidInput, "regular expression", [] { parse_targets("(q_proj"); });
  expect_error(ErrorCode::kUnsupported, "some layers", [] { parse_targets(R"(.*layers\.3\..*q_proj)"); });
  EXPECT_THROW(parse_targets(""), Error);
  expect_error(ErrorCode::kInvalidInput, "100000 characters", [] { parse_targets(std::string(100000, '(')); });
}

TEST(Adapter, CloneAndZerosKeepTheShapes) {
  const Adapter adapter = filled_adapter(tiny_model());
  expect_same(adapter, adapter.clone());
  const Adapter zeros = zeros_like(adapter);
  EXPECT_EQ(zeros.parameters(), adapter.parameters());
  for_each_pair(zeros, [](int64_t, Proj, const LoraPair& pair) {
    for (int64_t i = 0; i < pair.b.size(); ++i) EXPECT_EQ(pair.b.f32()[i], 0.0f);
  });
}

TEST(Adapter, FitsItsShapeOnly) {
  const Model model = tiny_model();
  const Adapter adapter = filled_adapter(model);
  check_fits(adapter, model);
  expect_error(ErrorCode::kMismatch, "2 layers", [&] { check_fits(adapter, tiny_model({.layers = 3})); });
  expect_error(ErrorCode::kMismatch, "model.layers.0.mlp.gate_proj.weight",
               [&] { check_fits(adapter, tiny_model({.ffn = 96})); });
}

TEST(Adapter, MaskedFitsItsOwnBlockOnly) {
  const Model model = tiny_model();
  const Model block = tiny_block(model),
              other = tiny_block(model, 0.5, tensor::SparseCoding::kValues, tensor::DType::kF32, 9);
  const Adapter adapter = filled_adapter(block, {.masked = true});
  EXPECT_EQ(adapter.config.mask_hash, mask_hash(block));
  check_fits(adapter, block);
  check_fits(filled_adapter(block), other);  // one that isn't masked is free
  const std::string own = adapter.config.mask_hash.substr(0, 12);
  expect_error(ErrorCode::kMismatch, own, [&] { check_fits(adapter, model); });
  expect_error(ErrorCode::kMismatch, own, [&] { check_fits(adapter, other); });
  expect_error(ErrorCode::kMismatch, mask_hash(other).substr(0, 12), [&] { check_fits(adapter, other); });
}

TEST(AdapterFile, ComesBackAsItWas) {
  const TempFolder folder;
  const Model model = tiny_model();
  const Adapter adapter = filled_adapter(
      model, {.rank = 3, .alpha = 2.5, .rslora = true, .dropout = 0.05, .targets = {Proj::kQ, Proj::kDown}});
  save_adapter(adapter, "some/base", folder.folder("a"));
  expect_same(adapter, load_adapter(folder.file("a")));
  const json config = io::read_json_file(folder.file("a/adapter_config.json"));
  EXPECT_EQ(config["target_modules"], json({"q_proj", "down_proj"}));
  EXPECT_EQ(config["base_model_name_or_path"], "some/base");
  EXPECT_FALSE(config.contains("brick"));

  const Model block = tiny_block(model);
  const Adapter masked = filled_adapter(block, {.masked = true});
  save_adapter(masked, "", folder.folder("b"));
  expect_same(masked, load_adapter(folder.file("b")));
  EXPECT_EQ(io::read_json_file(folder.file("b/adapter_config.json"))["brick"]["masked"], true);
}

// A folder whose configuration and tensors were edited.
struct Edited {
  json config;
  std::vector<std::pair<std::string, tensor::Tensor>> tensors;

  static Edited of(const Adapter& adapter) {
    const TempFolder folder;
    save_adapter(adapter, "", folder.folder("a"));
    Edited out{io::read_json_file(folder.file("a/adapter_config.json")), {}};
    const auto file = io::SafetensorsFile::open(folder.file("a/adapter_model.safetensors"));
    for (const auto& info : file.tensors()) out.tensors.emplace_back(info.name, tensor::to_f32(file.tensor(info)));
    return out;
  }
  tensor::Tensor& at(const std::string& name) {
    for (auto& [key, value] : tensors)
      if (key == name) return value;
    throw std::out_of_range(name);
  }
  void erase(const std::string& part) {
    std::erase_if(tensors, [&](const auto& t) { return t.first.find(part) != std::string::npos; });
  }
  void rename(const std::function<std::string(std::string)>& change) {
    for (auto& [key, value] : tensors) key = change(key);
  }
  Adapter load() const {
    const TempFolder folder;
    io::write_json_file(folder.file("adapter_config.json"), config);
    io::SafetensorsWriter writer;
    for (const auto& [key, value] : tensors) writer.add_tensor(key, value.view());
    writer.write(folder.file("adapter_model.safetensors"));
    return load_adapter(folder.path().string());
  }
};

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

TEST(AdapterFile, ReadsOlderNamesAndHalfPrecision) {
  const Adapter adapter = filled_adapter(tiny_model(), {.rank = 2, .targets = {Proj::kQ}});
  Edited plain = Edited::of(adapter);
  plain.rename([](const std::string& name) { return replaced(name, "base_model.model.", ""); });
  expect_same(plain.load().at(1, Proj::kQ).b, adapter.at(1, Proj::kQ).b);
  Edited named = Edited::of(adapter);
  named.rename([](const std::string& name) { return replaced(name, ".weight", ".default.weight"); });
  named.config["target_modules"] = ".*q_proj";
  expect_same(named.load().at(1, Proj::kQ).b, adapter.at(1, Proj::kQ).b);
  for (tensor::DType dtype : {tensor::DType::kF16, tensor::DType::kBF16}) {
    Edited half = Edited::of(adapter);
    for (auto& [key, value] : half.tensors) value = tensor::convert(value.view(), dtype);
    expect_same(half.load().at(0, Proj::kQ).a,
                tensor::to_f32(tensor::convert(adapter.at(0, Proj::kQ).a.view(), dtype).view()));
  }
}

TEST(AdapterFile, RefusesOtherKindsByName) {
  const Adapter adapter = filled_adapter(tiny_model());
  const std::vector<std::pair<std::string, json>> settings{
      {"peft_type", "IA3"},           {"bias", "all"},
      {"modules_to_save", {"norm"}},  {"rank_pattern", {{"q_proj", 4}}},
      {"alpha_pattern", {{"x", 1}}},  {"use_dora", true},
      {"fan_in_fan_out", true},       {"layers_to_transform", {1}},
      {"init_lora_weights", "pissa"}, {"target_modules", {"q_proj", "lm_head"}},
      {"target_modules", {"q_proj"}}};
  for (const auto& [key, value] : settings) {
    Edited edited = Edited::of(adapter);
    edited.config[key] = value;
    expect_error(ErrorCode::kUnsupported, key, [&] { edited.load(); });
  }
  const std::vector<std::pair<std::string, json>> nonsense{
      {"r", 0},          {"r", "8"},           {"r", nullptr}, {"lora_alpha", -1}, {"lora_dropout", 2},
      {"use_rslora", 1}, {"lora_alpha", 1e300}};
  for (const auto& [key, value] : nonsense) {
    Edited edited = Edited::of(adapter);
    edited.config[key] = value;
    expect_error(ErrorCode::kInvalidInput, key, [&] { edited.load(); });
  }
  Edited edited = Edited::of(adapter);
  edited.config["brick"] = {{"masked", true}};
  expect_error(ErrorCode::kInvalidInput, "mask_hash", [&] { edited.load(); });
}

TEST(AdapterFile, RefusesFaultyTensorsByName) {
  const Adapter adapter = filled_adapter(tiny_model(), {.rank = 4});
  const std::string a = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight";
  const auto faulty = [&](ErrorCode code, const std::string& part, const std::function<void(Edited&)>& edit) {
    Edited edited = Edited::of(adapter);
    edit(edited);
    expect_error(code, part, [&] { edited.load(); });
  };
  faulty(ErrorCode::kNumeric, a, [&](Edited& e) { e.at(a).f32()[5] = std::numeric_limits<float>::quiet_NaN(); });
  faulty(ErrorCode::kNumeric, a, [&](Edited& e) { e.at(a).f32()[5] = std::numeric_limits<float>::infinity(); });
  faulty(ErrorCode::kCorrupt, a, [&](Edited& e) { e.erase(a); });
  faulty(ErrorCode::kCorrupt, a, [&](Edited& e) { e.at(a) = tensor::matrix(5, 32); });
  faulty(ErrorCode::kCorrupt, "rank 3", [](Edited& e) { e.config["r"] = 3; });
  faulty(ErrorCode::kUnsupported, "layers.1.self_attn.q_proj", [](Edited& e) { e.erase("1.self_attn.q_proj"); });
  faulty(ErrorCode::kUnsupported, "layer 0", [](Edited& e) { e.erase("layers.0."); });
  faulty(ErrorCode::kCorrupt, "no tensor", [](Edited& e) { e.tensors.clear(); });
  faulty(ErrorCode::kUnsupported, "lm_head",
         [](Edited& e) { e.tensors.emplace_back("base_model.model.lm_head.lora_A.weight", tensor::matrix(4, 32)); });
  faulty(ErrorCode::kCorrupt, "twice",
         [&](Edited& e) { e.tensors.emplace_back(replaced(a, ".weight", ".default.weight"), tensor::matrix(4, 32)); });
  const TempFolder folder;
  expect_error(ErrorCode::kNotFound, "nothing-here", [&] { load_adapter(folder.file("nothing-here")); });
  save_adapter(adapter, "", folder.folder("old"));
  expect_error(ErrorCode::kInvalidInput, "PEFT's folder",
               [&] { load_adapter(folder.file("old/adapter_config.json")); });
  std::filesystem::rename(folder.file("old/adapter_model.safetensors"), folder.file("old/adapter_model.bin"));
  expect_error(ErrorCode::kUnsupported, "adapter_model.bin is not read", [&] { load_adapter(folder.file("old")); });
}

}  // namespace
}  // namespace brick::model
