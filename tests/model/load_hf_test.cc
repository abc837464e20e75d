// Hugging Face folders: what is read, and what is refused by name.
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <numbers>

#include "brick/io/json_file.h"
#include "brick/io/safetensors.h"
#include "brick/model/hf_config.h"
#include "brick/model/load.h"
#include "brick/model/save.h"
#include "model/compare.h"
#include "model/expect_error.h"
#include "model/logits.h"
#include "model/tiny_model.h"

namespace brick::model {
namespace {

using nlohmann::json;
using tensor::DType;

constexpr LoadOptions kNoTokenizer{.tokenizer = false};

json plain_config() { return config_to_hf(tiny_model().config); }

ModelConfig read(json config) { return config_from_hf(config, "config.json"); }

TEST(HfConfig, ReadsWhatTransformersWrites) {
  json config = plain_config();
  config["eos_token_id"] = {2, 7};
  config["rms_norm_eps"] = 1e-5;
  ModelConfig read_config = read(config);
  EXPECT_EQ(read_config.eos, 2);
  EXPECT_EQ(read_config.norm_eps, 1e-5f);
  EXPECT_EQ(read_config.head_dim, 8);

  json sparse = config;  // defaults of LlamaConfig
  for (const char* key : {"num_key_value_heads", "head_dim", "rms_norm_eps", "rope_theta", "rope_scaling",
                          "tie_word_embeddings", "max_position_embeddings", "bos_token_id", "hidden_act"})
    sparse.erase(key);
  read_config = read(sparse);
  EXPECT_EQ(read_config.kv_heads, 4);
  EXPECT_EQ(read_config.head_dim, 8);
  EXPECT_EQ(read_config.norm_eps, 1e-6f);
  EXPECT_EQ(read_config.rope_theta, 10000.0f);
  EXPECT_EQ(read_config.context, 2048);
  EXPECT_FALSE(read_config.tied_head);
  EXPECT_EQ(read_config.bos, std::nullopt);
}

TEST(HfConfig, RotaryScalingOfBothGenerations) {
  const json llama3{{"rope_type", "llama3"},
                    {"factor", 8.0},
                    {"low_freq_factor", 1.0},
                    {"high_freq_factor", 4.0},
                    {"original_max_position_embeddings", 32}};
  json four = plain_config(), five = plain_config();
  four["rope_theta"] = 500.0;
  four["rope_scaling"] = llama3;
  five.erase("rope_theta");
  five.erase("rope_scaling");
  five["rope_parameters"] = llama3;
  five["rope_parameters"]["rope_theta"] = 500.0;
  EXPECT_EQ(read(four).inverse_frequency, read(five).inverse_frequency);
  EXPECT_EQ(read(four).rope_scaling, read(five).rope_scaling);
  EXPECT_NE(read(four).inverse_frequency, read(plain_config()).inverse_frequency);
  EXPECT_EQ(read(config_to_hf(read(five))).inverse_frequency, read(five).inverse_frequency);

  json linear = plain_config();
  linear["rope_scaling"] = {{"type", "linear"}, {"factor", 2.0}};
  EXPECT_EQ(read(linear).inverse_frequency[0], 0.5f);
  for (const double factor : {0.0, -2.0}) {
    linear["rope_scaling"]["factor"] = factor;
    expect_error(ErrorCode::kInvalidInput, "gives the frequency", [&] { read(linear); });
  }
  four["rope_scaling"]["low_freq_factor"] = four["rope_scaling"]["high_freq_factor"] = 1.0;
  four["rope_scaling"]["original_max_position_embeddings"] = 2.0f * std::numbers::pi_v<float>;  // the first wavelength
  expect_error(ErrorCode::kInvalidInput, "gives the frequency", [&] { read(four); });
  json none = plain_config();
  none["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 10000.0}};
  EXPECT_EQ(read(none).rope_scaling, "");
  json yarn = plain_config();
  yarn["rope_scaling"] = {{"rope_type", "yarn"}, {"factor", 2.0}};
  expect_error(ErrorCode::kUnsupported, "yarn", [&] { read(yarn); });
  yarn["rope_scaling"] = {{"factor", 2.0}};
  expect_error(ErrorCode::kInvalidInput, "no rope_type", [&] { read(yarn); });
  yarn["rope_scaling"] = {{"rope_type", "llama3"}, {"factor", 2.0}};
  expect_error(ErrorCode::kInvalidInput, "low_freq_factor", [&] { read(yarn); });
}

TEST(HfConfig, RefusesOthersByName) {
  const std::vector<std::pair<std::string, json>> kinds{{"architectures", {"Qwen2ForCausalLM"}},
                                                        {"model_type", "qwen2"},
                                                        {"hidden_act", "gelu"},
                                                        {"quantization_config", {{"bits", 4}}},
                                                        {"partial_rotary_factor", 0.5}};
  for (const auto& [key, value] : kinds) {
    json config = plain_config();
    config[key] = value;
    expect_error(ErrorCode::kUnsupported, key, [&] { read(config); });
  }
  const std::vector<std::pair<std::string, json>> nonsense{{"num_hidden_layers", "2"},
                                                           {"num_hidden_layers", nullptr},
                                                           {"hidden_size", 3.5},
                                                           {"num_attention_heads", 0},
                                                           {"vocab_size", json::array()},
                                                           {"tie_word_embeddings", 1},
                                                           {"rms_norm_eps", "small"},
                                                           {"eos_token_id", -2},
                                                           {"intermediate_size", 18446744073709551615u},
                                                           {"head_dim", 1000000},
                                                           {"rope_scaling", 3}};
  for (const auto& [key, value] : nonsense) {
    json config = plain_config();
    config[key] = value;
    expect_error(ErrorCode::kInvalidInput, key, [&] { read(config); });
  }
  json odd = plain_config();
  odd["num_key_value_heads"] = 3;
  expect_error(ErrorCode::kInvalidInput, "multiple of 3", [&] { read(odd); });
  expect_error(ErrorCode::kInvalidInput, "model_type", [] { read(json::object()); });
  expect_error(ErrorCode::kInvalidInput, "object", [] { read(json::array()); });
}

TEST(HfFolder, EveryFloatTypeComesBack) {
  for (const auto& [dtype, tolerance] : {std::pair{DType::kF32, 0.0f}, {DType::kF16, 2e-3f}, {DType::kBF16, 1e-2f}}) {
    for (const bool tied : {true, false}) {
      const TempFolder folder;
      const Model model = tiny_model({.kv_heads = 1, .tied = tied});
      export_hf(model, dtype, folder.folder("m"));
      const Model back = load_model(folder.file("m"), kNoTokenizer);
      back.drop_pages();  // the weights are read again
      expect_same_model(model, back, tolerance);
      EXPECT_EQ(back.layers[0][Proj::kQ].dtype(), dtype);
      EXPECT_EQ(back.source, folder.file("m"));
      if (dtype != DType::kF16) {
        EXPECT_EQ(fingerprint(back), fingerprint(model));
      }
    }
  }
}

TEST(HfFolder, WidthsThatAreNoMultipleOfTheHeadsAreMistrals) {
  const TempFolder folder;
  const Model model = tiny_model({.hidden = 30});
  export_hf(model, DType::kF32, folder.folder("m"));
  json config = io::read_json_file(folder.file("m/config.json"));
  EXPECT_EQ(config["model_type"], "mistral");
  EXPECT_EQ(config["architectures"], json({"MistralForCausalLM"}));
  ASSERT_TRUE(config.contains("sliding_window") && config["sliding_window"].is_null());
  expect_same_model(model, load_model(folder.file("m"), kNoTokenizer), 0.0f);
  config["sliding_window"] = 4096;
  expect_error(ErrorCode::kUnsupported, "sliding window", [&] { read(config); });
  config.erase("sliding_window");
  expect_error(ErrorCode::kUnsupported, "sliding window", [&] { read(config); });
  config["sliding_window"] = nullptr;
  for (const char* key : {"attention_bias", "mlp_bias"}) {
    config[key] = true;
    expect_error(ErrorCode::kUnsupported, key, [&] { read(config); });
    config[key] = false;
  }
}

TEST(HfFolder, BiasesComeWithZerosForThoseThatAreNone) {
  const TempFolder folder;
  Model model = tiny_model();
  model.layers[1].o_bias.assign(32, 0.25f);
  EXPECT_EQ(export_hf(model, DType::kF32, folder.folder("m")), 0);
  const json config = io::read_json_file(folder.file("m/config.json"));
  EXPECT_EQ(config["attention_bias"], true);
  EXPECT_EQ(config["mlp_bias"], false);
  const auto file = io::SafetensorsFile::open(folder.file("m/model.safetensors"));
  for (int64_t layer : {0, 1})
    for (Proj proj : kProjs) {
      const std::string name = bias_name(layer, proj);
      ASSERT_EQ(file.find_tensor(name) != nullptr, proj <= Proj::kO) << name;
      if (proj > Proj::kO) continue;
      const tensor::Tensor bias = tensor::to_f32(file.tensor(name));
      EXPECT_EQ(bias.size(), model.layers[0][proj].rows());
      EXPECT_EQ(bias.f32()[3], layer == 1 && proj == Proj::kO ? 0.25f : 0.0f) << name;
    }
  const Model back = load_model(folder.file("m"), kNoTokenizer);
  expect_same_model(model, back);
  EXPECT_TRUE(back.layers[0].o_bias.empty());
  EXPECT_EQ(back.layers[1].o_bias, model.layers[1].o_bias);
}

TEST(HfFolder, BiasesWantHeadsThatDivideTheWidth) {
  const TempFolder folder;
  Model model = tiny_model({.hidden = 30});
  model.layers[0].down_bias.assign(30, 0.5f);
  expect_error(ErrorCode::kUnsupported, "--pad", [&] { export_hf(model, DType::kF32, folder.folder("refused")); });
  // Five heads would be no whole groups of two key/value heads. Two more of 8 in q and o of two layers:
  EXPECT_EQ(export_hf(model, DType::kF32, folder.folder("m"), true), 4 * 2 * 2 * 16 * 30);
  EXPECT_EQ(io::read_json_file(folder.file("m/config.json"))["model_type"], "llama");
  const Model back = load_model(folder.file("m"), kNoTokenizer);
  EXPECT_EQ(back.layers[1].shape, (LayerShape{6, 2, 8, 64}));
  expect_near(logits_of(back), logits_of(model), 1e-5f);  // float32 sums in another order
  Model prime = tiny_model({.hidden = 31});
  prime.layers[0].down_bias.assign(31, 0.5f);
  expect_error(ErrorCode::kUnsupported, "GGUF", [&] { export_hf(prime, DType::kF32, folder.folder("p"), true); });
}

// Exports a model, edits its files and loads them.
struct Files {
  json config;
  std::vector<std::pair<std::string, tensor::Tensor>> tensors;

  tensor::Tensor& at(const std::string& name) {
    for (auto& [key, value] : tensors)
      if (key == name) return value;
    throw std::out_of_range(name);
  }
  void erase(const std::string& name) {
    std::erase_if(tensors, [&](const auto& t) { return t.first == name; });
  }
};
Model load_edited(const TinyOptions& options, const std::function<void(Files&)>& edit) {
  static const TempFolder folder;
  static int count = 0;
  const std::string from = std::to_string(count++), to = std::to_string(count++);
  export_hf(tiny_model(options), DType::kF32, folder.folder(from));
  const auto file = io::SafetensorsFile::open(folder.file(from + "/model.safetensors"));
  Files files{io::read_json_file(folder.file(from + "/config.json")), {}};
  for (const auto& info : file.tensors()) files.tensors.emplace_back(info.name, tensor::to_f32(file.tensor(info)));
  edit(files);
  folder.folder(to);
  io::write_json_file(folder.file(to + "/config.json"), files.config);
  io::SafetensorsWriter writer;
  for (const auto& [name, value] : files.tensors) writer.add_tensor(name, value.view());
  writer.write(folder.file(to + "/model.safetensors"));
  return load_model(folder.file(to), kNoTokenizer);
}

TEST(HfFolder, ToleratesWhatChangesNothing) {
  const Model model = load_edited({}, [](Files& f) {
    f.tensors.emplace_back("lm_head.weight", f.at("model.embed_tokens.weight").clone());
    f.tensors.emplace_back("model.layers.0.self_attn.rotary_emb.inv_freq", tensor::matrix(1, 4));
  });
  EXPECT_FALSE(model.own_head.has_value());
}

TEST(HfFolder, RefusesFaultyTensorsByName) {
  const auto refused = [](ErrorCode code, const std::string& part, const std::function<void(Files&)>& edit,
                          bool tied = true) { expect_error(code, part, [&] { load_edited({.tied = tied}, edit); }); };
  const std::string up = "model.layers.1.mlp.up_proj.weight", norm = "model.layers.1.input_layernorm.weight";
  refused(ErrorCode::kNotFound, up, [&](Files& f) { f.erase(up); });
  refused(ErrorCode::kNotFound, norm, [&](Files& f) { f.erase(norm); });
  refused(
      ErrorCode::kNotFound, "lm_head.weight", [](Files& f) { f.erase("lm_head.weight"); }, false);
  refused(ErrorCode::kUnsupported, "q_proj.bias",
          [](Files& f) { f.tensors.emplace_back("model.layers.0.self_attn.q_proj.bias", tensor::matrix(1, 32)); });
  const auto with_biases = [](Files& f, float query) {
    f.config["attention_bias"] = true;
    for (int64_t layer : {0, 1})
      for (Proj proj : {Proj::kQ, Proj::kK, Proj::kV, Proj::kO}) {
        tensor::Tensor bias(DType::kF32, {f.at(weight_name(layer, proj)).shape()[0]});
        if (proj == Proj::kQ) bias.f32()[1] = query;
        f.tensors.emplace_back(bias_name(layer, proj), std::move(bias));
      }
  };
  EXPECT_TRUE(load_edited({}, [&](Files& f) { with_biases(f, 0.0f); }).layers[0].o_bias.empty());
  refused(ErrorCode::kUnsupported, "q_proj.bias", [&](Files& f) { with_biases(f, 0.5f); });
  refused(ErrorCode::kNotFound, "gate_proj.bias", [](Files& f) { f.config["mlp_bias"] = true; });
  refused(ErrorCode::kUnsupported, "tensor \"\\x1B[2J\"",
          [](Files& f) { f.tensors.emplace_back("\x1B[2J", tensor::matrix(1, 32)); });
  refused(ErrorCode::kUnsupported, "model.layers.2",
          [](Files& f) { f.tensors.emplace_back("model.layers.2.mlp.up_proj.weight", tensor::matrix(64, 32)); });
  refused(ErrorCode::kCorrupt, up, [&](Files& f) { f.at(up) = tensor::matrix(32, 64); });
  refused(ErrorCode::kCorrupt, up, [&](Files& f) { f.at(up) = tensor::Tensor(DType::kF32, {64 * 32}); });
  refused(ErrorCode::kUnsupported, up, [&](Files& f) { f.at(up) = tensor::Tensor(DType::kI32, {64, 32}); });
  refused(ErrorCode::kCorrupt, norm, [&](Files& f) { f.at(norm) = tensor::Tensor(DType::kF32, {31}); });
  refused(ErrorCode::kCorrupt, norm, [&](Files& f) { f.at(norm) = tensor::matrix(1, 32); });
  refused(ErrorCode::kNumeric, norm, [&](Files& f) { f.at(norm).f32()[3] = std::numeric_limits<float>::quiet_NaN(); });
  const TempFolder empty;
  expect_error(ErrorCode::kNotFound, "config.json", [&] { load_model(empty.path().string()); });
  io::write_json_file(empty.file("adapter_config.json"), json::object());
  io::write_json_file(empty.file("model.safetensors"), json::object());
  for (const bool scan : {false, true}) {
    const auto look = [scan](const std::string& path) { scan ? (void)load_model(path) : (void)summarise(path, false); };
    expect_error(ErrorCode::kInvalidInput, "--adapter", [&] { look(empty.path().string()); });
    expect_error(ErrorCode::kInvalidInput, "the folder that holds it", [&] { look(empty.file("model.safetensors")); });
  }
}

TEST(HfFolder, TokenizerIsAskedForOrNot) {
  const TempFolder folder;
  const Model model = tiny_model({.tokenizer = true});
  export_hf(model, DType::kF32, folder.folder("with"));
  export_hf(tiny_model(), DType::kF32, folder.folder("without"));
  EXPECT_EQ(load_model(folder.file("with")).tokenizer->tokens, model.tokenizer->tokens);
  EXPECT_FALSE(load_model(folder.file("with"), kNoTokenizer).tokenizer.has_value());
  expect_error(ErrorCode::kNotFound, "tokenizer", [&] { load_model(folder.file("without")); });
  EXPECT_FALSE(load_model(folder.file("without"), {.require_tokenizer = false}).tokenizer.has_value());
  const Model lent = load_model(folder.file("without"), {.tokenizer_file = folder.file("with/tokenizer.json")});
  EXPECT_EQ(lent.tokenizer->tokens, model.tokenizer->tokens);
  EXPECT_EQ(lent.tokenizer->chat_template, model.tokenizer->chat_template);
  Model small = tiny_model();
  small.tokenizer = tiny_tokenizer(120);
  export_hf(small, DType::kF32, folder.folder("larger"));
  expect_error(ErrorCode::kMismatch, "120 tokens", [&] { load_model(folder.file("larger")); });
}

}  // namespace
}  // namespace brick::model
