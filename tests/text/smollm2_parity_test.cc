// The default model's own vocabulary, which is too large to stand here: a folder with its tokenizer.json and
// tokenizer_config.json in BRICK_SMOLLM2_TOKENIZER (`brick export` writes one from the GGUF).
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "brick/text/chat_template.h"
#include "vocabularies.h"

namespace brick::text::test {
namespace {

constexpr size_t kCases = 56;
constexpr size_t kRecords = 80, kLength = 512;
// Counted with the tokenizers library from the rendered Jinja template (transformers 5.23, tokenizers 0.23).
constexpr int kSupervisedTargets = 7267;

class SmolLm2 : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* folder = std::getenv("BRICK_SMOLLM2_TOKENIZER");
    if (!folder) GTEST_SKIP() << "BRICK_SMOLLM2_TOKENIZER names no folder with SmolLM2's tokenizer.json";
    spec_ = spec_from_hf_json(slurp(std::string(folder) + "/tokenizer.json"),
                              slurp(std::string(folder) + "/tokenizer_config.json"));
    ASSERT_EQ(spec_.pre_split, "smollm");
  }
  size_t equal_cases(const Tokenizer& tokenizer, const nlohmann::json& cases) {
    size_t equal = 0;
    for (const auto& item : cases)
      equal += tokenizer.encode(item.at("text").get<std::string>(), true) == item.at("ids").get<std::vector<int32_t>>();
    return equal;
  }
  TokenizerSpec spec_;
};

TEST_F(SmolLm2, ReferenceCases) {
  const std::string path = shared_data("smollm2_tokenizer_cases/smollm2_cases.json");
  if (path.empty()) GTEST_SKIP() << "no BRICK_DATA/smollm2_tokenizer_cases";
  const auto cases = nlohmann::json::parse(slurp(path));
  ASSERT_EQ(cases.size(), kCases);
  EXPECT_EQ(equal_cases(Tokenizer(spec_), cases), kCases);
  // Negative controls: without the digits' own split, and with the first merge (of a space and t) done later.
  TokenizerSpec changed = spec_;
  changed.pre_split = "gpt-2";
  EXPECT_LT(equal_cases(Tokenizer(changed), cases), kCases);
  changed = spec_;
  std::rotate(changed.merges.begin(), changed.merges.begin() + 1, changed.merges.begin() + 2000);
  EXPECT_LT(equal_cases(Tokenizer(changed), cases), kCases);
}

TEST_F(SmolLm2, SupervisedTargetsOfDolly) {
  const std::string path = shared_data("dolly15k/global_test.json");
  if (path.empty()) GTEST_SKIP() << "no BRICK_DATA/dolly15k";
  const auto records = nlohmann::json::parse(slurp(path));
  ASSERT_EQ(records.size(), kRecords);
  const Tokenizer tokenizer(spec_);
  const auto style = detect_chat_template(spec_.chat_template);
  ASSERT_TRUE(style.has_value());
  int targets = 0;
  for (const auto& record : records) {
    const std::string context = record.at("context");
    const std::vector<Message> messages = {
        {"user", record.at("instruction").get<std::string>() + (context.empty() ? "" : "\n\n" + context)},
        {"assistant", record.at("response")}};
    const EncodedChat chat = encode_chat(tokenizer, render(*style, messages, false));
    for (size_t i = 1; i < std::min(kLength, chat.ids.size()); ++i) targets += chat.supervised[i];
  }
  EXPECT_EQ(targets, kSupervisedTargets);
}

}  // namespace
}  // namespace brick::text::test
