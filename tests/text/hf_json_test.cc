#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "brick/text/pre_split.h"
#include "vocabularies.h"

namespace brick::text::test {
namespace {

using nlohmann::json;

// A tokenizer.json as parts to change.
json byte_level_json() { return json::parse(to_hf_tokenizer_json(byte_level_spec())); }
json sentence_piece_json() { return json::parse(to_hf_tokenizer_json(sentence_piece_spec())); }

TokenizerSpec read(const json& file, const json& config = json()) {
  return spec_from_hf_json(file.dump(), config.is_null() ? "" : config.dump());
}

void refuse(ErrorCode code, const std::vector<std::string>& words, const json& file, const json& config = json()) {
  expect_error(code, words, [&] { read(file, config); });
}

json byte_level_step(bool use_regex = true) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", use_regex}};
}
json split_step(const char* regex, const char* behavior = "Isolated", bool invert = false) {
  return {{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", behavior}, {"invert", invert}};
}
json sequence(const char* key, const json& steps) { return {{"type", "Sequence"}, {key, steps}}; }

void expect_same_ids(const TokenizerSpec& a, const TokenizerSpec& b) {
  const Tokenizer first(a), second(b);
  for (const std::string& text : sample_texts())
    for (const bool special : {false, true}) EXPECT_EQ(first.encode(text, special), second.encode(text, special));
}

TEST(HfJson, ByteLevelRoundTrip) {
  for (const char* pre_split : {"gpt-2", "smollm"}) {
    TokenizerSpec spec = byte_level_spec();
    spec.pre_split = pre_split;
    spec.unk = 0;
    spec.chat_template = "{% for message in messages %}\n{{ 'x' }}{% endfor %}";
    add_token(spec, "<tool>", TokenType::kUserDefined);
    const TokenizerSpec back = spec_from_hf_json(to_hf_tokenizer_json(spec), to_hf_tokenizer_config_json(spec));
    EXPECT_EQ(back.kind, spec.kind);
    EXPECT_EQ(back.pre_split, spec.pre_split);
    EXPECT_EQ(back.tokens, spec.tokens);
    EXPECT_EQ(back.types, spec.types);
    EXPECT_EQ(back.merges, spec.merges);
    EXPECT_EQ(std::tie(back.bos, back.eos, back.unk, back.pad), std::tie(spec.bos, spec.eos, spec.unk, spec.pad));
    EXPECT_EQ(back.add_bos, spec.add_bos);
    EXPECT_EQ(back.chat_template, spec.chat_template);
    expect_same_ids(spec, back);
  }
}

TEST(HfJson, SentencePieceRoundTrip) {
  for (const PrefixStyle style : {PrefixStyle::kPlain, PrefixStyle::kMetaspaceAlways, PrefixStyle::kMetaspaceFirst}) {
    for (const bool prefix : {true, false}) {
      TokenizerSpec spec = sentence_piece_spec();
      spec.add_space_prefix = prefix;
      spec.prefix_style = style;
      const TokenizerSpec back = spec_from_hf_json(to_hf_tokenizer_json(spec), to_hf_tokenizer_config_json(spec));
      EXPECT_EQ(back.kind, spec.kind);
      EXPECT_EQ(back.tokens, spec.tokens);
      EXPECT_EQ(back.types, spec.types);
      EXPECT_EQ(back.add_space_prefix, prefix);
      if (prefix) {
        EXPECT_EQ(back.prefix_style, style);
      }
      EXPECT_TRUE(back.add_bos);
      expect_same_ids(spec, back);
      // The scores made from the merges say the same once more.
      TokenizerSpec by_scores = back;
      by_scores.merges.clear();
      expect_same_ids(spec, by_scores);
    }
  }
}

TEST(HfJson, UnusedDuplicatesKeepTheirIds) {
  TokenizerSpec spec = byte_level_spec();
  add_token(spec, "hello", TokenType::kUnused);
  add_token(spec, "<last>", TokenType::kControl);
  const TokenizerSpec back = spec_from_hf_json(to_hf_tokenizer_json(spec), "");
  EXPECT_EQ(back.tokens.size(), spec.tokens.size());
  EXPECT_EQ(back.tokens.back(), "<last>");
}

TEST(HfJson, FormsOfThePreTokenizer) {
  json file = byte_level_json();
  const json digits = {{"type", "Digits"}, {"individual_digits", true}};
  const std::string words(kGpt2Regex);
  const auto pre_split = [&](const json& step) {
    file["pre_tokenizer"] = step;
    return read(file).pre_split;
  };
  EXPECT_EQ(pre_split(byte_level_step()), "gpt-2");
  EXPECT_EQ(pre_split(sequence("pretokenizers", json::array({digits, byte_level_step()}))), "smollm");
  EXPECT_EQ(pre_split(sequence("pretokenizers", json::array({split_step(R"(\p{N})"), byte_level_step()}))), "smollm");
  EXPECT_EQ(pre_split(sequence("pretokenizers", json::array({split_step(words.c_str()), byte_level_step(false)}))),
            "gpt-2");
  EXPECT_EQ(pre_split(sequence("pretokenizers",
                               json::array({split_step(words.c_str(), "Removed", true), byte_level_step(false)}))),
            "gpt-2");
  EXPECT_EQ(
      pre_split(sequence("pretokenizers", json::array({digits, split_step(words.c_str()), byte_level_step(false)}))),
      "smollm");
}

TEST(HfJson, MergesAsStrings) {
  json file = byte_level_json();
  for (json& merge : file["model"]["merges"]) merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
  expect_same_ids(read(file), byte_level_spec());
}

TEST(HfJson, RefusesOtherPreTokenizersByName) {
  json file = byte_level_json();
  const auto refuse_step = [&](const json& step, const std::vector<std::string>& words) {
    file["pre_tokenizer"] = step;
    refuse(ErrorCode::kUnsupported, words, file);
  };
  const auto refuse_steps = [&](const json& steps, const std::vector<std::string>& words) {
    refuse_step(sequence("pretokenizers", steps), words);
  };
  refuse_step({{"type", "Whitespace"}}, {"Whitespace", "supported: ByteLevel"});
  refuse_step({{"type", "BertPreTokenizer"}}, {"BertPreTokenizer"});
  refuse_step(nullptr, {"neither a ByteLevel"});
  refuse_step({{"type", "ByteLevel"}}, {"add_prefix_space"});  // its default
  refuse_step(byte_level_step(false), {"without a regex"});
  refuse_steps(json::array({split_step(R"(\p{N}{1,3})"), byte_level_step()}), {R"(\p{N}{1,3})"});
  refuse_steps(json::array({split_step(R"(\p{N})", "Removed"), byte_level_step()}), {"Removed"});
  refuse_steps(json::array({{{"type", "Digits"}, {"individual_digits", false}}, byte_level_step()}), {"Digits"});
  refuse_steps(json::array({byte_level_step(), {{"type", "Digits"}, {"individual_digits", true}}}),
               {"\"Digits\" after ByteLevel"});
  json nested = byte_level_step();
  for (int depth = 0; depth < 20; ++depth) nested = sequence("pretokenizers", json::array({nested}));
  file["pre_tokenizer"] = nested;
  refuse(ErrorCode::kCorrupt, {"nested"}, file);
  file["pre_tokenizer"] = {{"type", "Sequence"}};
  refuse(ErrorCode::kCorrupt, {"pretokenizers"}, file);
  file["pre_tokenizer"] = 7;
  refuse(ErrorCode::kCorrupt, {"no object"}, file);
}

TEST(HfJson, RefusesOtherModelsAndSteps) {
  const auto with = [](json file, const char* pointer, const json& value) {
    file[json::json_pointer(pointer)] = value;
    return file;
  };
  const json good = byte_level_json(), llama = sentence_piece_json();
  const auto unsupported = ErrorCode::kUnsupported;
  refuse(unsupported, {"WordPiece", "supported: BPE"}, with(good, "/model/type", "WordPiece"));
  refuse(unsupported, {"Unigram"}, with(good, "/model/type", "Unigram"));
  refuse(unsupported, {"no type"}, with(good, "/model/type", nullptr));
  refuse(unsupported, {"ignore_merges"}, with(good, "/model/ignore_merges", true));
  refuse(unsupported, {"dropout"}, with(good, "/model/dropout", 0.1));
  refuse(unsupported, {"end_of_word_suffix"}, with(good, "/model/end_of_word_suffix", "</w>"));
  refuse(unsupported, {"NFC"}, with(good, "/normalizer", {{"type", "NFC"}}));
  refuse(unsupported, {"BertProcessing"}, with(good, "/post_processor", {{"type", "BertProcessing"}}));
  refuse(unsupported, {"<|im_end|>", "lstrip"}, with(good, "/added_tokens/2/lstrip", true));
  refuse(unsupported, {"NFKC"}, with(llama, "/normalizer", {{"type", "NFKC"}}));
  refuse(unsupported, {"leaves spaces"}, with(llama, "/normalizer", nullptr));
  const json metaspace = {
      {"type", "Metaspace"}, {"replacement", "\u2581"}, {"prepend_scheme", "first"}, {"split", true}};
  refuse(unsupported, {"Metaspace with split"}, with(llama, "/pre_tokenizer", metaspace));
  refuse(unsupported, {"Metaspace after Prepend"},
         with(with(llama, "/pre_tokenizer", metaspace), "/pre_tokenizer/split", false));
}

TEST(HfJson, RefusesInconsistentVocabularies) {
  const json good = byte_level_json();
  const auto corrupt = [&](const std::vector<std::string>& words, auto change) {
    json file = good;
    change(file, file["model"]["vocab"]);
    refuse(ErrorCode::kCorrupt, words, file);
  };
  const size_t count = good["model"]["vocab"].size();
  corrupt({"\"he\"", "out of range"}, [&](json&, json& v) { v["he"] = count; });
  corrupt({"\"he\"", "out of range"}, [&](json&, json& v) { v["he"] = -1; });
  corrupt({"\"he\"", "out of range"}, [&](json&, json& v) { v["he"] = ~uint64_t{0}; });
  corrupt({"\"he\"", "expected an integer"}, [&](json&, json& v) { v["he"] = "x"; });
  corrupt({"\"he\"", "expected an integer"}, [&](json&, json& v) { v["he"] = 1.5; });
  corrupt({"both have the id"}, [&](json&, json& v) { v["he"] = v["ll"]; });
  corrupt({"another id missing"}, [&](json&, json& v) { v.erase("user"), v["he"] = count - 1; });
  corrupt({"vocab is no object"}, [&](json&, json& v) { v = json::array(); });
  corrupt({"merge 0", "\"he\""}, [&](json&, json& v) { v["hex"] = v["he"], v.erase("he"); });
  corrupt({"merge 2", "neither"}, [&](json& f, json&) { f["model"]["merges"][2] = "a b c"; });
  corrupt({"merge 2", "neither"}, [&](json& f, json&) { f["model"]["merges"][2] = "ab"; });
  corrupt({"merge 2", "neither"}, [&](json& f, json&) { f["model"]["merges"][2] = {"a"}; });
  corrupt({"merge 2", "neither"}, [&](json& f, json&) { f["model"]["merges"][2] = {"a", 5}; });
  corrupt({"merge 2", "neither"}, [&](json& f, json&) { f["model"]["merges"][2] = nullptr; });
  corrupt({"merges is no list"}, [&](json& f, json&) { f["model"]["merges"] = "x"; });
  corrupt({"no model"}, [&](json& f, json&) { f.erase("model"); });
  corrupt({"added_tokens is no list"}, [&](json& f, json&) { f["added_tokens"] = 1; });
  corrupt({"added_tokens[1] is no object"}, [&](json& f, json&) { f["added_tokens"][1] = 1; });
  corrupt({"added_tokens[1].content"}, [&](json& f, json&) { f["added_tokens"][1].erase("content"); });
  corrupt({"\"<|im_start|>\"", "missing"}, [&](json& f, json&) { f["added_tokens"][1].erase("id"); });
  corrupt({"in added_tokens and 1"}, [&](json& f, json&) { f["added_tokens"][1]["id"] = 5; });
  corrupt({"both have the id"}, [&](json& f, json&) { f["added_tokens"][1]["content"] = "<new>"; });
  corrupt({"special", "expected true or false"}, [&](json& f, json&) { f["added_tokens"][1]["special"] = "yes"; });
  corrupt({"unk_token"}, [&](json& f, json&) { f["model"]["unk_token"] = 5; });
  corrupt({"<none>", "not in the vocabulary"}, [&](json& f, json&) { f["model"]["unk_token"] = "<none>"; });
}

TEST(HfJson, RefusesGaps) {
  TokenizerSpec spec = byte_level_spec();
  const int32_t last = add_token(spec, "<last>", TokenType::kNormal);
  json file = json::parse(to_hf_tokenizer_json(spec));
  file["model"]["vocab"].erase("<last>");
  json again = file["added_tokens"][0];
  file["added_tokens"].push_back({{"id", last}, {"content", "<new>"}, {"special", true}});
  EXPECT_EQ(read(file).tokens.back(), "<new>");
  file["added_tokens"].back() = again;
  again["content"] = "<twice>";  // one name for two entries: the other id is missing
  again["id"] = last - 1;
  file["added_tokens"].push_back(again);
  refuse(ErrorCode::kCorrupt, {"both have the id"}, file);
  again["id"] = last;
  file["added_tokens"].back() = again;
  file["added_tokens"].push_back(again);
  refuse(ErrorCode::kCorrupt, {"no token has the id", std::to_string(last + 1)}, file);
}

TEST(HfJson, RefusesBrokenText) {
  const std::string good = to_hf_tokenizer_json(byte_level_spec());
  // Every cut of the beginning, then some further on: reading is linear in what is left.
  for (size_t length = 0; length < good.size(); length += length < 200 ? 1 : 97)
    expect_error(ErrorCode::kCorrupt, {"tokenizer.json", "not "},
                 [&] { spec_from_hf_json(good.substr(0, length), ""); });
  expect_error(ErrorCode::kCorrupt, {"not JSON"}, [&] { spec_from_hf_json(good + "x", ""); });
  expect_error(ErrorCode::kCorrupt, {"byte 1 is not valid UTF-8"}, [&] { spec_from_hf_json("{\xFF}", ""); });
  expect_error(ErrorCode::kCorrupt, {"expected an object"}, [&] { spec_from_hf_json("[]", ""); });
  expect_error(ErrorCode::kCorrupt, {"tokenizer_config.json", "not JSON"}, [&] { spec_from_hf_json(good, "{"); });
  const std::string deep(1 << 20, '[');
  const auto refuse_depth = [](const char* file, const std::string& tokenizer, const std::string& config) {
    expect_error(ErrorCode::kCorrupt, {file, "deeper"}, [&] { spec_from_hf_json(tokenizer, config); });
  };
  const std::string value = deep + std::string(deep.size(), ']');
  refuse_depth("tokenizer.json", deep, "");
  json quoted = byte_level_json();
  quoted["comment"] = "\"" + deep + "\\";
  EXPECT_EQ(read(quoted).tokens, byte_level_spec().tokens);
  refuse_depth("tokenizer.json", value, "");
  refuse_depth("tokenizer.json", R"({"added_tokens":[{"content":)" + value + "}]}", "");
  refuse_depth("tokenizer_config.json", good, R"({"chat_template":[{"name":)" + value + "}]}");
}

TEST(HfJson, PostProcessorSaysWhatIsAdded) {
  TokenizerSpec spec = byte_level_spec();
  spec.add_bos = spec.add_eos = true;
  json file = json::parse(to_hf_tokenizer_json(spec));
  TokenizerSpec back = read(file);
  EXPECT_TRUE(back.add_bos && back.add_eos);
  EXPECT_EQ(back.bos, 1);
  EXPECT_EQ(back.eos, 2);
  EXPECT_FALSE(read(file, {{"add_bos_token", false}}).add_bos);
  json& single = file["post_processor"]["single"];
  single.insert(single.begin(), single[0]);
  refuse(ErrorCode::kUnsupported, {"adds both"}, file);
  single = json::array({5});
  refuse(ErrorCode::kCorrupt, {"malformed"}, file);
  single = 5;
  refuse(ErrorCode::kCorrupt, {"single"}, file);
}

TEST(HfJson, ConfigFields) {
  const json file = byte_level_json();
  const TokenizerSpec spec = read(file, {{"bos_token", {{"content", "<|im_start|>"}, {"lstrip", false}}},
                                         {"eos_token", "<|im_end|>"},
                                         {"pad_token", nullptr},
                                         {"chat_template", json::array({{{"name", "tool_use"}, {"template", "t"}},
                                                                        {{"name", "default"}, {"template", "d"}}})}});
  EXPECT_EQ(spec.bos, 1);
  EXPECT_EQ(spec.eos, 2);
  EXPECT_EQ(spec.pad, std::nullopt);
  EXPECT_EQ(spec.chat_template, "d");
  refuse(ErrorCode::kMismatch, {"eos_token", "<none>"}, file, {{"eos_token", "<none>"}});
  refuse(ErrorCode::kCorrupt, {"eos_token"}, file, {{"eos_token", 5}});
  refuse(ErrorCode::kCorrupt, {"add_bos_token"}, file, {{"add_bos_token", "yes"}});
  refuse(ErrorCode::kCorrupt, {"chat_template"}, file, {{"chat_template", json::array({1})}});
  TokenizerSpec foreign = byte_level_spec();  // as a GGUF file may have it
  foreign.chat_template = "ab\xFF";
  expect_error(ErrorCode::kCorrupt, {"byte 2 of the chat template"}, [&] { Tokenizer{foreign}; });
}

}  // namespace
}  // namespace brick::text::test
