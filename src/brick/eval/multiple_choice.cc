#include "brick/eval/multiple_choice.h"

#include <algorithm>
#include <cmath>

#include "brick/base/error.h"
#include "brick/eval/strip.h"
#include "brick/model/continuations.h"
#include "brick/text/utf8.h"

namespace brick::eval {
namespace {

size_t characters(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; }));
}

size_t likeliest(std::span<const double> values) {
  return static_cast<size_t>(std::max_element(values.begin(), values.end()) - values.begin());
}

double standard_error(double share, int64_t n) {  // of the mean of n zeros and ones
  return n > 1 ? std::sqrt(share * (1 - share) / static_cast<double>(n - 1)) : std::nan("");
}

bool starts_with(std::span<const int32_t> ids, std::span<const int32_t> beginning) {
  return ids.size() >= beginning.size() && std::equal(beginning.begin(), beginning.end(), ids.begin());
}

// Description and examples, to which prompt_of() adds the context.
std::string examples_of(const Subject& subject, const Item* item, int64_t shots) {
  std::string text = subject.description;
  int64_t left = shots;
  for (auto shot = subject.pool.begin(); left > 0; ++shot) {
    if (shot == subject.pool.end())
      fail(ErrorCode::kInvalidInput, "{} few-shot examples asked for, {} there{}{}; --num-fewshot asks for fewer",
           shots, shots - left, subject.name.empty() ? "" : " for ", subject.name);
    if (item != nullptr && subject.pool_is_asked && shot->same_question(*item)) continue;
    text += shot->context(shot->gold) + " " + shot->options[shot->gold] + "\n\n";
    --left;
  }
  return text;
}

std::vector<int32_t> encode_with_bos(const text::Tokenizer& tokenizer, std::string_view text) {
  std::vector<int32_t> ids = tokenizer.encode(text);
  const text::TokenizerSpec& spec = tokenizer.spec();
  if (spec.add_bos && spec.bos) ids.insert(ids.begin(), *spec.bos);
  return ids;
}

// Scores items of one subject. Before each item the cache is brought back to what all of them share, so that no result
// depends on the items before.
class SubjectScorer {
 public:
  // `capacity`: most tokens of a prompt and an option. At least a forward pass's, so that passes are cut alike whatever
  // the items.
  SubjectScorer(const model::Model& model, const model::AdapterUse& use, kernels::Context& context, size_t capacity,
                std::vector<int32_t> shared)
      : scorer_(model, context, use, static_cast<int64_t>(std::max<size_t>(capacity, 512))),
        shared_(std::move(shared)) {}

  std::vector<double> log_likelihoods(std::span<const EncodedOption> options) {
    rewind();
    std::vector<double> sums;
    for (size_t begin = 0, end = 0; begin < options.size(); begin = end) {
      const std::span<const int32_t> prompt = options[begin].prompt();
      std::vector<std::vector<int32_t>> continuations;
      for (; end < options.size() && std::ranges::equal(options[end].prompt(), prompt); ++end)
        continuations.emplace_back(options[end].ids.begin() + static_cast<std::ptrdiff_t>(options[end].first),
                                   options[end].ids.end());
      for (const model::ContinuationScore& score : scorer_.score(prompt, continuations))
        sums.push_back(score.log_likelihood);
      clean_ = clean_ && starts_with(prompt.first(prompt.size() - 1), shared_);
    }
    return sums;
  }

 private:
  // The scorer keeps what a prompt has in common with the one before, all of it but its last token.
  void rewind() {
    std::vector<int32_t> prompt{0};
    if (!clean_) scorer_.score(prompt, {});
    prompt.insert(prompt.begin(), shared_.begin(), shared_.end());
    scorer_.score(prompt, {});
    clean_ = true;
  }

  model::ContinuationScorer scorer_;
  std::vector<int32_t> shared_;
  bool clean_ = true;  // the cache begins with shared_ alone, or is empty
};

}  // namespace

std::string prompt_of(const TaskItems& task, const Item& item, size_t option, int64_t shots) {
  return examples_of(task.subjects[item.subject], &item, shots) + item.context(option);
}

EncodedOption encode_option(const text::Tokenizer& tokenizer, std::string_view prompt, std::string_view option,
                            int64_t context) {
  std::vector<int32_t> ids = encode_with_bos(tokenizer, stripped_end(prompt));
  const std::vector<int32_t> all = encode_with_bos(tokenizer, fmt::format("{} {}", prompt, option));
  const size_t first = ids.size();
  if (all.size() <= first)
    fail(ErrorCode::kInvalidInput, "the tokenizer leaves nothing of option {} to score", text::printable(option));
  ids.insert(ids.end(), all.begin() + static_cast<std::ptrdiff_t>(first), all.end());
  const auto most = static_cast<size_t>(context) + 1;
  const size_t cut = ids.size() > most ? ids.size() - most : 0;
  if (first == 0 || cut >= first)
    fail(ErrorCode::kInvalidInput, "option {} has no prompt before it within the model's {} tokens",
         text::printable(option), context);
  ids.erase(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(cut));
  return {std::move(ids), first - cut};
}

ItemScore choose(const Item& item, std::vector<double> log_likelihoods) {
  std::vector<double> normed;
  for (size_t o = 0; o < log_likelihoods.size(); ++o) {
    if (!std::isfinite(log_likelihoods[o]))
      fail(ErrorCode::kNumeric,
           "the log-likelihood of option {} is not finite: weights of the model or the adapter are damaged",
           text::printable(item.options[o]));
    normed.push_back(log_likelihoods[o] / static_cast<double>(characters(item.options[o])));
  }
  const size_t chosen = likeliest(log_likelihoods);
  return {std::move(log_likelihoods), chosen, likeliest(normed)};
}

TaskScore summarise(std::span<const Item* const> items, std::span<const ItemScore> scores) {
  TaskScore out;
  out.n = static_cast<int64_t>(items.size());
  if (items.empty()) return out;
  int64_t right = 0, right_norm = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    right += scores[i].chosen == items[i]->gold ? 1 : 0;
    right_norm += scores[i].chosen_norm == items[i]->gold ? 1 : 0;
  }
  out.acc = static_cast<double>(right) / static_cast<double>(out.n);
  out.acc_norm = static_cast<double>(right_norm) / static_cast<double>(out.n);
  out.stderr_acc = standard_error(out.acc, out.n);
  out.stderr_acc_norm = standard_error(out.acc_norm, out.n);
  return out;
}

void score_items(const model::Model& model, const model::AdapterUse& use, const text::Tokenizer& tokenizer,
                 const TaskItems& task, std::span<const Item* const> items, int64_t shots, kernels::Context& context,
                 const ItemFunction& done) {
  for (size_t begin = 0, end = 0; begin < items.size(); begin = end) {
    std::vector<std::vector<EncodedOption>> encoded;
    size_t longest = 0;
    for (; end < items.size() && items[end]->subject == items[begin]->subject; ++end) {
      encoded.emplace_back();
      for (size_t o = 0; o < items[end]->options.size(); ++o) {
        encoded.back().push_back(encode_option(tokenizer, prompt_of(task, *items[end], o, shots),
                                               items[end]->options[o], model.config.context));
        longest = std::max(longest, encoded.back().back().ids.size());
      }
    }
    // Without the blank line at its end, which may become another token where a question follows.
    const std::string examples = examples_of(task.subjects[items[begin]->subject], nullptr, shots);
    std::vector<int32_t> shared = encode_with_bos(tokenizer, stripped_end(examples));
    if (shared.size() >= longest) shared.clear();  // prompts lose their beginning
    SubjectScorer scorer(model, use, context, longest, std::move(shared));
    for (size_t i = begin; i < end; ++i) done(*items[i], choose(*items[i], scorer.log_likelihoods(encoded[i - begin])));
  }
}

}  // namespace brick::eval
