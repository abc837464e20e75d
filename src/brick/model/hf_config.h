// config.json of a Hugging Face Llama, as transformers 4 and 5 write it.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

#include "brick/model/config.h"

namespace brick::model {

// `what` names the file in messages. Absent keys take transformers' defaults. Error(kUnsupported) for another
// model type and for anything that changes the arithmetic (another activation, quantised weights, a Mistral's biases;
// a Llama's may be zeros), kInvalidInput for a value of the wrong type; each names the key. The result is valid.
ModelConfig config_from_hf(const nlohmann::json& json, std::string_view what);

// Keys that transformers 4 and 5 read, architectures and dtype not among them.
nlohmann::json config_to_hf(const ModelConfig& config);

// The key that says whether transformers' Llama has a bias there: all four weights of attention or none, all three of
// the feed-forward or none.
const char* bias_key(Proj proj);

// Whether rope_theta and rope_scaling say the rotary frequencies; a GGUF file may have any.
bool rope_says_frequencies(const ModelConfig& config);

// The shortest decimal that reads back as `value`, so that 1e-5f is written as 1e-05; never an integer.
nlohmann::json json_number(float value);

}  // namespace brick::model
