#include "brick/model/continuations.h"

#include <gtest/gtest.h>

#include <cmath>

#include "brick/model/loss.h"
#include "model/expect_error.h"
#include "model/tiny_model.h"

namespace brick::model {
namespace {

// Log-likelihoods of a few tokens, float32 in another order of sums.
constexpr double kTolerance = 1e-5;

std::vector<int32_t> draw(size_t count, uint64_t stream, int64_t vocab = 96) {
  Rng rng(81, stream);
  std::vector<int32_t> ids(count);
  for (int32_t& id : ids) id = static_cast<int32_t>(rng.below(static_cast<uint64_t>(vocab)));
  return ids;
}

// By one forward of prompt and continuation, everything else in double.
ContinuationScore whole(const Model& model, const AdapterUse& use, const std::vector<int32_t>& prompt,
                        const std::vector<int32_t>& continuation) {
  std::vector<int32_t> ids = prompt;
  ids.insert(ids.end(), continuation.begin(), continuation.end());
  const auto count = static_cast<int64_t>(ids.size()), vocab = model.config.vocab;
  kernels::Context context;
  Transformer transformer(model, context, count);
  const int64_t offsets[] = {0, count};
  const tensor::MatView hidden = transformer.forward({ids, offsets}, use);
  tensor::Tensor z = tensor::matrix(count, vocab);
  logits(context, model, hidden, z.mat());
  ContinuationScore out;
  for (int64_t t = static_cast<int64_t>(prompt.size()); t < count; ++t) {
    const float* row = z.mat().row(t - 1);
    double sum = 0;
    for (int64_t v = 0; v < vocab; ++v) sum += std::exp(double{row[v]});
    const int32_t id = ids[static_cast<size_t>(t)];
    out.log_likelihood += row[id] - std::log(sum);
    out.greedy = out.greedy && row[id] == *std::max_element(row, row + vocab);
  }
  return out;
}

int32_t likeliest(const Model& model, const std::vector<int32_t>& prompt) {
  for (int32_t id = 0;; ++id)
    if (whole(model, {}, prompt, {id}).greedy) return id;
}

void expect_equal(const ContinuationScore& got, const ContinuationScore& want) {
  EXPECT_NEAR(got.log_likelihood, want.log_likelihood, kTolerance * std::max(1.0, std::fabs(want.log_likelihood)));
  EXPECT_EQ(got.greedy, want.greedy);
}

TEST(ContinuationScorer, EqualsTheWholeForward) {
  const Model model = tiny_model();
  kernels::Context context;
  ContinuationScorer scorer(model, context, {}, 64);
  const std::vector<int32_t> prompt = draw(20, 1);
  const int32_t best = likeliest(model, prompt);
  const std::vector<std::vector<int32_t>> continuations{draw(1, 2), draw(7, 3), {best}, draw(3, 4), {}};
  const auto scores = scorer.score(prompt, continuations);
  ASSERT_EQ(scores.size(), 5u);
  for (size_t i = 0; i < 4; ++i) expect_equal(scores[i], whole(model, {}, prompt, continuations[i]));
  EXPECT_TRUE(scores[2].greedy);
  EXPECT_EQ(scores[4].log_likelihood, 0);
}

TEST(ContinuationScorer, KeepsWhatPromptsShare) {
  const Model model = tiny_model();
  kernels::Context context;
  ContinuationScorer scorer(model, context, {}, 64);
  std::vector<int32_t> prompt = draw(30, 1);
  const std::vector<std::vector<int32_t>> continuations{draw(4, 2), draw(2, 3)};
  const auto check = [&] {
    const auto scores = scorer.score(prompt, continuations);
    for (size_t i = 0; i < scores.size(); ++i) expect_equal(scores[i], whole(model, {}, prompt, continuations[i]));
  };
  check();
  check();  // the same again
  prompt[25] = (prompt[25] + 1) % 96;
  check();  // another end
  prompt.resize(12);
  check();  // shorter
  prompt = {5};
  check();
}

TEST(ContinuationScorer, UsesTheAdapter) {
  const Model model = tiny_block(tiny_model());
  LoraConfig config;
  config.rank = 4;
  config.masked = true;
  config.targets.assign(kProjs.begin(), kProjs.end());
  config.mask_hash = mask_hash(model);
  Adapter adapter = make_adapter(model, config, 3);
  randomise(adapter, 1);
  kernels::Context context;
  ContinuationScorer scorer(model, context, {&adapter}, 64);
  const std::vector<int32_t> prompt = draw(9, 1);
  const std::vector<std::vector<int32_t>> continuations{draw(6, 2), draw(5, 3)};
  const auto scores = scorer.score(prompt, continuations);
  for (size_t i = 0; i < scores.size(); ++i) {
    expect_equal(scores[i], whole(model, {&adapter}, prompt, continuations[i]));
    EXPECT_GT(std::fabs(scores[i].log_likelihood - whole(model, {}, prompt, continuations[i]).log_likelihood),
              100 * kTolerance);
  }
}

TEST(ContinuationScorer, PromptsAndContinuationsOfManyPasses) {
  TinyOptions options;
  options.context = 2048;
  const Model model = tiny_model(options);
  kernels::Context context;
  ContinuationScorer scorer(model, context, {}, 1400);
  const std::vector<int32_t> prompt = draw(700, 1);
  const std::vector<std::vector<int32_t>> continuations{draw(300, 2), draw(690, 3), draw(300, 4), draw(5, 5)};
  const auto scores = scorer.score(prompt, continuations);
  for (size_t i = 0; i < scores.size(); ++i) expect_equal(scores[i], whole(model, {}, prompt, continuations[i]));
}

TEST(ContinuationScorer, NegativeControlAnotherTokenIsSeen) {
  const Model model = tiny_model();
  kernels::Context context;
  ContinuationScorer scorer(model, context, {}, 64);
  const std::vector<int32_t> prompt = draw(20, 1);
  std::vector<int32_t> changed = prompt;
  changed[0] = (changed[0] + 1) % 96;
  const std::vector<std::vector<int32_t>> continuations{draw(4, 2)};
  EXPECT_GT(std::fabs(scorer.score(prompt, continuations)[0].log_likelihood -
                      whole(model, {}, changed, continuations[0]).log_likelihood),
            100 * kTolerance);
}

TEST(ContinuationScorer, RefusesWhatItCannotScore) {
  const Model model = tiny_model();
  kernels::Context context;
  ContinuationScorer scorer(model, context, {}, 16);
  const auto refuse = [&](const std::string& part, size_t prompt, const std::vector<int32_t>& continuation) {
    expect_error(ErrorCode::kInvalidInput, part,
                 [&] { scorer.score(draw(prompt, 1), std::vector<std::vector<int32_t>>{continuation}); });
  };
  refuse("no tokens", 0, {1});
  refuse("fit a context of 16", 12, draw(5, 2));
  refuse("token id 96", 4, {96});
  refuse("token id -1", 4, {-1});
}

}  // namespace
}  // namespace brick::model
