// Pieces that the writers share.
#pragma once

#include <string>

#include "brick/io/tensor_source.h"
#include "brick/model/model.h"

namespace brick::model {

// What exports call the model: its source's file name without extension.
std::string model_name(const Model& model);

// Error(kNumeric) naming `name` where a value is not finite or too large for `dtype` (that of f16 also for the block
// formats, whose scales it is).
void check_holds(tensor::DType dtype, const float* values, int64_t count, const std::string& name);

// Streams the matrix as dense rows of `dtype`, zeros written out. With head_dim > 0, rows go in the order of
// GGUF's queries and keys (gguf_layout.h). Rows that are already so encoded are passed as they are.
// Errors as check_holds.
io::TensorSource encoded_rows(std::string name, tensor::Matrix weight, tensor::DType dtype, int64_t head_dim = 0);

// tokenizer.json, tokenizer_config.json, special_tokens_map.json, generation_config.json, as far as the model
// has them.
void write_tokenizer_files(const Model& model, const std::string& folder);

}  // namespace brick::model
