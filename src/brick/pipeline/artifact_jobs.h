// `brick merge` and `brick export`: a model or adapter in another form.
#pragma once

#include "brick/pipeline/workbench.h"

namespace brick::pipeline {

// The adapter added into the weights; a masked one keeps the block's zeros. {"nonzeros", "parameters", "bytes"}
nlohmann::json merge(const std::string& model, const std::string& adapter, const std::string& values,
                     const std::string& out, const RunSettings& settings, ProgressSink& sink);

struct ExportRequest {
  std::string model, adapter;  // the adapter, if any, is merged first
  std::string format;          // gguf (a file), hf or block (folders)
  std::string dtype;           // as the command's help lists
  std::string out;
  bool adapter_only = false;  // the adapter itself as a GGUF
  bool modelfile = false;     // also <out>.Modelfile, for Ollama
  bool pad = false;           // of hf: layers of several widths filled up with zeros (model/save.h)
};

// What its dtype names. Error(kUnsupported) for one that there is not in its format, kInvalidInput for parts of the
// request that do not go together.
tensor::DType export_dtype(const ExportRequest& request);

// block: a model pruned elsewhere, its zeros as masks. {"bytes", "format", "dtype"}, with `pad` also "padded_bytes";
// bytes are of `out`, padded ones what the padding added to its weights.
nlohmann::json export_model(const ExportRequest& request, const RunSettings& settings, ProgressSink& sink);

}  // namespace brick::pipeline
