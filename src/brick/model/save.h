// Models to disk. Folders must exist and be empty: callers make them atomic. A model without tokenizer is
// written without. A weight that the dtype cannot hold is an Error(kNumeric) naming it.
#pragma once

#include <string>

#include "brick/model/adapter.h"
#include "brick/model/model.h"

namespace brick::model {

// A block's folder: config.json (Hugging Face's keys and a `brick` section), model.safetensors in the bitmask
// layout, tokenizer files. Loads again with load_model. Also writes models whose weights stay in a block
// format.
void save_block(const Model& model, const std::string& folder);

// For transformers: dense, zeros written out. dtype f32, f16 or bf16. Biases are zeros where transformers wants some
// and the model has none. Error(kUnsupported) for rotary frequencies that config.json cannot say, for layers of
// different widths, and for biases in a model whose heads do not divide its width, which transformers' Llama must have.
// `pad` fills the latter two up with zeros (pad.h). Returns how many bytes that adds to the weights.
int64_t export_hf(const Model& model, tensor::DType dtype, const std::string& folder, bool pad = false);

// For llama.cpp: general.architecture llama, rows of Q and K in its order. dtype f32, f16, bf16, q8_0, q4_0,
// q4_1, q4_k, q6_k; the quantised ones are mixtures (gguf_mixture.h); norms stay f32. Atomic by itself; an existing
// file without `force` is an Error(kExists).
void export_gguf(const Model& model, tensor::DType dtype, const std::string& file, bool force = false);

// The adapter alone, for llama.cpp's --lora beside an exported GGUF of `model`: rows in that file's order. dtype f32,
// f16 or bf16. Error(kUnsupported) for a masked adapter, whose delta no two thin matrices give; Error(kMismatch) as in
// check_fits. Atomic as above.
void export_adapter_gguf(const Adapter& adapter, const Model& model, tensor::DType dtype, const std::string& file,
                         bool force = false);

}  // namespace brick::model
