#include "brick/model/prompt_cache.h"

#include <gtest/gtest.h>

#include <fstream>

#include "brick/io/safetensors.h"
#include "model/expect_error.h"
#include "model/tiny_model.h"

namespace brick::model {
namespace {

const std::vector<int32_t> kPrompt{1, 20, 33, 4, 5, 60, 7, 8, 9, 10};

class PromptCache : public ::testing::Test {
 protected:
  std::vector<float> logits_of(Decoder& decoder, std::span<const int32_t> prompt) const {
    const std::span<float> z = decoder.restart(prompt);
    return {z.begin(), z.end()};
  }
  std::vector<float> fresh_logits(std::span<const int32_t> prompt) {
    Decoder decoder(model_, context_, {}, 32);
    return logits_of(decoder, prompt);
  }
  std::string saved() {
    Decoder decoder(model_, context_, {}, 32);
    decoder.feed(kPrompt);
    save_prompt_cache(path_, identity_, decoder);
    return path_;
  }
  int64_t load(const std::string& path, std::span<const int32_t> prompt, Decoder& decoder) const {
    return load_prompt_cache(path, identity_, prompt, decoder);
  }

  TempFolder folder_;
  Model model_ = tiny_model();
  kernels::Context context_;
  std::string identity_ = cache_identity(model_, nullptr, context_), path_ = folder_.file("prompt.cache");
};

TEST_F(PromptCache, GivesTheSameLogitsAndLessWork) {
  saved();
  Decoder decoder(model_, context_, {}, 32);
  EXPECT_EQ(load(path_, kPrompt, decoder), 10);
  EXPECT_EQ(decoder.tokens(), kPrompt);
  const std::vector<float> got = logits_of(decoder, kPrompt), want = fresh_logits(kPrompt);
  for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i], want[i], 1e-5f);
}

TEST_F(PromptCache, TakesWhatTwoPromptsShare) {
  saved();
  std::vector<int32_t> other(kPrompt.begin(), kPrompt.begin() + 6);
  other.push_back(90);
  other.push_back(91);
  Decoder decoder(model_, context_, {}, 32);
  EXPECT_EQ(load(path_, other, decoder), 6);
  const std::vector<float> got = logits_of(decoder, other), want = fresh_logits(other);
  for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i], want[i], 1e-5f);
  const std::vector<int32_t> foreign{77, 78};
  Decoder second(model_, context_, {}, 32);
  EXPECT_EQ(load(path_, foreign, second), 0);
}

TEST_F(PromptCache, IdentitySeesWhatKeysDependOn) {
  const Model block = tiny_block(model_),
              other_values = tiny_block(model_, 0.5, tensor::SparseCoding::kValues, tensor::DType::kBF16);
  EXPECT_NE(identity_, cache_identity(block, nullptr, context_));
  EXPECT_NE(cache_identity(block, nullptr, context_), cache_identity(other_values, nullptr, context_));
  LoraConfig config;
  config.targets.assign(kProjs.begin(), kProjs.end());
  Adapter adapter = make_adapter(model_, config, 1);
  const std::string with_adapter = cache_identity(model_, &adapter, context_);
  EXPECT_NE(identity_, with_adapter);
  randomise(adapter, 2);
  EXPECT_NE(with_adapter, cache_identity(model_, &adapter, context_));
  context_.set_rounds_activations(true);
  EXPECT_NE(identity_, cache_identity(model_, nullptr, context_));
}

TEST_F(PromptCache, RefusesAForeignOne) {
  saved();
  Decoder decoder(model_, context_, {}, 32);
  expect_error(ErrorCode::kMismatch, "another model, adapter or arithmetic",
               [&] { load_prompt_cache(path_, "other", kPrompt, decoder); });
  EXPECT_EQ(decoder.length(), 0);
}

TEST_F(PromptCache, RefusesMalformedFiles) {
  Decoder decoder(model_, context_, {}, 32);
  const auto refuse = [&](const std::string& part, auto&& build) {
    io::SafetensorsWriter writer;
    build(writer);
    writer.write(path_, true);
    expect_error(ErrorCode::kCorrupt, part, [&] { load(path_, kPrompt, decoder); });
    EXPECT_EQ(decoder.length(), 0);
  };
  tensor::Tensor ids(tensor::DType::kI32, {2}), floats = tensor::matrix(2, 3), flat(tensor::DType::kF32, {2});
  std::memcpy(ids.bytes().data(), kPrompt.data(), 8);
  refuse("no prompt cache", [&](io::SafetensorsWriter& w) { w.add_tensor("ids", ids.view()); });
  refuse("no prompt cache", [&](io::SafetensorsWriter& w) {
    w.set_metadata("brick_prompt_cache", identity_);
    w.add_tensor("ids", floats.view());
  });
  refuse("ids has another type", [&](io::SafetensorsWriter& w) {
    w.set_metadata("brick_prompt_cache", identity_);
    w.add_tensor("ids", flat.view());
  });
  refuse("keys.0 has another type", [&](io::SafetensorsWriter& w) {
    w.set_metadata("brick_prompt_cache", identity_);
    w.add_tensor("ids", ids.view());
    w.add_tensor("keys.0", floats.view());
  });
  // Cut anywhere, or with any byte of its header changed, it is refused or still whole; never a crash.
  const std::string whole = [&] {
    std::ifstream file(saved(), std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  }();
  const auto survives = [&](const std::string& bytes) {
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << bytes;
    Decoder fresh(model_, context_, {}, 32);
    try {
      load(path_, kPrompt, fresh);
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
      EXPECT_EQ(fresh.length(), 0);
    }
  };
  for (size_t cut = 0; cut < whole.size(); cut += 97) survives(whole.substr(0, cut));
  for (size_t at = 0; at < 600; at += 3) {
    std::string changed = whole;
    changed[at] = static_cast<char>(changed[at] ^ 0x15);
    survives(changed);
  }
}

TEST_F(PromptCache, AMissingFileIsAnError) {
  Decoder decoder(model_, context_, {}, 32);
  EXPECT_THROW(load(folder_.file("none"), kPrompt, decoder), Error);
}

TEST(DecoderRestart, KeepsWhatSequencesShare) {
  const Model model = tiny_model();
  kernels::Context context;
  Decoder decoder(model, context, {}, 32);
  decoder.feed(kPrompt);
  for (const std::vector<int32_t>& ids : {std::vector<int32_t>{1, 20, 33, 50, 51}, std::vector<int32_t>{1, 20, 33, 50},
                                          std::vector<int32_t>{9}, std::vector<int32_t>{9, 1, 2}}) {
    const std::span<float> got = decoder.restart(ids);
    EXPECT_EQ(decoder.tokens(), ids);
    Decoder fresh(model, context, {}, 32);
    const std::span<float> want = fresh.feed(ids);
    for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i], want[i], 1e-5f);
  }
}

}  // namespace
}  // namespace brick::model
