// The keys and values of a prompt in a file, so that a later run need not compute them again. A safetensors file:
// `ids` I32 [n], and for each layer `keys.<l>` and `values.<l>` F32 [n, K head_dim].
#pragma once

#include <filesystem>
#include <string>

#include "brick/model/decode.h"

namespace brick::model {

// Hash of what keys and values depend on beside the ids: the model with its masks and stored weights (the ends of each
// matrix's bytes stand for it), the adapter, the arithmetic.
std::string cache_identity(const Model& model, const Adapter* adapter, const kernels::Context& context);

// Replaces `path`, atomically.
void save_prompt_cache(const std::filesystem::path& path, const std::string& identity, const Decoder& decoder);

// Gives a decoder that has no tokens yet those that `ids` and the file share at their beginnings; returns how many.
// Error(kMismatch) for another identity, kCorrupt if the file is no prompt cache or its shapes disagree.
int64_t load_prompt_cache(const std::filesystem::path& path, const std::string& identity, std::span<const int32_t> ids,
                          Decoder& decoder);

}  // namespace brick::model
