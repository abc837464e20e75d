// Checks that every use of a TokenizerSpec begins with.
#pragma once

#include <cstdint>
#include <string_view>
#include <unordered_map>

#include "brick/text/tokenizer_spec.h"

namespace brick::text {

// Token text -> id. The keys are views into the spec's tokens, which must outlive it and not move.
using TokenIndex = std::unordered_map<std::string_view, int32_t>;

// The part of validate() that looks at each field by itself: sizes, ranges, UTF-8, bytes.
void check_fields(const TokenizerSpec& spec);

// Errors: kCorrupt for a token that two ids share, unless one of them is unused.
TokenIndex make_token_index(const TokenizerSpec& spec);

}  // namespace brick::text
