// `brick prune --target`: how much has to go for a size, a speed or a share of the parameters.
#pragma once

#include <optional>
#include <string>

#include "brick/pipeline/decode_profile.h"
#include "brick/prune/prune.h"

namespace brick::pipeline {

struct Target {
  enum class Kind { kBytes, kDecode, kParameters };
  Kind kind = Kind::kBytes;
  double amount = 0;  // bytes of the block's folder; times the model's own speed; share of its parameters
  std::string text;   // as given
};

// "40 MB" (kB, MB, GB of powers of 1000, MiB, GiB), "2x decode", "60% parameters"; spaces are free.
// Error(kInvalidInput) that shows the forms.
Target parse_target(const std::string& text);

// Bytes of the folder that save_block() would write for the block that prune() would make: of weights and masks by
// their shapes, the values' encoding and how the method spreads what it keeps over the rows; of structured blocks by
// the widths that it leaves; of the rest by the parent's tokenizer and configuration. Within 1 % of what comes out, or
// half of what a structured method takes at once where that is more. Neither of these two is for what
// check_has_targets() refuses.
int64_t predicted_bytes(const model::Model& parent, const prune::PruneConfig& config);
// Parameters that its masks keep, or that it has.
int64_t predicted_nonzeros(const model::Model& parent, const prune::PruneConfig& config);

// Of PruneConfig::pattern, for choose_sparsity() to replace.
inline constexpr const char* kAutoPattern = "auto";

struct Choice {
  double sparsity = 0;
  std::string values, pattern;
  int64_t bytes = 0, nonzeros = 0;  // predicted
  std::optional<double> speedup;    // of decoding, where the target asks for it
  bool least_measured = false;      // the profile knows no lower sparsity
  std::string reason;               // one line
};

// Error(kUnsupported) for a method whose blocks' size is not predicted with these settings, kInvalidInput for
// kAutoPattern where nothing is masked.
void check_has_targets(const Target& target, const prune::PruneConfig& config);

// The least sparsity, in steps of 0.001, that reaches the target (0: the model as it is), up to 0.95, or the profile's
// last; with a pattern n:m only n / m. With kAutoPattern the least over unstructured and 2:4 masks, the first of
// these where several need the same; `reason` says what the other needs. 2:4 ones only if the profile, where there is
// one, has them, and not with OWL. `values_free`: config.values first, then q4 where no pattern reaches it with those.
// `profile` is needed for a speed, and has those of unstructured, 2:4 and structured blocks. Error(kInvalidInput)
// naming the nearest that can be reached, and what does reach it, if anything: of a speed another pattern, else flap.
Choice choose_sparsity(const Target& target, const model::Model& parent, const prune::PruneConfig& config,
                       bool values_free, const DecodeProfile* profile);

}  // namespace brick::pipeline
