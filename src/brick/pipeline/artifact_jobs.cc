#include "brick/pipeline/artifact_jobs.h"

#include <algorithm>
#include <array>

#include "brick/base/error.h"
#include "brick/io/atomic_output.h"
#include "brick/io/json_file.h"
#include "brick/io/provenance.h"
#include "brick/model/from_zeros.h"
#include "brick/model/load.h"
#include "brick/model/merge.h"
#include "brick/model/save.h"
#include "brick/model/save_parts.h"
#include "brick/pipeline/artifacts.h"
#include "brick/text/chat_template.h"
#include "brick/text/modelfile.h"

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

std::string modelfile_text(const model::Model& model, const std::string& gguf) {
  std::optional<text::ChatTemplate> style;
  std::string eos;
  if (model.tokenizer) {
    style = text::detect_chat_template(model.tokenizer->chat_template);
    if (model.tokenizer->eos) eos = model.tokenizer->tokens[static_cast<size_t>(*model.tokenizer->eos)];
  }
  return text::ollama_modelfile("./" + std::filesystem::path(gguf).filename().string(), style, eos);
}

model::Model block_of_zeros(const model::Model& model, tensor::DType dtype, const RunSettings& settings) {
  model::Model block = model::block_from_zeros(model, dtype);
  const nlohmann::json found = {
      {"model", model::model_name(model)}, {"method", block.block.method}, {"values", block.block.values}};
  block.block.provenance =
      nlohmann::json(io::Provenance{tool_version(), block.block.parent, io::compact_json(found), settings.seed}).dump();
  return block;
}

// What the model says of its origin; begun here where it says nothing.
nlohmann::json provenance_of(const model::Model& model, const RunSettings& settings) {
  if (!model.block.provenance.empty()) {
    nlohmann::json said = io::parse_json(model.block.provenance, model.source + ": provenance");
    const nlohmann::json config =
        said.is_object() ? said.value("config", nlohmann::json::object()) : nlohmann::json(nullptr);
    if (!config.is_object())
      fail(ErrorCode::kCorrupt, "{}: provenance is no object with an object 'config'", model.source);
    if (const auto merged = config.find("merged"); merged != config.end() && !merged->is_array())
      fail(ErrorCode::kCorrupt, "{}: provenance: config.merged is no list", model.source);
    return said;
  }
  const nlohmann::json config = {{"model", model::model_name(model)}};
  return io::Provenance{tool_version(), model::fingerprint(model), io::compact_json(config), settings.seed};
}

// The adapter merged into the weights, and recorded.
model::Model merge_adapter(const model::Model& model, const model::Adapter& adapter, const std::string& path,
                           const std::string& values, const RunSettings& settings, ProgressSink& sink) {
  if (!adapter.config.masked && !model::mask_hash(model).empty())
    sink.warn(fmt::format("adapter {} is not masked: merging it fills the block's zeros", path));
  nlohmann::json provenance = provenance_of(model, settings);
  model::Model merged = model::merge(model, adapter, values);
  provenance["config"]["merged"].push_back({{"adapter_sha256", io::hash_path(path)},
                                            {"rank", adapter.config.rank},
                                            {"masked", adapter.config.masked},
                                            {"values", values},
                                            {"tool_version", tool_version()}});
  merged.block.provenance = io::compact_json(provenance);
  return merged;
}

}  // namespace

nlohmann::json merge(const std::string& model_path, const std::string& adapter_path, const std::string& values,
                     const std::string& out, const RunSettings& settings, ProgressSink& sink) {
  check_output(out, settings, {model_path, adapter_path});
  const model::Model model = load_with_tokenizer_if_any(model_path, settings);
  const std::optional<model::Adapter> adapter = load_fitting_adapter(adapter_path, model, sink);
  if (!adapter) fail(ErrorCode::kInvalidInput, "merge: no adapter given");
  const model::Model merged = merge_adapter(model, *adapter, adapter_path, values, settings, sink);
  write_block(merged, out, settings.force);
  return {{"nonzeros", merged.nonzeros()}, {"parameters", merged.parameters()}, {"bytes", bytes_on_disk(out)}};
}

tensor::DType export_dtype(const ExportRequest& request) {
  constexpr std::array<std::string_view, 5> kGgufOnly{"q8_0", "q4_0", "q4_1", "q4_k", "q6_k"};
  if (request.adapter_only && (request.adapter.empty() || request.format != "gguf"))
    fail(ErrorCode::kInvalidInput, "export of an adapter alone: needs an adapter and the format gguf");
  if (request.modelfile && (request.adapter_only || request.format != "gguf"))
    fail(ErrorCode::kInvalidInput, "a Modelfile goes with a whole model in the format gguf");
  if (request.modelfile && std::ranges::any_of(request.out, [](unsigned char c) { return c < ' '; }))
    fail(ErrorCode::kInvalidInput, "a Modelfile's lines cannot name a file with control characters in its name");
  if (request.pad && request.format != "hf")
    fail(ErrorCode::kInvalidInput, "padding goes with the format hf; {} takes layers as they are", request.format);
  const std::optional<tensor::DType> dtype = tensor::find_dtype(request.dtype);
  const bool quantised = request.format == "gguf" && !request.adapter_only &&
                         std::find(kGgufOnly.begin(), kGgufOnly.end(), request.dtype) != kGgufOnly.end();
  if (!dtype || !(tensor::is_float(*dtype) || quantised))
    fail(ErrorCode::kUnsupported, "export to {} as {}: supported are f32, f16, bf16 and for models as gguf {}",
         request.format, request.dtype, fmt::join(kGgufOnly, ", "));
  return *dtype;
}

nlohmann::json export_model(const ExportRequest& request, const RunSettings& settings, ProgressSink& sink) {
  const tensor::DType dtype = export_dtype(request);
  const std::string modelfile = request.out + ".Modelfile";
  if (request.format == "gguf" && std::filesystem::is_directory(request.out))
    fail(ErrorCode::kInvalidInput, "{}: is a folder, and the format gguf a file: give its name", request.out);
  check_output(request.out, settings, {request.model, request.adapter});
  if (request.modelfile) check_output(modelfile, settings, {request.model, request.adapter});
  model::Model model = load_with_tokenizer_if_any(request.model, settings);
  const std::optional<model::Adapter> adapter = load_fitting_adapter(request.adapter, model, sink);
  nlohmann::json result = {{"format", request.format}, {"dtype", request.dtype}};
  if (adapter && !request.adapter_only) model = merge_adapter(model, *adapter, request.adapter, "f32", settings, sink);
  if (request.format == "gguf") {
    const std::string text = request.modelfile ? modelfile_text(model, request.out) : std::string();
    if (request.adapter_only)
      model::export_adapter_gguf(*adapter, model, dtype, request.out, settings.force);
    else
      model::export_gguf(model, dtype, request.out, settings.force);
    if (request.modelfile) io::write_file_atomic(modelfile, text, settings.force);
  } else if (request.format == "hf") {
    io::AtomicFolder output(request.out, settings.force);
    model.block.provenance = io::compact_json(provenance_of(model, settings));
    const int64_t padded = model::export_hf(model, dtype, output.path().string(), request.pad);
    if (request.pad) result["padded_bytes"] = padded;
    output.commit();
  } else {
    write_block(block_of_zeros(model, dtype, settings), request.out, settings.force);
  }
  result["bytes"] = bytes_on_disk(request.out);
  return result;
}

}  // namespace brick::pipeline
