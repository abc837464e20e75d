// What a larger model says of the next tokens, computed once and kept in a folder: its likeliest tokens and their
// log-probabilities in float16, 4 k + 2 bytes a token for k of them (6 k + 2 where the vocabulary has more than
// 65,536), and, if asked for, what its head reads, in bfloat16, 2 D bytes a token.
//
// The folder holds teacher.json, which says whose numbers these are, and *.safetensors with the sequences seen so far,
// each under the SHA-256 of its ids and targets. A sequence that is not there is computed when it is asked for, alone,
// so that its numbers depend on nothing else; files are only ever added, each whole. So a killed run loses the last few
// thousand tokens, and runs on other data, lengths or blocks share what they have in common.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "brick/data/sequences.h"
#include "brick/io/provenance.h"
#include "brick/io/safetensors.h"
#include "brick/kernels/context.h"
#include "brick/model/loss.h"
#include "brick/model/transformer.h"

namespace brick::train {

// Of n tokens the teacher's k likeliest each, and the probabilities of these and of all others together, whose sum
// is 1.
struct TopProbabilities {
  std::vector<int32_t> ids;          // [n, k]
  std::vector<float> probabilities;  // [n, k + 1]
  std::vector<float> hidden;         // [n, D], the last norm's outputs; empty unless asked for

  void clear() { ids.clear(), probabilities.clear(), hidden.clear(); }
};

struct TeacherOptions {
  int64_t top = 32;              // k
  std::filesystem::path folder;  // made where there is none
  std::string model_hash;        // SHA-256 of the teacher's bytes
  std::string tool_version;
  bool hidden = false;  // also TopProbabilities::hidden
};

class Teacher {
 public:
  // The model and context must outlive this. Error(kInvalidInput) for k outside 1 to kMostTopTokens or above the
  // vocabulary; kMismatch if the folder holds another teacher's numbers, another k's or another arithmetic's; kCorrupt
  // if it is damaged; kExists if it is something else.
  Teacher(const model::Model& model, const TeacherOptions& options, kernels::Context& context);

  // Appends, for each supervised token of a sequence that has a predecessor, the teacher's view of it. Error(kNumeric)
  // where the teacher's logits are no numbers.
  void append(std::span<const int32_t> ids, std::span<const uint8_t> supervised, TopProbabilities& out);
  // Bytes that append() of these will take, in parts of so many tokens: the model's weights and a pass of the longest
  // sequence that is not there yet, none where all are; the part's hidden states.
  int64_t planned_bytes(std::span<const data::TokenSequence> sequences, int64_t part_tokens) const;
  // Writes what was computed since the last time; append() does so now and then.
  void save();

  int64_t top() const { return options_.top; }
  bool gives_hidden() const { return options_.hidden; }
  // Of the teacher, k and arithmetic.
  std::string identity() const;
  int64_t computed_tokens() const { return computed_tokens_; }  // that ran through the model
  double seconds() const { return seconds_; }                   // that they took

 private:
  // A sequence's numbers as they are in the file.
  struct Record {
    tensor::Tensor ids, log_probabilities, hidden;
  };
  Record compute(std::span<const int32_t> ids, std::span<const model::ScoredToken> scored,
                 std::span<const int64_t> offsets);
  void add_file(const std::filesystem::path& path);
  // Normalised rows [n, D] of the residual stream after the last layer.
  tensor::Tensor encode_hidden(tensor::ConstMatView stream, std::span<const model::ScoredToken> scored) const;
  void decode(int64_t tokens, const tensor::TensorView& ids, const tensor::TensorView& log_probabilities,
              TopProbabilities& out) const;
  void decode_hidden(int64_t tokens, const tensor::TensorView& hidden, TopProbabilities& out) const;
  [[noreturn]] void refuse_damage() const;

  const model::Model& model_;
  kernels::Context& context_;
  const TeacherOptions options_;
  const io::Provenance provenance_;
  std::vector<io::SafetensorsFile> files_;
  std::map<std::string, size_t, std::less<>> file_of_;  // by key
  std::map<std::string, Record, std::less<>> unsaved_;  // by key
  int64_t unsaved_tokens_ = 0, computed_tokens_ = 0;
  double seconds_ = 0;
  std::optional<model::Transformer> transformer_;
};

}  // namespace brick::train
