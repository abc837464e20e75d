#include "brick/eval/language_loss.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "brick/data/windows.h"
#include "brick/io/json_file.h"
#include "brick/io/text_file.h"
#include "brick/model/decode.h"
#include "brick/model/load.h"
#include "brick/model/loss.h"
#include "brick/text/tokenizer.h"
#include "model/real_files.h"

namespace brick::eval {
namespace {

using nlohmann::json;

constexpr double kLossTolerance = 1e-4;    // the bar for stories260K
constexpr double kLogitTolerance = 1e-3;   // printed with five decimals, float32 sums in another order
constexpr double kPerplexityShare = 1e-3;  // 0.1 %
constexpr double kBf16Share = 5e-3;

struct Stories {
  json reference;
  model::Model model;
};

std::optional<Stories> load_stories() {
  const std::filesystem::path folder = model::shared_data("stories260K");
  if (folder.empty()) return std::nullopt;
  return Stories{io::read_json_file(folder / "reference.json"),
                 model::load_model((folder / "hf").string(),
                                   {.tokenizer = true, .tokenizer_file = (folder / "tok512.bin").string()})};
}

double mean_loss(const model::Model& model, const std::vector<int32_t>& ids) {
  kernels::Context context;
  const std::vector<std::span<const int32_t>> windows{ids};
  return score_windows(model, {}, windows, context, silent_sink()).nll;
}

#define STORIES_OR_SKIP(name)       \
  const auto name = load_stories(); \
  if (!name) GTEST_SKIP() << "stories260K is not in BRICK_DATA"

TEST(Stories260K, MeanLoss) {
  STORIES_OR_SKIP(stories);
  const auto ids = stories->reference["story_ids"].get<std::vector<int32_t>>();
  const double want = stories->reference["story_mean_nll"];
  EXPECT_NEAR(mean_loss(stories->model, ids), want, kLossTolerance);
  std::vector<int32_t> wrong = ids;  // negative control
  wrong[5] = wrong[5] + 1;
  EXPECT_GT(std::fabs(mean_loss(stories->model, wrong) - want), kLossTolerance);
}

TEST(Stories260K, LogitsAfterThePrompt) {
  STORIES_OR_SKIP(stories);
  kernels::Context context;
  model::Decoder decoder(stories->model, context, {}, 64);
  const auto prompt = stories->reference["prompt_ids"].get<std::vector<int32_t>>();
  const auto want = stories->reference["last_logits"].get<std::vector<double>>();
  const std::span<float> got = decoder.feed(prompt);
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i], want[i], kLogitTolerance) << "token " << i;
}

TEST(Stories260K, GreedyText) {
  STORIES_OR_SKIP(stories);
  kernels::Context context;
  const auto want = stories->reference["greedy_from_bos_ids"].get<std::vector<int32_t>>();
  model::Decoder decoder(stories->model, context, {}, 512);
  const std::vector<int32_t> start{want[0]};
  const std::vector<int32_t> made =
      model::generate(decoder, start, {}, static_cast<int64_t>(want.size()) - 1, [](int32_t) { return false; });
  EXPECT_EQ(made, std::vector<int32_t>(want.begin() + 1, want.end()));
  const text::Tokenizer tokenizer(*stories->model.tokenizer);
  EXPECT_EQ(tokenizer.decode(made), stories->reference["greedy_text"].get<std::string>());
}

TEST(Stories260K, DecodingInPiecesEqualsOnePass) {
  STORIES_OR_SKIP(stories);
  kernels::Context context;
  const auto ids = stories->reference["story_ids"].get<std::vector<int32_t>>();
  model::Decoder whole(stories->model, context, {}, 128), pieces(stories->model, context, {}, 128);
  const std::span<float> want = whole.feed(ids);
  std::span<float> got;
  for (size_t i = 0; i < ids.size(); ++i) got = pieces.feed(std::span(ids).subspan(i, 1));
  for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i], want[i], kLogitTolerance);
}

TEST(SmolLM2, PerplexityOfTheFirstWindows) {
  const std::string text = model::shared_data("wikitext2/wiki.test.tokens.txt"), path = model::real_gguf();
  if (path.empty() || text.empty()) GTEST_SKIP() << "needs BRICK_MODEL and wikitext2 in BRICK_DATA";
  const model::Model model = model::load_model(path);
  const text::Tokenizer tokenizer(*model.tokenizer);
  const std::vector<int32_t> ids = tokenizer.encode(io::read_text(text));
  const auto windows = data::consecutive_windows(ids, 512, 4);
  // The first 4 of the 32 windows whose 24.938 is the reference's; this value is our own, at the run that
  // gave 24.938.
  constexpr double kFourWindows = 25.4942;
  kernels::Context context;
  EXPECT_NEAR(score_windows(model, {}, windows, context, silent_sink()).perplexity(), kFourWindows,
              kPerplexityShare * kFourWindows);
  if (kernels::choose_compute("auto") != kernels::Compute::kBf16) return;
  context.set_compute(kernels::Compute::kBf16);
  EXPECT_NEAR(score_windows(model, {}, windows, context, silent_sink()).perplexity(), kFourWindows,
              kBf16Share * kFourWindows);
}

TEST(ScoreRecords, PackingChangesNothing) {
  STORIES_OR_SKIP(stories);
  kernels::Context context;
  const auto ids = stories->reference["story_ids"].get<std::vector<int32_t>>();
  std::vector<data::TokenSequence> sequences;
  for (size_t length : {ids.size(), ids.size() / 2, size_t{3}})
    sequences.push_back(data::text_sequence(std::span(ids).first(length)));
  const std::vector<RecordScore> together = score_records(stories->model, {}, sequences, context, silent_sink());
  for (size_t i = 0; i < sequences.size(); ++i) {
    const auto alone = score_records(stories->model, {}, std::span(sequences).subspan(i, 1), context, silent_sink());
    EXPECT_NEAR(alone[0].mean(), together[i].mean(), 1e-5);
    EXPECT_EQ(alone[0].tokens, together[i].tokens);
  }
}

}  // namespace
}  // namespace brick::eval
