#include "brick/eval/multiple_choice.h"

#include <gtest/gtest.h>

#include <cmath>

#include "brick/model/loss.h"
#include "data/toy_tokenizer.h"
#include "model/expect_error.h"
#include "model/tiny_model.h"

namespace brick::eval {
namespace {

// Float32 sums over at most a few hundred tokens, batched otherwise.
constexpr double kTolerance = 1e-4;

std::vector<int32_t> bytes(std::string_view text) {
  std::vector<int32_t> ids;
  for (const char c : text) ids.push_back(static_cast<uint8_t>(c));
  return ids;
}

model::Model small_model() { return model::tiny_model({.vocab = 258, .context = 200}); }

// Three questions of two and three options, and one whose prompt must be cut.
TaskItems small_task() {
  const auto item = [](std::string context, std::vector<std::string> options, size_t gold, int64_t row) {
    return Item{{std::move(context)}, std::move(options), gold, row, 0};
  };
  TaskItems task;
  task.items = {item("Sun is", {"hot", "cold"}, 0, 0), item("Ice is", {"hot", "very cold", "red"}, 1, 1),
                item(std::string(400, 'x'), {"y", "zz"}, 0, 2), item("Sky is", {"blue", "low"}, 1, 3)};
  task.items.push_back({{"Ann was glad and Ann", "Ann was glad and Bea"}, {"won", "won"}, 0, 4, 0});
  task.subjects = {{"", "About:\n\n", {task.items[0], task.items[1], task.items[3]}, true}};
  return task;
}

std::vector<const Item*> pointers(const TaskItems& task) {
  std::vector<const Item*> out;
  for (const Item& item : task.items) out.push_back(&item);
  return out;
}

// Of the items from `first` on.
std::vector<ItemScore> score(const model::Model& model, const TaskItems& task, int64_t shots, size_t first = 0) {
  kernels::Context context;
  const std::vector<const Item*> items = pointers(task);
  std::vector<ItemScore> out;
  score_items(model, {}, data::toy_tokenizer(), task, std::span(items).subspan(first), shots, context,
              [&](const Item&, const ItemScore& score) { out.push_back(score); });
  return out;
}

TEST(Prompt, PutsExamplesBeforeTheContext) {
  const TaskItems task = small_task();
  EXPECT_EQ(prompt_of(task, task.items[3], 0, 2), "About:\n\nSun is hot\n\nIce is very cold\n\nSky is");
  EXPECT_EQ(prompt_of(task, task.items[0], 0, 1), "About:\n\nIce is very cold\n\nSun is");
  EXPECT_EQ(prompt_of(task, task.items[4], 1, 0), "About:\n\nAnn was glad and Bea");
}

TEST(EncodeOption, SpaceAtThePromptsEndGoesToTheOption) {
  const text::Tokenizer tokenizer = data::toy_tokenizer();
  for (const std::string space : {"", " ", "\n \t", "\xC2\xA0", "\xE3\x80\x80 "}) {
    const EncodedOption got = encode_option(tokenizer, "ab" + space, "c", 100);
    EXPECT_EQ(got.ids, bytes("ab" + space + " c"));
    EXPECT_EQ(got.first, 2U) << space;
  }
  EXPECT_EQ(encode_option(tokenizer, "ab", "c ", 100).ids, bytes("ab c "));  // the option keeps its own
}

TEST(EncodeOption, KeepsThePromptsOwnTokens) {
  text::TokenizerSpec spec = data::toy_tokenizer().spec();
  spec.tokens.emplace_back("bc");
  spec.types.push_back(text::TokenType::kNormal);
  spec.merges = {{"b", "c"}};
  spec.pre_split = "gpt-2";
  const text::Tokenizer tokenizer(spec);
  // "ab" are two tokens, "ab bc" are a, b, space, bc.
  const EncodedOption got = encode_option(tokenizer, "ab", "bc", 100);
  EXPECT_EQ(got.ids, (std::vector<int32_t>{'a', 'b', ' ', 258}));
  EXPECT_EQ(got.first, 2U);
}

TEST(EncodeOption, BosAndCut) {
  text::TokenizerSpec spec = data::toy_tokenizer().spec();
  spec.bos = data::kStart;
  spec.add_bos = true;
  const text::Tokenizer tokenizer(spec);
  const EncodedOption whole = encode_option(tokenizer, "abc", "d", 100);
  EXPECT_EQ(whole.ids, (std::vector<int32_t>{data::kStart, 'a', 'b', 'c', ' ', 'd'}));
  EXPECT_EQ(whole.first, 4U);
  // A context of 3 tokens predicts from 3 and has the fourth as the last target.
  const EncodedOption cut = encode_option(tokenizer, "abc", "d", 3);
  EXPECT_EQ(cut.ids, bytes("bc d"));
  EXPECT_EQ(cut.first, 2U);
  model::expect_error(ErrorCode::kInvalidInput, "no prompt before it",
                      [&] { encode_option(tokenizer, "abc", "def", 2); });
}

TEST(Choose, NormsByCharactersAndTakesTheFirstOfEquals) {
  const Item item{{"c"}, {"\xC3\xA4\xC3\xA4", "abcd", "wxyz"}, 0, 0, 0};  // the first has two characters, four bytes
  const ItemScore score = choose(item, {-5.0, -8.0, -8.0});
  EXPECT_EQ(score.chosen, 0U);
  EXPECT_EQ(score.chosen_norm, 1U);  // -2.5, -2, -2
  model::expect_error(ErrorCode::kNumeric, "\"abcd\"", [&] { choose(item, {-5.0, NAN, -8.0}); });
}

TEST(Summarise, SharesAndStandardErrors) {
  const Item item{{"c"}, {"a", "b"}, 0, 0, 0};
  const std::vector<const Item*> items(4, &item);
  const std::vector<ItemScore> scores{{{}, 0, 1}, {{}, 0, 1}, {{}, 0, 0}, {{}, 1, 1}};
  const TaskScore got = summarise(items, scores);
  EXPECT_EQ(got.n, 4);
  EXPECT_DOUBLE_EQ(got.acc, 0.75);
  EXPECT_DOUBLE_EQ(got.acc_norm, 0.25);
  EXPECT_DOUBLE_EQ(got.stderr_acc, 0.25);  // sqrt(0.75 * 0.25 / 3)
  EXPECT_TRUE(std::isnan(summarise(std::span(items).first(1), std::span(scores).first(1)).stderr_acc));
}

TEST(ScoreItems, EqualsOneSequenceAtATime) {
  const model::Model model = small_model();
  const TaskItems task = small_task();
  const auto mismatch = [&](const model::Model& other) {
    kernels::Context context;
    double worst = 0;
    const std::vector<ItemScore> got = score(model, task, 1);
    for (size_t i = 0; i < task.items.size(); ++i)
      for (size_t o = 0; o < task.items[i].options.size(); ++o) {
        const EncodedOption option = encode_option(data::toy_tokenizer(), prompt_of(task, task.items[i], o, 1),
                                                   task.items[i].options[o], model.config.context);
        const std::vector<int64_t> offsets{0, static_cast<int64_t>(option.ids.size())};
        std::vector<uint8_t> supervised(option.ids.size(), 0);
        for (size_t t = option.first; t < supervised.size(); ++t) supervised[t] = 1;
        const auto scored = model::scored_tokens(option.ids, supervised, offsets);
        std::vector<float> losses(scored.size());
        model::Transformer transformer(other, context, offsets[1]);
        model::token_losses(context, other, transformer.forward({option.ids, offsets}), scored, losses);
        double sum = 0;
        for (const float loss : losses) sum -= loss;
        worst = std::max(worst, std::fabs(sum - got[i].log_likelihoods[o]));
      }
    return worst;
  };
  EXPECT_LT(mismatch(model), kTolerance);
  model::Model other = small_model();  // negative control
  other.final_norm[3] *= 1.1F;
  EXPECT_GT(mismatch(other), kTolerance);
}

TEST(ScoreItems, AnItemsBitsDoNotDependOnTheOthers) {
  const model::Model model = small_model();
  const TaskItems task = small_task();
  const std::vector<ItemScore> whole = score(model, task, 2);
  for (size_t first = 1; first < task.items.size(); ++first) {
    const std::vector<ItemScore> rest = score(model, task, 2, first);
    ASSERT_EQ(rest.size(), task.items.size() - first);
    for (size_t i = 0; i < rest.size(); ++i) EXPECT_EQ(rest[i].log_likelihoods, whole[i + first].log_likelihoods);
  }
}

}  // namespace
}  // namespace brick::eval
