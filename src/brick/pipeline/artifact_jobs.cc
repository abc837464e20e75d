#include "brick/pipeline/artifact_jobs.h"

#include "brick/base/error.h"
#include "brick/io/atomic_output.h"
#include "brick/model/load.h"
#include "brick/model/merge.h"
#include "brick/model/save.h"

namespace brick::pipeline {
namespace {

// With its tokenizer where it has one: artifacts carry it along.
model::Model load_with_tokenizer_if_any(const std::string& path, const RunSettings& settings) {
  try {
    return model::load_model(path, {.tokenizer = true, .tokenizer_file = settings.tokenizer_file});
  } catch (const Error& e) {
    if (e.code() != ErrorCode::kNotFound || !settings.tokenizer_file.empty()) throw;
    return model::load_model(path, {.tokenizer = false});
  }
}

}  // namespace

int64_t bytes_on_disk(const std::filesystem::path& path) {
  if (!std::filesystem::is_directory(path)) return static_cast<int64_t>(std::filesystem::file_size(path));
  int64_t total = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(path))
    if (entry.is_regular_file()) total += static_cast<int64_t>(entry.file_size());
  return total;
}

nlohmann::json merge(const std::string& model_path, const std::string& adapter_path, const std::string& values,
                     const std::string& out, const RunSettings& settings, ProgressSink& sink) {
  io::check_output(out, settings.force);
  const model::Model model = load_with_tokenizer_if_any(model_path, settings);
  const std::optional<model::Adapter> adapter = load_fitting_adapter(adapter_path, model, sink);
  if (!adapter) fail(ErrorCode::kInvalidInput, "merge: no adapter given");
  const model::Model merged = model::merge(model, *adapter, values);
  io::AtomicFolder output(out, settings.force);
  model::save_block(merged, output.path().string());
  output.commit();
  return {{"nonzeros", merged.nonzeros()}, {"parameters", merged.parameters()}, {"bytes", bytes_on_disk(out)}};
}

nlohmann::json export_model(const std::string& model_path, const std::string& adapter_path, const std::string& format,
                            const std::string& dtype_name, const std::string& out, const RunSettings& settings,
                            ProgressSink& sink) {
  const std::optional<tensor::DType> dtype = tensor::find_dtype(dtype_name);
  if (!dtype || !(tensor::is_float(*dtype) || (format == "gguf" && tensor::is_quantised(*dtype))))
    fail(ErrorCode::kUnsupported,
         "export to {} as {}: supported are f32, f16, bf16 (hf and gguf), q8_0, q4_0, q4_1 (gguf)", format, dtype_name);
  io::check_output(out, settings.force);
  model::Model model = load_with_tokenizer_if_any(model_path, settings);
  if (const std::optional<model::Adapter> adapter = load_fitting_adapter(adapter_path, model, sink))
    model = model::merge(model, *adapter, "f32");
  if (format == "gguf") {
    // Written beside the destination, then renamed over it.
    io::AtomicFolder staging(out + ".export", true);
    const std::filesystem::path file = staging.path() / "model.gguf";
    model::export_gguf(model, *dtype, file.string());
    std::filesystem::rename(file, out);
  } else {
    io::AtomicFolder output(out, settings.force);
    model::export_hf(model, *dtype, output.path().string());
    output.commit();
  }
  return {{"bytes", bytes_on_disk(out)}, {"format", format}, {"dtype", dtype_name}};
}

}  // namespace brick::pipeline
