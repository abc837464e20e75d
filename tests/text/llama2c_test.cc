#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "vocabularies.h"

namespace brick::text::test {
namespace {

constexpr int32_t kStoriesVocabulary = 512;

template <class T>
void put(std::string& file, T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  file.append(bytes, sizeof(T));
}

// As llama2.c's tokenizer.py exports a spec: a space for U+2581.
std::string llama2c_file(const TokenizerSpec& spec) {
  std::string file;
  put<int32_t>(file, 8);
  for (size_t id = 0; id < spec.tokens.size(); ++id) {
    std::string token = id == 1 ? "\n<s>\n" : id == 2 ? "\n</s>\n" : marks_to_spaces(spec.tokens[id]);
    put<float>(file, spec.scores[id]);
    put<int32_t>(file, static_cast<int32_t>(token.size()));
    file += token;
  }
  return file;
}

TEST(Llama2c, ReadsWhatItsExportWrites) {
  const TokenizerSpec spec = sentence_piece_spec();
  const auto count = static_cast<int32_t>(spec.tokens.size());
  const std::string file = llama2c_file(spec);
  const TokenizerSpec read = spec_from_llama2c(bytes_of(file), count);
  EXPECT_EQ(read.tokens, spec.tokens);
  EXPECT_EQ(read.types, spec.types);
  EXPECT_EQ(read.scores, spec.scores);
  EXPECT_EQ(read.bos, 1);
  EXPECT_TRUE(read.add_bos && read.add_space_prefix);
}

TEST(Llama2c, RefusesEveryTruncation) {
  const TokenizerSpec spec = sentence_piece_spec();
  const auto count = static_cast<int32_t>(spec.tokens.size());
  const std::string file = llama2c_file(spec);
  for (size_t length = 0; length < file.size(); ++length)
    expect_error(ErrorCode::kCorrupt, {"ends inside", "truncated"},
                 [&] { spec_from_llama2c(bytes_of(file.substr(0, length)), count); });
}

TEST(Llama2c, RefusesMalformedFiles) {
  const TokenizerSpec spec = sentence_piece_spec();
  const auto count = static_cast<int32_t>(spec.tokens.size());
  std::string file = llama2c_file(spec);
  expect_error(ErrorCode::kMismatch, {"bytes follow"}, [&] { spec_from_llama2c(bytes_of(file), count - 1); });
  expect_error(ErrorCode::kInvalidInput, {"12 tokens"}, [&] { spec_from_llama2c(bytes_of(file), 12); });
  expect_error(ErrorCode::kInvalidInput, {"-1 tokens"}, [&] { spec_from_llama2c(bytes_of(file), -1); });
  for (const int32_t length : {-1, 1 << 30}) {
    std::string bad = file;
    std::memcpy(bad.data() + 8, &length, sizeof(length));
    expect_error(ErrorCode::kCorrupt, {"token 0 has length", std::to_string(length)},
                 [&] { spec_from_llama2c(bytes_of(bad), count); });
  }
  file.replace(file.find("<0x41>"), 6, "<0x42>");
  expect_error(ErrorCode::kCorrupt, {"<0x41>", "<0x42>"}, [&] { spec_from_llama2c(bytes_of(file), count); });
}

// karpathy/tinyllamas' stories260K with ids from llama2.c and transformers (shared data, reference.json).
class Stories : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string folder = shared_data("stories260K");
    if (folder.empty()) GTEST_SKIP() << "no BRICK_DATA/stories260K";
    const std::string file = slurp(folder + "/tok512.bin");
    spec_ = spec_from_llama2c(bytes_of(file), kStoriesVocabulary);
    reference_ = nlohmann::json::parse(slurp(folder + "/reference.json"));
  }
  std::vector<int32_t> ids(const char* key) { return reference_.at(key).get<std::vector<int32_t>>(); }
  static std::vector<int32_t> with_bos(const Tokenizer& tokenizer, std::string_view text) {
    std::vector<int32_t> all = tokenizer.encode(text);
    all.insert(all.begin(), *tokenizer.spec().bos);
    return all;
  }

  TokenizerSpec spec_;
  nlohmann::json reference_;
};

constexpr std::string_view kPrompt = "Once upon a time, there was a";

TEST_F(Stories, PromptAndStoryHaveTheReferenceIds) {
  const Tokenizer tokenizer(spec_);
  EXPECT_EQ(with_bos(tokenizer, kPrompt), ids("prompt_ids"));
  EXPECT_EQ(with_bos(tokenizer, reference_.at("story").get<std::string>()), ids("story_ids"));
  EXPECT_EQ(tokenizer.decode(ids("greedy_from_bos_ids")), reference_.at("greedy_text"));
}

TEST_F(Stories, SameIdsAfterExport) {
  const Tokenizer tokenizer(spec_from_hf_json(to_hf_tokenizer_json(spec_), to_hf_tokenizer_config_json(spec_)));
  EXPECT_EQ(with_bos(tokenizer, reference_.at("story").get<std::string>()), ids("story_ids"));
  EXPECT_EQ(tokenizer.decode(ids("greedy_from_bos_ids")), reference_.at("greedy_text"));
}

// Negative control: scores in reverse, or one changed flag, must break the parity above.
TEST_F(Stories, ParityNoticesReversedScoresAndAMissingPrefix) {
  TokenizerSpec changed = spec_;
  for (float& score : changed.scores) score = -score;
  EXPECT_NE(with_bos(Tokenizer(changed), kPrompt), ids("prompt_ids"));
  changed = spec_;
  changed.add_space_prefix = false;
  EXPECT_NE(with_bos(Tokenizer(changed), kPrompt), ids("prompt_ids"));
}

}  // namespace
}  // namespace brick::text::test
