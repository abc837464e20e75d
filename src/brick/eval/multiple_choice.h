// Scores multiple-choice items by the likelihood of each option's text, as lm-evaluation-harness 0.4 does: the same
// prompts, the same split into tokens, the same choice.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "brick/base/log.h"
#include "brick/eval/task.h"
#include "brick/kernels/context.h"
#include "brick/model/transformer.h"
#include "brick/text/tokenizer.h"

namespace brick::eval {

// Text before an option: the subject's description, the first `shots` examples of its pool (but the item itself, where
// the pool is what is asked), each with its right answer and a blank line, and the option's context. The harness draws
// examples anew for each item unless a task says `sampler: first_n`, as its MMLU does; the same for all can be computed
// once. Error(kInvalidInput) where the pool is smaller than `shots`.
std::string prompt_of(const TaskItems& task, const Item& item, size_t option, int64_t shots);

// Tokens of a prompt and an option; ids[first], ids[first + 1], … are scored. first > 0.
struct EncodedOption {
  std::vector<int32_t> ids;
  size_t first = 0;
  std::span<const int32_t> prompt() const { return std::span(ids).first(first); }
};

// Space at the end of the prompt goes to the option; then the prompt's own tokens are followed by those of the whole
// text from that count on (LM._encode_pair), so that a word is never cut where prompt and option meet. Where the
// tokenizer asks for BOS, it comes first. What is longer than `context` + 1 tokens loses its beginning.
// Error(kInvalidInput) where nothing is left to score.
EncodedOption encode_option(const text::Tokenizer& tokenizer, std::string_view prompt, std::string_view option,
                            int64_t context);

struct ItemScore {
  std::vector<double> log_likelihoods;  // of each option, in nats
  size_t chosen = 0;                    // the likeliest
  size_t chosen_norm =
      0;  // the likeliest a character (Unicode code point) of the option's text: the harness's acc_norm
};

// The first of equals wins.
ItemScore choose(const Item& item, std::vector<double> log_likelihoods);

struct TaskScore {
  double acc = 0, acc_norm = 0;                // shares of right choices
  double stderr_acc = 0, stderr_acc_norm = 0;  // sample standard error of the mean; NaN for a single item
  int64_t n = 0;
};

// scores[i] is of items[i].
TaskScore summarise(std::span<const Item* const> items, std::span<const ItemScore> scores);

// Scores `items` of `task`, those of a subject one after the other, calling `done` for each, in order. What the
// examples of a subject cost is paid once. An item's bits do not depend on the other items, so that a resumed run gives
// the same.
using ItemFunction = std::function<void(const Item& item, const ItemScore& score)>;
void score_items(const model::Model& model, const model::AdapterUse& use, const text::Tokenizer& tokenizer,
                 const TaskItems& task, std::span<const Item* const> items, int64_t shots, kernels::Context& context,
                 const ItemFunction& done);

}  // namespace brick::eval
