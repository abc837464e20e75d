#include "brick/model/load.h"

#include <filesystem>

#include "brick/base/error.h"
#include "brick/io/gguf.h"
#include "brick/io/text_file.h"
#include "brick/model/block_format.h"
#include "brick/model/gguf_tokenizer.h"
#include "brick/model/load_parts.h"

namespace brick::model {
namespace {

namespace fs = std::filesystem;

text::TokenizerSpec read_tokenizer_json(const fs::path& file) {
  const fs::path config = file.parent_path() / "tokenizer_config.json";
  text::TokenizerSpec spec =
      text::spec_from_hf_json(io::read_text(file), fs::exists(config) ? io::read_text(config) : std::string());
  // transformers 5 keeps the template in a file of its own.
  const fs::path chat = file.parent_path() / "chat_template.jinja";
  if (spec.chat_template.empty() && fs::exists(chat)) spec.chat_template = io::read_text(chat);
  return spec;
}

text::TokenizerSpec read_tokenizer_file(const fs::path& file, int64_t vocab) {
  try {
    if (file.extension() == ".json") return read_tokenizer_json(file);
    const auto mapped = io::map_file(file);
    if (file.extension() == ".model") return text::spec_from_sentencepiece_model(mapped->bytes());
    if (file.extension() == ".bin") return text::spec_from_llama2c(mapped->bytes(), static_cast<int32_t>(vocab));
  } catch (const Error& e) {
    if (std::string_view(e.what()).find(file.string()) != std::string_view::npos) throw;
    throw Error(e.code(), fmt::format("{}: {}", file.string(), e.what()));
  }
  fail(ErrorCode::kUnsupported, "tokenizer {}: a tokenizer.json, a SentencePiece .model or a llama2.c .bin is read",
       file.string());
}

std::optional<text::TokenizerSpec> find_folder_tokenizer(const fs::path& folder, int64_t vocab) {
  for (const char* name : {"tokenizer.json", "tokenizer.model", "tokenizer.bin"})
    if (fs::exists(folder / name)) return read_tokenizer_file(folder / name, vocab);
  return std::nullopt;
}

}  // namespace

Model load_model(const std::string& path, const LoadOptions& options) {
  const bool folder = fs::is_directory(path);
  Model model;
  std::optional<io::GgufFile> file;
  if (folder) {
    const nlohmann::json config = read_config_json(path);
    model = is_block_config(config) ? load_block_weights(path, config) : load_hf_weights(path, config);
  } else {
    file = open_gguf(path);
    model = load_gguf_weights(*file);
  }
  try {
    check_shapes(model);
  } catch (const Error& e) {
    throw Error(e.code(), fmt::format("{}: {}", path, e.what()));
  }
  model.source = path;
  if (!options.tokenizer) return model;

  const bool required = options.require_tokenizer || !options.tokenizer_file.empty();
  try {
    if (!options.tokenizer_file.empty())
      model.tokenizer = read_tokenizer_file(options.tokenizer_file, model.config.vocab);
    else
      model.tokenizer = folder ? find_folder_tokenizer(path, model.config.vocab) : read_gguf_tokenizer(*file);
  } catch (const Error& e) {
    if (!required && e.code() == ErrorCode::kUnsupported) return model;
    if (!options.tokenizer_file.empty()) throw;
    std::string what = e.what();
    if (!what.starts_with(path)) what = path + ": " + what;
    throw Error(e.code(), what + (e.code() == ErrorCode::kUnsupported ? "; name another with --tokenizer" : ""));
  }
  if (required && !model.tokenizer)
    fail(ErrorCode::kNotFound, "{} has no tokenizer ({}); name one with --tokenizer", path,
         folder ? "tokenizer.json, tokenizer.model or tokenizer.bin" : "tokenizer.ggml.model");
  if (model.tokenizer && static_cast<int64_t>(model.tokenizer->tokens.size()) > model.config.vocab)
    fail(ErrorCode::kMismatch, "{}: the tokenizer has {} tokens, but the model knows {}", path,
         model.tokenizer->tokens.size(), model.config.vocab);
  return model;
}

}  // namespace brick::model
