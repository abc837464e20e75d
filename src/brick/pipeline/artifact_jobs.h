// `brick merge` and `brick export`: a model or adapter in another form.
#pragma once

#include "brick/pipeline/workbench.h"

namespace brick::pipeline {

// The adapter added into the weights; a masked one keeps the block's zeros. {"nonzeros", "parameters", "bytes"}
nlohmann::json merge(const std::string& model, const std::string& adapter, const std::string& values,
                     const std::string& out, const RunSettings& settings, ProgressSink& sink);

// format gguf (a file) or hf (a folder); dtype as the command's help lists. {"bytes"}
nlohmann::json export_model(const std::string& model, const std::string& adapter, const std::string& format,
                            const std::string& dtype, const std::string& out, const RunSettings& settings,
                            ProgressSink& sink);

// Bytes of a file, or of all files in a folder.
int64_t bytes_on_disk(const std::filesystem::path& path);

}  // namespace brick::pipeline
