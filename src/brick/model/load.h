// Models from disk: a GGUF file, a Hugging Face folder, or a block's folder (docs/block-format.md). Weights
// stay in the file's encoding and, but for rows that need reordering, in its mapping.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "brick/model/model.h"

namespace brick::model {

struct LoadOptions {
  bool tokenizer = true;          // fill Model::tokenizer
  bool require_tokenizer = true;  // Error where the model has none of a known kind; otherwise it stays empty
  // Take it from here instead: tokenizer.json, tokenizer.model or llama2.c's .bin.
  std::string tokenizer_file{};
};

Model load_model(const std::string& path, const LoadOptions& options = {});

// What `brick info` prints, from the headers alone.
struct ModelSummary {
  std::string architecture;
  std::string dtype;  // the commonest among the layers' linear weights ("q4_1", "bf16", ...)
  int64_t parameters = 0, nonzeros = 0, bytes = 0;
  int64_t layers = 0, hidden = 0, heads = 0, kv_heads = 0, ffn = 0, vocab = 0;
  std::map<std::string, int64_t> tensors_by_dtype;
  std::vector<LayerShape> widths;  // of each layer, where they differ or were cut
  BlockSpec block;                 // without the kept indices
};
// `scan` counts the exact zeros of every weight instead of trusting the headers.
ModelSummary summarise(const std::string& path, bool scan);

}  // namespace brick::model
