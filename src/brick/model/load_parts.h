// Pieces that the loaders of one format each share.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "brick/io/gguf.h"
#include "brick/io/safetensors.h"
#include "brick/model/load.h"
#include "brick/model/model.h"

namespace brick::model {

// What a path names: a GGUF file, or a folder's config.json. Where it is part of a folder, or an adapter's, the Error
// says what to name instead.
io::GgufFile open_gguf(const std::string& path);
nlohmann::json read_config_json(const std::string& folder);

// One loader a format. None fills Model::tokenizer or Model::source; shapes are not checked against the
// configuration yet (check_shapes).
Model load_gguf_weights(const io::GgufFile& file);
Model load_hf_weights(const std::string& folder, const nlohmann::json& config);
Model load_block_weights(const std::string& folder, const nlohmann::json& config);

// A matrix in the file's encoding; `keep` owns its bytes. Error naming file and tensor.
tensor::Matrix load_matrix(const std::string& file, const std::string& name, const tensor::TensorView& view,
                           std::shared_ptr<const void> keep);
// A norm's weights as float32, finite ones.
std::vector<float> load_norm(const std::string& file, const std::string& name, const tensor::TensorView& view);

// Error(kUnsupported) naming the first tensor of the set that is not in `known` and changes what the model
// computes.
void refuse_others(const io::SafetensorsSet& set, const std::vector<std::string>& known);

// Names of the tensors that every Llama of that many layers has, in Hugging Face's words.
std::string attention_norm_name(int64_t layer);
std::string ffn_norm_name(int64_t layer);

// Names in a block's file of the kept query heads, key/value heads and neurons of a layer.
std::array<std::string, 3> kept_names(int64_t layer);
inline constexpr const char* kKeptChannels = "model.kept_channels";  // of a narrowed residual stream

}  // namespace brick::model
