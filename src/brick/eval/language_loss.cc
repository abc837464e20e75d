#include "brick/eval/language_loss.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "brick/base/process.h"
#include "brick/data/batches.h"
#include "brick/model/loss.h"

namespace brick::eval {
namespace {

constexpr int64_t kBatchTokens = 2048;

}  // namespace

double TextScore::perplexity() const { return std::exp(nll); }

TextScore score_windows(const model::Model& model, const model::AdapterUse& use,
                        std::span<const std::span<const int32_t>> windows, kernels::Context& context,
                        ProgressSink& sink) {
  std::vector<data::TokenSequence> sequences;
  for (const std::span<const int32_t> window : windows) sequences.push_back(data::text_sequence(window));
  const RecordScore all = total(score_records(model, use, sequences, context, sink));
  return {all.mean(), all.tokens};
}

std::vector<RecordScore> score_records(const model::Model& model, const model::AdapterUse& use,
                                       std::span<const data::TokenSequence> sequences, kernels::Context& context,
                                       ProgressSink& sink) {
  std::vector<RecordScore> scores(sequences.size());
  if (sequences.empty()) return scores;
  const std::vector<int64_t> lengths = data::lengths_of(sequences);
  const int64_t capacity = std::max(kBatchTokens, *std::max_element(lengths.begin(), lengths.end()));
  model::Transformer transformer(model, context, capacity);
  const Stopwatch watch;
  int64_t done = 0;
  const int64_t all = data::count_tokens(sequences);
  for (const std::vector<int64_t>& indices :
       data::plan_epoch(lengths, {.batch_tokens = kBatchTokens, .shuffle = false}, 0)) {
    const data::Batch batch = data::make_batch(sequences, indices);
    const auto scored = model::scored_tokens(batch.ids, batch.supervised, batch.offsets);
    std::vector<float> losses(scored.size());
    const std::vector<int64_t> first_read = model::first_read_rows(scored, batch.offsets);
    const tensor::MatView hidden = transformer.forward({batch.ids, batch.offsets, first_read}, use);
    model::token_losses(context, model, hidden, scored, losses);
    size_t record = 0;
    for (size_t i = 0; i < scored.size(); ++i) {
      while (scored[i].row >= batch.offsets[record + 1]) ++record;
      RecordScore& score = scores[static_cast<size_t>(batch.sequence[record])];
      score.sum += losses[i];
      ++score.tokens;
    }
    done += batch.tokens();
    sink.progress("evaluate", done, all, "tokens",
                  fmt::format("{:.0f} tokens/s", static_cast<double>(done) / watch.seconds()));
  }
  return scores;
}

RecordScore total(std::span<const RecordScore> scores) {
  RecordScore all;
  for (const RecordScore& score : scores) {
    all.sum += score.sum;
    all.tokens += score.tokens;
  }
  return all;
}

}  // namespace brick::eval
