// What most jobs begin with: a model in memory with its tokenizer and chat template, and the run's settings.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "brick/base/log.h"
#include "brick/data/sequences.h"
#include "brick/kernels/context.h"
#include "brick/model/adapter.h"
#include "brick/model/model.h"
#include "brick/text/chat_template.h"
#include "brick/text/tokenizer.h"
#include "brick/train/config.h"

namespace brick::pipeline {

// Settings that every job takes.
struct RunSettings {
  uint64_t seed = 0;
  std::string compute = "auto";
  std::string tokenizer_file;  // instead of the model's own
  bool force = false;          // replace existing outputs
};

std::string tool_version();
// {"cpu", "isa", "threads"}: what a measurement depends on.
nlohmann::json machine();

// io::check_output(), for a job that reads `inputs` and the settings' tokenizer.
void check_output(const std::filesystem::path& path, const RunSettings& settings,
                  std::vector<std::filesystem::path> inputs);

class Workbench {
 public:
  // `with_tokenizer`: Error where the model has none.
  Workbench(const std::string& model_path, const RunSettings& settings, bool with_tokenizer = true);

  const model::Model& model() const { return model_; }
  const text::Tokenizer& tokenizer() const { return *tokenizer_; }
  // The model's own template, or the one named; Alpaca for models that have none (`name` empty).
  text::ChatTemplate style(const std::string& name) const;
  // One warning where Alpaca stands in for a template that the model has and that is not known.
  void warn_of_style(const std::string& name, ProgressSink& sink) const;

  // Ids of a text file, no special token added.
  std::vector<int32_t> text_ids(const std::filesystem::path& path) const;
  // As length, loss and template of the configuration say; of the file's first `limit` records, 0: of all.
  data::EncodedRecords records(const std::filesystem::path& path, const train::TuneConfig& config,
                               int64_t limit = 0) const;

 private:
  model::Model model_;
  std::optional<text::Tokenizer> tokenizer_;
};

// Token ids [rows, length] of an .npy file, rows one behind the other; length of each. Error(kInvalidInput) for other
// shapes and ids outside the vocabulary.
struct IdRows {
  std::vector<int32_t> ids;
  int64_t length = 0;

  std::vector<std::span<const int32_t>> rows() const;
};
IdRows read_id_rows(const std::filesystem::path& path, const model::Model& model);

// None for an empty path. Checked against the model; of an adapter of a structured block's parent, the block's part.
std::optional<model::Adapter> load_fitting_adapter(const std::string& path, const model::Model& model,
                                                   ProgressSink& sink);

}  // namespace brick::pipeline
