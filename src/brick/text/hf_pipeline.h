// The parts of tokenizer.json around the model: normalizer, pre-tokenizer, post-processor. For the .cc files
// of text/ only, as JSON is no part of its interface.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "brick/text/tokenizer_spec.h"

namespace brick::text {

struct HfPipeline {
  std::string pre_split = "gpt-2";  // as TokenizerSpec::pre_split
  bool add_space_prefix = false;
  PrefixStyle prefix_style = PrefixStyle::kPlain;
  std::string before, after;  // tokens that the post-processor adds; empty: none
};

// `root`: the parsed tokenizer.json. The decoder is not looked at: it follows from the kind.
// Errors: kUnsupported, naming the step, for anything that would give other ids than Tokenizer does.
HfPipeline read_hf_pipeline(const nlohmann::json& root, TokenizerKind kind);

}  // namespace brick::text
