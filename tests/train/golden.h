// tests/golden/peft_golden.safetensors (made by make_peft_golden.py) as this project's types.
#pragma once

#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "brick/data/sequences.h"
#include "brick/io/json_file.h"
#include "brick/io/safetensors.h"
#include "brick/model/adapter.h"
#include "brick/model/load.h"
#include "model/tiny_model.h"

namespace brick::train {

// "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
inline std::string peft_name(int64_t layer, model::Proj proj, char factor) {
  return "base_model.model.model.layers." + std::to_string(layer) + "." + std::string(model::module_path(proj)) +
         ".lora_" + factor + ".weight";
}

struct Golden {
  model::Model model;
  model::Adapter adapter;
  model::Adapter gradients;  // of `loss`
  model::Adapter after;      // the steps
  std::vector<data::TokenSequence> sequences;
  double loss = 0;  // mean over all supervised tokens
  std::vector<float> step_losses;
  double learning_rate = 0;
};

// Model and adapter go through folders, as transformers and PEFT would write them.
inline Golden load_golden() {
  const auto file = io::SafetensorsFile::open(BRICK_TEST_SOURCE_DIR "/golden/peft_golden.safetensors");
  const nlohmann::json about = nlohmann::json::parse(file.metadata().at("golden"));
  const TempFolder temp;
  const auto read_adapter = [&](const std::string& prefix) {
    const std::filesystem::path folder = temp.folder("adapter" + prefix);
    io::SafetensorsWriter writer;
    for (const io::SafetensorInfo& info : file.tensors())
      if (info.name.rfind(prefix + "base_model.", 0) == 0)
        writer.add_tensor(info.name.substr(prefix.size()), file.tensor(info));
    writer.write(folder / "adapter_model.safetensors");
    io::write_json_file(folder / "adapter_config.json", about.at("adapter_config"));
    return model::load_adapter(folder.string());
  };
  Golden golden;
  const std::filesystem::path folder = temp.folder("model");
  io::SafetensorsWriter writer;
  for (const io::SafetensorInfo& info : file.tensors())
    if (info.name.rfind("model.", 0) == 0) writer.add_tensor(info.name, file.tensor(info));
  writer.write(folder / "model.safetensors");
  io::write_json_file(folder / "config.json", about.at("config"));
  golden.model = model::load_model(folder.string(), {.tokenizer = false});
  golden.adapter = read_adapter("");
  golden.gradients = read_adapter("gradient.");
  golden.after = read_adapter("after.");

  const auto numbers = [&]<class T>(const std::string& name, T) {
    const tensor::TensorView view = file.tensor(name);
    std::vector<T> values(view.bytes.size() / sizeof(T));
    std::memcpy(values.data(), view.bytes.data(), view.bytes.size());
    return values;
  };
  const auto ids = numbers("ids", int32_t{});
  const auto supervised = numbers("supervised", uint8_t{});
  const auto offsets = numbers("offsets", int64_t{});
  for (size_t s = 0; s + 1 < offsets.size(); ++s)
    golden.sequences.push_back({{ids.begin() + offsets[s], ids.begin() + offsets[s + 1]},
                                {supervised.begin() + offsets[s], supervised.begin() + offsets[s + 1]}});
  golden.loss = numbers("loss", float{}).front();
  golden.step_losses = numbers("step_losses", float{});
  golden.learning_rate = about.at("learning_rate");
  return golden;
}

}  // namespace brick::train
