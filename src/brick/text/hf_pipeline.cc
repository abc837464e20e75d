#include "brick/text/hf_pipeline.h"

#include <nlohmann/json.hpp>
#include <vector>

#include "brick/base/error.h"
#include "brick/text/byte_alphabet.h"
#include "brick/text/pre_split.h"
#include "brick/text/utf8.h"

namespace brick::text {
namespace {

using nlohmann::json;

constexpr int kMaxDepth = 8;  // of Sequences in Sequences; published files have one
// Another spelling of kGpt2Regex (Oniguruma's form in some converted files).
constexpr std::string_view kGpt2RegexGrouped =
    R"('(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr const char* kSupportedSplits =
    "ByteLevel, or Digits(individual_digits) then ByteLevel, or Split by GPT-2's regex or \\p{N} then "
    "ByteLevel";

std::string string_of(const json& step, const char* key) {
  const auto it = step.find(key);
  return it != step.end() && it->is_string() ? it->get<std::string>() : std::string();
}

bool flag_of(const json& step, const char* key, bool otherwise) {
  const auto it = step.find(key);
  return it != step.end() && it->is_boolean() ? it->get<bool>() : otherwise;
}

// The steps of a component, Sequences (whose list is under `key`) laid flat.
void flatten(const json& step, const char* part, const char* key, int depth, std::vector<const json*>& steps) {
  if (step.is_null()) return;
  if (depth > kMaxDepth)
    fail(ErrorCode::kCorrupt, "tokenizer.json: the {}'s Sequences are nested more than {} deep", part, kMaxDepth);
  if (!step.is_object() || string_of(step, "type").empty())
    fail(ErrorCode::kCorrupt, "tokenizer.json: the {} is no object with a type", part);
  if (string_of(step, "type") != "Sequence") return steps.push_back(&step);
  const auto list = step.find(key);
  if (list == step.end() || !list->is_array())
    fail(ErrorCode::kCorrupt, "tokenizer.json: the {}'s Sequence has no list of {}", part, key);
  for (const json& inner : *list) flatten(inner, part, key, depth + 1, steps);
}

std::vector<const json*> steps_of(const json& root, const char* part, const char* key) {
  std::vector<const json*> steps;
  if (const auto it = root.find(part); it != root.end()) flatten(*it, part, key, 0, steps);
  return steps;
}

// The pattern of a Split or Replace: {"String": …} or {"Regex": …}.
std::string pattern_of(const json& step) {
  const auto it = step.find("pattern");
  if (it == step.end() || !it->is_object()) return {};
  const std::string regex = string_of(*it, "Regex");
  return regex.empty() ? string_of(*it, "String") : regex;
}

[[noreturn]] void unsupported_split(const std::string& what) {
  fail(ErrorCode::kUnsupported, "tokenizer.json: the pre-tokenizer {} is not supported; supported: {}", what,
       kSupportedSplits);
}

std::string read_byte_level_split(const json& root) {
  bool digits = false, words = false, byte_level = false;
  for (const json* step : steps_of(root, "pre_tokenizer", "pretokenizers")) {
    const std::string type = string_of(*step, "type");
    if (byte_level) unsupported_split(printable(type) + " after ByteLevel");
    if (type == "Digits") {
      if (words || !flag_of(*step, "individual_digits", false)) unsupported_split("Digits in this form");
      digits = true;
    } else if (type == "Split") {
      const std::string pattern = pattern_of(*step), behavior = string_of(*step, "behavior");
      const bool inverted = flag_of(*step, "invert", false);
      // Every character is in some match, so removing what does not match removes nothing.
      const bool is_words = pattern == kGpt2Regex || pattern == kGpt2RegexGrouped;
      const bool isolates = (behavior == "Isolated" && !inverted) || (is_words && behavior == "Removed" && inverted);
      if (!isolates || (!is_words && (pattern != R"(\p{N})" || words)))
        unsupported_split(
            fmt::format("Split by {} ({}{})", printable(pattern), printable(behavior), inverted ? ", inverted" : ""));
      (is_words ? words : digits) = true;
    } else if (type == "ByteLevel") {
      if (flag_of(*step, "add_prefix_space", true)) unsupported_split("ByteLevel with add_prefix_space");
      byte_level = true;
      words = words || flag_of(*step, "use_regex", true);
    } else {
      unsupported_split(printable(type));
    }
  }
  if (!byte_level)
    fail(ErrorCode::kUnsupported,
         "tokenizer.json: BPE with neither a ByteLevel pre-tokenizer nor byte_fallback is not supported; "
         "supported "
         "pre-tokenizers: {}",
         kSupportedSplits);
  if (!words) unsupported_split("ByteLevel without a regex");
  return digits ? "smollm" : "gpt-2";
}

[[noreturn]] void unsupported_spaces(const char* part, const std::string& what) {
  fail(ErrorCode::kUnsupported,
       "tokenizer.json: the {} {} is not supported with byte_fallback; supported: the normalizers Prepend and "
       "Replace of a space by U+2581, or the pre-tokenizer Metaspace without splitting",
       part, what);
}

void read_spaces(const json& root, HfPipeline& pipeline) {
  bool replaced = false;
  for (const json* step : steps_of(root, "normalizer", "normalizers")) {
    const std::string type = string_of(*step, "type");
    if (type == "Prepend" && string_of(*step, "prepend") == kSpaceMark && !replaced)
      pipeline.add_space_prefix = true;
    else if (type == "Replace" && pattern_of(*step) == " " && string_of(*step, "content") == kSpaceMark)
      replaced = true;
    else
      unsupported_spaces("normalizer", printable(type));
  }
  for (const json* step : steps_of(root, "pre_tokenizer", "pretokenizers")) {
    const std::string type = string_of(*step, "type");
    if (type != "Metaspace" || string_of(*step, "replacement") != kSpaceMark)
      unsupported_spaces("pre-tokenizer", printable(type));
    if (flag_of(*step, "split", true)) unsupported_spaces("pre-tokenizer", "Metaspace with split");
    const std::string scheme = string_of(*step, "prepend_scheme");
    if (scheme != "first" && scheme != "always" && scheme != "never")
      unsupported_spaces("pre-tokenizer", fmt::format("Metaspace with the prepend_scheme {}", printable(scheme)));
    if (scheme != "never" && pipeline.add_space_prefix) unsupported_spaces("pre-tokenizer", "Metaspace after Prepend");
    pipeline.add_space_prefix = pipeline.add_space_prefix || scheme != "never";
    if (scheme != "never")
      pipeline.prefix_style = scheme == "first" ? PrefixStyle::kMetaspaceFirst : PrefixStyle::kMetaspaceAlways;
    replaced = true;
  }
  if (!replaced) unsupported_spaces("normalizer", "that leaves spaces as they are");
}

void read_template(const json& step, HfPipeline& pipeline) {
  const auto single = step.find("single");
  if (single == step.end() || !single->is_array())
    fail(ErrorCode::kCorrupt, "tokenizer.json: the post-processor's template has no list \"single\"");
  bool text_seen = false;
  for (const json& part : *single) {
    if (!part.is_object()) fail(ErrorCode::kCorrupt, "tokenizer.json: the post-processor's template is malformed");
    if (part.contains("Sequence")) {
      text_seen = true;
      continue;
    }
    const auto special = part.find("SpecialToken");
    const std::string token = special != part.end() && special->is_object() ? string_of(*special, "id") : "";
    std::string& place = text_seen ? pipeline.after : pipeline.before;
    if (token.empty()) fail(ErrorCode::kCorrupt, "tokenizer.json: the post-processor's template is malformed");
    if (!place.empty())
      fail(ErrorCode::kUnsupported, "tokenizer.json: the post-processor adds both {} and {} on one side",
           printable(place), printable(token));
    place = token;
  }
}

}  // namespace

HfPipeline read_hf_pipeline(const json& root, TokenizerKind kind) {
  HfPipeline pipeline;
  if (kind == TokenizerKind::kSentencePieceBpe) {
    read_spaces(root, pipeline);
  } else {
    for (const json* step : steps_of(root, "normalizer", "normalizers"))
      fail(ErrorCode::kUnsupported,
           "tokenizer.json: the normalizer {} is not supported with byte-level BPE; supported: none",
           printable(string_of(*step, "type")));
    pipeline.pre_split = read_byte_level_split(root);
  }
  for (const json* step : steps_of(root, "post_processor", "processors")) {
    const std::string type = string_of(*step, "type");
    if (type == "TemplateProcessing")
      read_template(*step, pipeline);
    else if (type != "ByteLevel")  // which only moves offsets
      fail(ErrorCode::kUnsupported,
           "tokenizer.json: the post-processor {} is not supported; supported: ByteLevel, TemplateProcessing",
           printable(type));
  }
  return pipeline;
}

}  // namespace brick::text
