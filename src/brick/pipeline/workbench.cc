#include "brick/pipeline/workbench.h"

#include <algorithm>
#include <string_view>

#include "brick/base/cpu.h"
#include "brick/base/error.h"
#include "brick/base/parallel.h"
#include "brick/data/records.h"
#include "brick/io/atomic_output.h"
#include "brick/io/npy.h"
#include "brick/io/text_file.h"
#include "brick/model/load.h"
#include "brick/model/restrict_adapter.h"
#include "brick/pipeline/about_file.h"
#include "brick/text/utf8.h"

namespace brick::pipeline {

namespace {

// Whether an adapter of a structured block's parent was given for the block.
bool is_of_parent(const model::Adapter& adapter, const model::Model& model) {
  if (!model.block.cut || !adapter.config.cut_hash.empty()) return false;
  try {
    model::check_fits(adapter, model);
    return false;
  } catch (const Error&) {
    return true;
  }
}

// A character cut in two at either end is what is left of a longer text.
void check_utf8(std::string_view text, const std::string& file) {
  constexpr size_t kLongest = 3;  // bytes of a part of a character
  size_t begin = 0;
  while (begin < std::min(kLongest, text.size()) && (static_cast<uint8_t>(text[begin]) & 0xC0) == 0x80) ++begin;
  const size_t end = text::valid_end(text, begin);
  if (end < text.size() && !(text.size() - end <= kLongest && text::is_incomplete_character(text.substr(end))))
    fail(ErrorCode::kCorrupt, "{}: line {}: byte 0x{:02X} is not valid UTF-8; save the file as UTF-8", file,
         1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(end), '\n'),
         static_cast<uint8_t>(text[end]));
}

}  // namespace

std::string tool_version() { return BRICK_VERSION; }

nlohmann::json machine() { return {{"cpu", cpu_model()}, {"isa", name(active_isa())}, {"threads", threads()}}; }

Workbench::Workbench(const std::string& model_path, const RunSettings& settings, bool with_tokenizer)
    : model_(model::load_model(model_path, {.tokenizer = with_tokenizer, .tokenizer_file = settings.tokenizer_file})) {
  if (model_.tokenizer) tokenizer_.emplace(*model_.tokenizer);
}

text::ChatTemplate Workbench::style(const std::string& name) const {
  const std::optional<text::ChatTemplate> own = text::detect_chat_template(tokenizer().spec().chat_template);
  if (own && (name.empty() || own->name == name)) return *own;
  return text::chat_template(name.empty() ? "alpaca" : name);
}

void Workbench::warn_of_style(const std::string& name, ProgressSink& sink) const {
  const std::string& own = tokenizer().spec().chat_template;
  if (name.empty() && !own.empty() && !text::detect_chat_template(own))
    sink.warn(
        fmt::format("{}: its chat template is none that is known, so alpaca's is used; name the right one with "
                    "--template (in a federation: template under [tune])",
                    model_.source));
}

std::vector<int32_t> Workbench::text_ids(const std::filesystem::path& path) const {
  const std::string text = io::read_text(path);
  check_utf8(text, path.string());
  return tokenizer().encode(text);
}

data::EncodedRecords Workbench::records(const std::filesystem::path& path, const train::TuneConfig& config,
                                        int64_t limit) const {
  std::vector<data::Record> records = data::load_records(path);
  if (limit > 0 && limit < std::ssize(records)) records.resize(static_cast<size_t>(limit));
  const text::ChatTemplate chat = style(config.chat_template);
  return about_file(path.string(), [&] {
    return data::encode_records(records, tokenizer(), chat, config.length,
                                config.loss == "all" ? data::LossOn::kAll : data::LossOn::kResponse);
  });
}

std::vector<std::span<const int32_t>> IdRows::rows() const {
  std::vector<std::span<const int32_t>> out;
  for (size_t begin = 0; begin < ids.size(); begin += static_cast<size_t>(length))
    out.push_back(std::span(ids).subspan(begin, static_cast<size_t>(length)));
  return out;
}

IdRows read_id_rows(const std::filesystem::path& path, const model::Model& model) {
  const io::NpyInts array = io::read_npy_ints(path);
  if (array.shape.size() != 2 || array.shape[0] < 1 || array.shape[1] < 1)
    fail(ErrorCode::kInvalidInput, "{}: expected ids of shape [rows, length]", path.string());
  IdRows out{{}, array.shape[1]};
  for (const int64_t id : array.values) {
    if (id < 0 || id >= model.config.vocab)
      fail(ErrorCode::kInvalidInput, "{}: token id {}, the vocabulary has {}", path.string(), id, model.config.vocab);
    out.ids.push_back(static_cast<int32_t>(id));
  }
  return out;
}

std::optional<model::Adapter> load_fitting_adapter(const std::string& path, const model::Model& model,
                                                   ProgressSink& sink) {
  if (path.empty()) return std::nullopt;
  model::Adapter adapter = model::load_adapter(path);
  about_file("adapter " + path, [&] {
    if (is_of_parent(adapter, model)) {
      adapter = model::restricted(adapter, model);
      sink.note(fmt::format("adapter {}: of it the part that this structured block has", path));
    }
    model::check_fits(adapter, model);
  });
  if (!adapter.config.base_fingerprint.empty() && adapter.config.base_fingerprint != model::fingerprint(model))
    sink.warn(fmt::format("adapter {} was made on another model than {}", path, model.source));
  return adapter;
}

void check_output(const std::filesystem::path& path, const RunSettings& settings,
                  std::vector<std::filesystem::path> inputs) {
  inputs.emplace_back(settings.tokenizer_file);
  io::check_output(path, settings.force, inputs);
}

}  // namespace brick::pipeline
