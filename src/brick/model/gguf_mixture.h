// Which encoding each matrix of a GGUF file takes. "q4_k" names a mixture, not one type for all.
#pragma once

#include <vector>

#include "brick/model/model.h"

namespace brick::model {

struct GgufMixture {
  uint32_t file_type;  // llama.h, enum llama_ftype
  tensor::DType embedding, head;
  std::vector<std::array<tensor::DType, kProjCount>> layers;
};

// What llama.cpp's llama_model_quantize chooses (src/llama-quant.cpp, without importance matrix) for its file types
// F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q4_K (which is Q4_K_M) and Q6_K:
//   - the head, or the embedding where it is the head: Q6_K in files of other quantised types than Q8_0;
//   - Q4_K_M: values and down projections of the first and last eighth of the layers and of every third between: Q6_K;
//   - rows that are no multiple of 256: Q4_K becomes Q5_0, Q5_K Q5_1, Q6_K Q8_0; no multiple of 32: F16.
// Error(kInvalidInput) for any other dtype.
GgufMixture gguf_mixture(const Model& model, tensor::DType dtype);

}  // namespace brick::model
