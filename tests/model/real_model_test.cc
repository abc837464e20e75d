// The real SmolLM2-135M-Instruct and stories260K, where they are at hand.
#include <gtest/gtest.h>

#include "brick/base/error.h"
#include "brick/io/json_file.h"
#include "brick/model/load.h"
#include "brick/model/save.h"
#include "brick/text/tokenizer.h"
#include "model/compare.h"
#include "model/real_files.h"
#include "model/tiny_model.h"

namespace brick::model {
namespace {

constexpr const char* kNoModel = "set BRICK_MODEL to SmolLM2-135M-Instruct.Q4_1.gguf";
constexpr const char* kNoData = "set BRICK_DATA to the shared data";

TEST(RealModel, SmolLm2HasItsShape) {
  const std::string path = real_gguf();
  BRICK_SKIP_WITHOUT(path, kNoModel);
  const Model model = load_model(path);
  EXPECT_EQ(model.config.layers, 30);
  EXPECT_EQ(model.config.hidden, 576);
  EXPECT_EQ(model.config.heads, 9);
  EXPECT_EQ(model.config.kv_heads, 3);
  EXPECT_EQ(model.config.head_dim, 64);
  EXPECT_EQ(model.config.ffn, 1536);
  EXPECT_EQ(model.config.vocab, 49152);
  EXPECT_EQ(model.config.rope_theta, 100000.0f);
  EXPECT_TRUE(model.config.tied_head);
  EXPECT_EQ(model.config.bos, 1);
  EXPECT_EQ(model.config.eos, 2);
  EXPECT_EQ(model.parameters(), 134515008);
  EXPECT_EQ(model.nonzeros(), model.parameters());
  EXPECT_EQ(fingerprint(model).size(), 64u);
}

TEST(RealModel, SmolLm2TokenizesAsHuggingFace) {
  const std::string path = real_gguf(), cases = shared_data("smollm2_tokenizer_cases/smollm2_cases.json");
  BRICK_SKIP_WITHOUT(path, kNoModel);
  BRICK_SKIP_WITHOUT(cases, kNoData);
  const text::Tokenizer tokenizer(*load_model(path).tokenizer);
  const nlohmann::json all = io::read_json_file(cases);
  EXPECT_EQ(all.size(), 56u);
  for (const auto& one : all) {
    const std::string text = one.at("text");
    EXPECT_EQ(tokenizer.encode(text, true), one.at("ids").get<std::vector<int32_t>>()) << text;
  }
}

TEST(RealModel, SmolLm2SummaryIsQuick) {
  const std::string path = real_gguf();
  BRICK_SKIP_WITHOUT(path, kNoModel);
  const ModelSummary summary = summarise(path, false);
  EXPECT_EQ(summary.parameters, 134515008);
  EXPECT_EQ(summary.dtype, "q4_1");
  EXPECT_EQ(summary.tensors_by_dtype.at("q4_1"), 210);
  EXPECT_EQ(summary.vocab, 49152);
}

TEST(RealModel, SmolLm2AsAFolderIsTheSameModel) {
  const std::string path = real_gguf();
  BRICK_SKIP_WITHOUT(path, kNoModel);
  const TempFolder folder;
  const Model model = load_model(path);
  save_block(model, folder.folder("block"));
  const Model back = load_model(folder.file("block"));
  EXPECT_EQ(fingerprint(back), fingerprint(model));
  EXPECT_EQ(back.weight_bytes(), model.weight_bytes());
  EXPECT_EQ(largest_difference(back.layers[29][Proj::kK], model.layers[29][Proj::kK]), 0.0f);
  EXPECT_EQ(back.tokenizer->tokens, model.tokenizer->tokens);
  EXPECT_EQ(back.tokenizer->merges, model.tokenizer->merges);
  EXPECT_EQ(back.tokenizer->pre_split, "smollm");
  EXPECT_EQ(back.tokenizer->types, model.tokenizer->types);
  EXPECT_EQ(back.tokenizer->bos, model.tokenizer->bos);
  EXPECT_EQ(back.tokenizer->eos, model.tokenizer->eos);
  EXPECT_EQ(back.tokenizer->pad, model.tokenizer->pad);
  EXPECT_EQ(back.tokenizer->add_bos, model.tokenizer->add_bos);
  EXPECT_EQ(back.tokenizer->chat_template, model.tokenizer->chat_template);
}

TEST(RealModel, StoriesLoads) {
  const std::string folder = shared_data("stories260K/hf"), tokenizer = shared_data("stories260K/tok512.bin");
  BRICK_SKIP_WITHOUT(folder, kNoData);
  EXPECT_THROW(load_model(folder), Error);  // the folder has no tokenizer
  const Model model = load_model(folder, {.tokenizer = true, .tokenizer_file = tokenizer});
  EXPECT_EQ(model.config.layers, 5);
  EXPECT_EQ(model.config.hidden, 64);
  EXPECT_EQ(model.config.head_dim, 8);
  EXPECT_EQ(model.config.ffn, 172);
  EXPECT_EQ(model.tokenizer->tokens.size(), 512u);
}

}  // namespace
}  // namespace brick::model
