// Models to disk. Folders must exist and be empty: callers make them atomic. A model without tokenizer is
// written without. A weight that f16 cannot hold is an Error(kNumeric) naming it.
#pragma once

#include <string>

#include "brick/model/model.h"

namespace brick::model {

// A block's folder: config.json (Hugging Face's keys and a `brick` section), model.safetensors in the bitmask
// layout, tokenizer files. Loads again with load_model. Also writes models whose weights stay in a block
// format.
void save_block(const Model& model, const std::string& folder);

// For transformers: dense, zeros written out. dtype f32, f16 or bf16. Error(kUnsupported) for layers of
// different widths and rotary frequencies that config.json cannot say.
void export_hf(const Model& model, tensor::DType dtype, const std::string& folder);

// For llama.cpp: general.architecture llama, rows of Q and K in its order. dtype f32, f16, bf16, q8_0, q4_0,
// q4_1; norms stay f32, rows that are no multiple of 32 fall back to f16. Atomic by itself; an existing file
// without `force` is an Error(kExists).
void export_gguf(const Model& model, tensor::DType dtype, const std::string& file, bool force = false);

}  // namespace brick::model
