// How fast blocks of a model decode on a machine, by how much was removed: the part "decode" of the file that
// `brick bench MODEL --calibrate FILE` writes, and what `brick prune --target "2x decode"` chooses by.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "brick/pipeline/workbench.h"

namespace brick::pipeline {

struct DecodeProfile {
  static constexpr const char *kUnstructured = "unstructured", *kStructured = "structured";  // patterns, or "2:4"
  struct Point {
    std::string values;  // of the block: f32, bf16, q4
    double sparsity = 0, tokens_per_second = 0;
    std::string pattern = kUnstructured;
  };
  std::string model;  // fingerprint
  std::string isa, compute;
  int64_t threads = 0;
  double dense_tokens_per_second = 0;  // of the model as it is
  std::vector<Point> points;

  // How many times as fast as the model as it is; the time of a token is linear in the sparsity between points. None
  // outside of those that were measured with such values.
  std::optional<double> speedup(const std::string& values, double sparsity,
                                const std::string& pattern = kUnstructured) const;
  bool has(const std::string& values, const std::string& pattern) const;
};

// Whether every row of the layers' weights is whole groups of so many.
bool comes_in_groups_of(int64_t group, const model::Model& model);

// Times the model and its blocks by magnitude, whose speed is that of any method's, and for structured ones without
// their last layers, whose is that of others of as many weights; the machine should be doing nothing else.
DecodeProfile measure_decoding(const model::Model& model, const std::vector<std::string>& values,
                               const RunSettings& settings, ProgressSink& sink);

// {"model", "isa", "compute", "threads", "dense_tokens_per_second", "points": [{"values", "sparsity",
// "tokens_per_second", "pattern"}]}.
nlohmann::json to_json(const DecodeProfile& profile);
// The member "decode" of such a file. Error(kCorrupt) naming the key that is missing or wrong, kMismatch for another
// model, instruction set, arithmetic or number of threads than at hand.
DecodeProfile read_decode_profile(const std::string& path, const model::Model& model, const RunSettings& settings);

}  // namespace brick::pipeline
