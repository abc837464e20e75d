#include <nlohmann/json.hpp>

#include "brick/base/error.h"
#include "brick/text/bpe.h"
#include "brick/text/byte_alphabet.h"
#include "brick/text/token_index.h"
#include "brick/text/tokenizer_spec.h"
#include "brick/text/utf8.h"

namespace brick::text {
namespace {

using Json = nlohmann::ordered_json;

// ordered_json looks through all keys on every operator[]; a vocabulary is appended instead.
Json vocabulary(const TokenizerSpec& spec) {
  Json::object_t vocab;
  vocab.reserve(spec.tokens.size());
  const TokenIndex index = make_token_index(spec);
  for (size_t i = 0; i < spec.tokens.size(); ++i) {
    std::string key = spec.tokens[i];
    // An unused duplicate gets a name of its own, lest its id be a gap.
    if (index.at(key) != static_cast<int32_t>(i)) key = fmt::format("<unused {}: {}>", i, key);
    vocab.emplace_back(std::move(key), static_cast<int32_t>(i));
  }
  return Json(std::move(vocab));
}

Json merge_pairs(const TokenizerSpec& spec) {
  Json list = Json::array();
  const bool by_score = spec.kind == TokenizerKind::kSentencePieceBpe && spec.merges.empty();
  for (const auto& [left, right] : by_score ? merges_from_scores(spec) : spec.merges)
    list.push_back(Json::array({left, right}));
  return list;
}

Json added_tokens(const TokenizerSpec& spec) {
  Json list = Json::array();
  for (size_t i = 0; i < spec.tokens.size(); ++i) {
    const TokenType type = spec.types[i];
    if (type != TokenType::kControl && type != TokenType::kUserDefined && type != TokenType::kUnknown) continue;
    list.push_back({{"id", i},
                    {"content", spec.tokens[i]},
                    {"single_word", false},
                    {"lstrip", false},
                    {"rstrip", false},
                    {"normalized", false},
                    {"special", type != TokenType::kUserDefined}});
  }
  return list;
}

Json sequence(const char* key, Json steps) { return {{"type", "Sequence"}, {key, std::move(steps)}}; }

Json byte_level() {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
}

Json post_processor(const TokenizerSpec& spec) {
  const bool bos = spec.add_bos && spec.bos, eos = spec.add_eos && spec.eos;
  if (!bos && !eos) return nullptr;
  Json single = Json::array(), pair = Json::array(), special = Json::object();
  const auto add = [&](int32_t id) {
    const std::string& token = spec.tokens[id];
    single.push_back({{"SpecialToken", {{"id", token}, {"type_id", 0}}}});
    pair.push_back({{"SpecialToken", {{"id", token}, {"type_id", 0}}}});
    special[token] = {{"id", token}, {"ids", {id}}, {"tokens", {token}}};
  };
  const auto text = [](const char* name) { return Json{{"Sequence", {{"id", name}, {"type_id", 0}}}}; };
  if (bos) add(*spec.bos);
  single.push_back(text("A"));
  pair.push_back(text("A"));
  pair.push_back(text("B"));
  if (eos) add(*spec.eos);
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", special}};
}

void add_byte_level(const TokenizerSpec& spec, Json& file) {
  file["normalizer"] = nullptr;
  if (spec.pre_split == "smollm")
    file["pre_tokenizer"] =
        sequence("pretokenizers", Json::array({{{"type", "Digits"}, {"individual_digits", true}}, byte_level()}));
  else if (spec.pre_split == "gpt-2")
    file["pre_tokenizer"] = byte_level();
  else
    fail(ErrorCode::kUnsupported, "tokenizer.json: no form for the pre-split {}; supported: gpt-2, smollm",
         printable(spec.pre_split));
  file["decoder"] = byte_level();
}

// Llama 2's own normalizer and decoder; Metaspace for its two styles.
void add_sentence_piece(const TokenizerSpec& spec, Json& file) {
  const Json replace = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kSpaceMark}};
  file["normalizer"] = nullptr;
  file["pre_tokenizer"] = nullptr;
  if (spec.add_space_prefix && spec.prefix_style != PrefixStyle::kPlain)
    file["pre_tokenizer"] = {{"type", "Metaspace"},
                             {"replacement", kSpaceMark},
                             {"prepend_scheme", spec.prefix_style == PrefixStyle::kMetaspaceFirst ? "first" : "always"},
                             {"split", false}};
  else if (spec.add_space_prefix)
    file["normalizer"] =
        sequence("normalizers", Json::array({{{"type", "Prepend"}, {"prepend", kSpaceMark}}, replace}));
  else
    file["normalizer"] = replace;
  Json steps = Json::array({{{"type", "Replace"}, {"pattern", {{"String", kSpaceMark}}}, {"content", " "}},
                            {{"type", "ByteFallback"}},
                            {{"type", "Fuse"}}});
  if (spec.add_space_prefix) steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  file["decoder"] = sequence("decoders", std::move(steps));
}

}  // namespace

std::string to_hf_tokenizer_json(const TokenizerSpec& spec) {
  validate(spec);
  const bool sentence_piece = spec.kind == TokenizerKind::kSentencePieceBpe;
  Json file = {{"version", "1.0"}, {"truncation", nullptr}, {"padding", nullptr}};
  file["added_tokens"] = added_tokens(spec);
  if (sentence_piece)
    add_sentence_piece(spec, file);
  else
    add_byte_level(spec, file);
  file["post_processor"] = post_processor(spec);
  file["model"] = {{"type", "BPE"},
                   {"dropout", nullptr},
                   {"unk_token", nullptr},
                   {"continuing_subword_prefix", nullptr},
                   {"end_of_word_suffix", nullptr},
                   {"fuse_unk", sentence_piece},
                   {"byte_fallback", sentence_piece},
                   {"ignore_merges", false}};
  // A byte-level vocabulary's "unknown" token is no part of its BPE: a missing byte is left out.
  if (sentence_piece && spec.unk) file["model"]["unk_token"] = spec.tokens[*spec.unk];
  file["model"]["vocab"] = vocabulary(spec);
  file["model"]["merges"] = merge_pairs(spec);
  return file.dump();
}

std::string to_hf_tokenizer_config_json(const TokenizerSpec& spec) {
  validate(spec);
  Json file = Json::object();
  const auto name = [&](const char* key, const std::optional<int32_t>& id) {
    if (id) file[key] = spec.tokens[*id];
  };
  name("bos_token", spec.bos);
  name("eos_token", spec.eos);
  name("unk_token", spec.unk);
  name("pad_token", spec.pad);
  file["add_bos_token"] = spec.add_bos;
  file["add_eos_token"] = spec.add_eos;
  file["clean_up_tokenization_spaces"] = false;
  if (!spec.chat_template.empty()) file["chat_template"] = spec.chat_template;
  // Applies tokenizer.json as it is; model-specific classes rebuild parts of it (and lose, e.g., Digits).
  file["tokenizer_class"] = "PreTrainedTokenizerFast";
  return file.dump(2);
}

}  // namespace brick::text
