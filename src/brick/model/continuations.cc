#include "brick/model/continuations.h"

#include <algorithm>

#include "brick/base/error.h"
#include "brick/kernels/cross_entropy.h"
#include "brick/kernels/vector_ops.h"
#include "brick/model/loss.h"

namespace brick::model {
namespace {

constexpr int64_t kPiece = 512;     // tokens of one forward pass
constexpr int64_t kLogitRows = 64;  // logits are formed for so many tokens at a time

}  // namespace

ContinuationScorer::ContinuationScorer(const Model& model, kernels::Context& context, AdapterUse use, int64_t capacity)
    : transformer_(model, context, std::clamp<int64_t>(capacity, 1, kPiece)), use_(use), cache_(model, capacity) {}

void ContinuationScorer::feed_prompt(std::span<const int32_t> ids) {
  const auto differ = std::mismatch(ids.begin(), ids.end(), cached_.begin(), cached_.end());
  size_t done = static_cast<size_t>(differ.first - ids.begin());
  cached_.resize(done);
  cache_.length = static_cast<int64_t>(done);
  for (; done < ids.size(); done = cached_.size()) {
    const auto piece = ids.subspan(done, std::min(ids.size() - done, static_cast<size_t>(transformer_.max_tokens())));
    transformer_.extend(piece, use_, cache_, std::ssize(piece) - 1);
    cached_.insert(cached_.end(), piece.begin(), piece.end());
  }
}

// Row i of `hidden` predicts targets[i], a token of continuation owners[i].
void ContinuationScorer::add_scores(tensor::ConstMatView hidden, std::span<const int32_t> targets,
                                    std::span<const size_t> owners, std::vector<ContinuationScore>& scores) {
  const int64_t vocab = transformer_.model().config.vocab;
  tensor::Tensor memory = tensor::matrix(std::min(hidden.rows, kLogitRows), vocab);
  std::vector<float> losses(static_cast<size_t>(kLogitRows));
  for (int64_t begin = 0; begin < hidden.rows; begin += kLogitRows) {
    const int64_t count = std::min(kLogitRows, hidden.rows - begin);
    const tensor::MatView z(memory.f32(), count, vocab);
    logits(transformer_.context(), transformer_.model(), hidden.row_range(begin, begin + count), z);
    for (int64_t i = 0; i < count; ++i) {
      const auto at = static_cast<size_t>(begin + i);
      bool& greedy = scores[owners[at]].greedy;
      greedy = greedy && z(i, targets[at]) == kernels::max_value(z.row(i), vocab);
    }
    kernels::cross_entropy(z, targets.data() + begin, losses.data());
    for (int64_t i = 0; i < count; ++i)
      scores[owners[static_cast<size_t>(begin + i)]].log_likelihood -= losses[static_cast<size_t>(i)];
  }
}

// One that does not fit a forward pass.
void ContinuationScorer::score_long(int32_t last, std::span<const int32_t> continuation, size_t owner,
                                    std::vector<ContinuationScore>& scores) {
  std::vector<int32_t> ids{last};
  ids.insert(ids.end(), continuation.begin(), continuation.end() - 1);
  const auto step = static_cast<size_t>(transformer_.max_tokens());
  const int64_t length = cache_.length;
  for (size_t begin = 0; begin < ids.size(); begin += step) {
    const size_t count = std::min(step, ids.size() - begin);
    const tensor::MatView hidden = transformer_.extend(std::span(ids).subspan(begin, count), use_, cache_);
    add_scores(hidden, continuation.subspan(begin, count), std::vector<size_t>(count, owner), scores);
  }
  cache_.length = length;
}

std::vector<ContinuationScore> ContinuationScorer::score(std::span<const int32_t> prompt,
                                                         std::span<const std::vector<int32_t>> continuations) {
  if (prompt.empty()) fail(ErrorCode::kInvalidInput, "nothing to continue from: the prompt has no tokens");
  size_t longest = 0;
  for (const std::vector<int32_t>& ids : continuations) {
    longest = std::max(longest, ids.size());
    for (int32_t id : ids)
      if (id < 0 || id >= transformer_.model().config.vocab)
        fail(ErrorCode::kInvalidInput, "token id {}: the vocabulary has {}", id, transformer_.model().config.vocab);
  }
  if (static_cast<int64_t>(prompt.size() + longest) > cache_.capacity)
    fail(ErrorCode::kInvalidInput, "a prompt of {} tokens and a continuation of {} do not fit a context of {}",
         prompt.size(), longest, cache_.capacity);

  // The prompt's last token, which predicts each first one, leads every continuation; no last one need be fed.
  feed_prompt(prompt.first(prompt.size() - 1));
  std::vector<ContinuationScore> scores(continuations.size());
  std::vector<int32_t> ids, targets;
  std::vector<int64_t> offsets{0};
  std::vector<size_t> owners;
  const auto run = [&] {
    if (ids.empty()) return;
    add_scores(transformer_.extend_each({ids, offsets}, use_, cache_), targets, owners, scores);
    ids.clear();
    targets.clear();
    owners.clear();
    offsets.assign(1, 0);
  };
  const auto room = static_cast<size_t>(transformer_.max_tokens());
  for (size_t c = 0; c < continuations.size(); ++c) {
    const std::vector<int32_t>& continuation = continuations[c];
    if (continuation.empty()) continue;
    if (continuation.size() > room) {
      score_long(prompt.back(), continuation, c, scores);
      continue;
    }
    if (ids.size() + continuation.size() > room) run();
    ids.push_back(prompt.back());
    ids.insert(ids.end(), continuation.begin(), continuation.end() - 1);
    targets.insert(targets.end(), continuation.begin(), continuation.end());
    owners.insert(owners.end(), continuation.size(), c);
    offsets.push_back(static_cast<int64_t>(ids.size()));
  }
  run();
  return scores;
}

}  // namespace brick::model
