#include <algorithm>
#include <nlohmann/json.hpp>

#include "brick/base/error.h"
#include "brick/text/byte_alphabet.h"
#include "brick/text/hf_pipeline.h"
#include "brick/text/tokenizer_spec.h"
#include "brick/text/utf8.h"

namespace brick::text {
namespace {

using nlohmann::json;

// Copying a value recurses. (The parser's callback, which knows the depth, takes quadratic time.)
void check_nesting(std::string_view text, const char* file) {
  constexpr int kMaxNesting = 128;
  int depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\') ++i;
      quoted = c != '"';
    } else if (c == '"') {
      quoted = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kMaxNesting) fail(ErrorCode::kCorrupt, "{}: nests deeper than {} levels", file, kMaxNesting);
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
}

json parse(std::string_view text, const char* file) {
  // The library's own message repeats what it read, which may be the whole file.
  if (const size_t end = valid_end(text, 0); end != text.size())
    fail(ErrorCode::kCorrupt, "{}: byte {} is not valid UTF-8", file, end);
  check_nesting(text, file);
  try {
    json root = json::parse(text);
    if (!root.is_object()) fail(ErrorCode::kCorrupt, "{}: holds {}, expected an object", file, root.type_name());
    return root;
  } catch (const json::parse_error& error) {
    fail(ErrorCode::kCorrupt, "{}: not JSON, wrong at byte {} of {}; is the file truncated?", file, error.byte,
         text.size());
  } catch (const json::out_of_range&) {
    fail(ErrorCode::kCorrupt, "{}: a number is out of range", file);
  }
}

// The member, or nullptr if it is absent or null.
const json* member(const json& object, const char* key) {
  const auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

bool flag(const json& object, const char* key, const char* where) {
  const json* value = member(object, key);
  if (value && !value->is_boolean())
    fail(ErrorCode::kCorrupt, "{}: {} is {}, expected true or false", where, key, value->type_name());
  return value && value->get<bool>();
}

std::string text(const json& value, const std::string& where) {
  if (!value.is_string())
    fail(ErrorCode::kCorrupt, "tokenizer.json: {} is {}, expected a string", where, value.type_name());
  return value.get<std::string>();
}

int32_t token_id(const json* value, const std::string& token, size_t count) {
  if (!value || !value->is_number_integer())
    fail(ErrorCode::kCorrupt, "tokenizer.json: the id of {} is {}, expected an integer", printable(token),
         value ? value->type_name() : "missing");
  const bool too_large = value->is_number_unsigned() && value->get<uint64_t>() >= count;
  if (too_large || value->get<int64_t>() < 0)
    fail(ErrorCode::kCorrupt,
         "tokenizer.json: the id of {} is out of range: the file has {} tokens, so ids are 0 to {}; is "
         "another id "
         "missing?",
         printable(token), count, count - 1);
  return value->get<int32_t>();
}

// Tokens of the vocabulary and those added to it; every id from 0 on must have exactly one.
void read_tokens(const json& root, const json& model, TokenizerSpec& spec) {
  const json* vocab = member(model, "vocab");
  if (!vocab || !vocab->is_object()) fail(ErrorCode::kCorrupt, "tokenizer.json: model.vocab is no object");
  const json* added = member(root, "added_tokens");
  if (added && !added->is_array()) fail(ErrorCode::kCorrupt, "tokenizer.json: added_tokens is no list");

  size_t count = vocab->size();
  std::vector<std::pair<std::string, const json*>> extra;
  for (size_t i = 0; added && i < added->size(); ++i) {
    const json& entry = (*added)[i];
    const std::string where = fmt::format("added_tokens[{}]", i);
    if (!entry.is_object()) fail(ErrorCode::kCorrupt, "tokenizer.json: {} is no object", where);
    const json* content = member(entry, "content");
    extra.emplace_back(text(content ? *content : json(), where + ".content"), &entry);
    for (const char* key : {"lstrip", "rstrip", "single_word"})
      if (flag(entry, key, where.c_str()))
        fail(ErrorCode::kUnsupported, "tokenizer.json: the added token {} has {}, which is not supported",
             printable(extra.back().first), key);
    if (!vocab->contains(extra.back().first)) ++count;
  }

  std::vector<bool> taken(count);
  spec.tokens.resize(count);
  spec.types.assign(count, TokenType::kNormal);
  const auto place = [&](const std::string& token, int32_t id) {
    if (taken[id])
      fail(ErrorCode::kCorrupt, "tokenizer.json: {} and {} both have the id {}", printable(spec.tokens[id]),
           printable(token), id);
    taken[id] = true;
    spec.tokens[id] = token;
  };
  const bool bytes = spec.kind == TokenizerKind::kSentencePieceBpe;
  for (const auto& [token, value] : vocab->items()) {
    const int32_t id = token_id(&value, token, count);
    place(token, id);
    if (bytes && parse_byte_token(token)) spec.types[id] = TokenType::kByte;
  }
  for (const auto& [token, entry] : extra) {
    const int32_t id = token_id(member(*entry, "id"), token, count);
    if (!taken[id] || spec.tokens[id] != token) {
      if (const auto it = vocab->find(token); it != vocab->end())
        fail(ErrorCode::kCorrupt, "tokenizer.json: {} has the id {} in added_tokens and {} in model.vocab",
             printable(token), id, it->get<int64_t>());
      place(token, id);
    }
    spec.types[id] =
        flag(*entry, "special", "tokenizer.json: added_tokens") ? TokenType::kControl : TokenType::kUserDefined;
  }
  if (const auto gap = std::find(taken.begin(), taken.end(), false); gap != taken.end())
    fail(ErrorCode::kCorrupt, "tokenizer.json: no token has the id {}, though there are {} tokens", gap - taken.begin(),
         count);
}

void read_merges(const json& model, TokenizerSpec& spec) {
  const json* merges = member(model, "merges");
  if (!merges || !merges->is_array()) fail(ErrorCode::kCorrupt, "tokenizer.json: model.merges is no list");
  spec.merges.reserve(merges->size());
  for (const json& merge : *merges) {
    if (merge.is_string()) {
      const auto& both = merge.get_ref<const std::string&>();
      const size_t space = both.find(' ');
      if (space != std::string::npos && both.find(' ', space + 1) == std::string::npos) {
        spec.merges.emplace_back(both.substr(0, space), both.substr(space + 1));
        continue;
      }
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      spec.merges.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
      continue;
    }
    fail(ErrorCode::kCorrupt, "tokenizer.json: merge {} is neither \"left right\" nor [\"left\", \"right\"]",
         spec.merges.size());
  }
}

// Only BPE, and none of its options that change ids.
const json& read_model(const json& root) {
  const json* model = member(root, "model");
  if (!model || !model->is_object()) fail(ErrorCode::kCorrupt, "tokenizer.json: there is no model");
  const json* type = member(*model, "type");
  const std::string name = type ? text(*type, "model.type") : "";
  if (name != "BPE")
    fail(ErrorCode::kUnsupported,
         "tokenizer.json: the model is {}; supported: BPE (byte-level, or with byte_fallback as in Llama 2)",
         name.empty() ? "of no type" : printable(name));
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (const json* value = member(*model, key); value && !text(*value, key).empty())
      fail(ErrorCode::kUnsupported, "tokenizer.json: model.{} is not supported", key);
  if (const json* dropout = member(*model, "dropout"); dropout && *dropout != 0)
    fail(ErrorCode::kUnsupported, "tokenizer.json: model.dropout makes ids random; it is not supported");
  if (flag(*model, "ignore_merges", "tokenizer.json: model"))
    fail(ErrorCode::kUnsupported, "tokenizer.json: model.ignore_merges is not supported");
  return *model;
}

std::optional<int32_t> named_token(const json& config, const char* key, const TokenizerSpec& spec) {
  const json* value = member(config, key);
  if (!value) return std::nullopt;
  if (value->is_object()) value = member(*value, "content");
  if (!value || !value->is_string())
    fail(ErrorCode::kCorrupt, "tokenizer_config.json: {} is neither a string nor an object with \"content\"", key);
  const auto& name = value->get_ref<const std::string&>();
  const auto it = std::find(spec.tokens.begin(), spec.tokens.end(), name);
  if (it == spec.tokens.end())
    fail(ErrorCode::kMismatch, "tokenizer_config.json: {} {} is not in tokenizer.json", key, printable(name));
  return static_cast<int32_t>(it - spec.tokens.begin());
}

std::string read_chat_template(const json& config) {
  const json* value = member(config, "chat_template");
  if (!value) return {};
  if (value->is_string()) return value->get<std::string>();
  if (value->is_array())  // several, by name
    for (const json& entry : *value)
      if (entry.is_object() && entry.value("name", json()) == "default" && member(entry, "template"))
        return text(entry["template"], "chat_template");
  fail(ErrorCode::kCorrupt,
       "tokenizer_config.json: chat_template is {}, expected a string or a list with a \"default\"",
       value->type_name());
}

void read_config(std::string_view source, TokenizerSpec& spec) {
  if (source.empty()) return;
  const json config = parse(source, "tokenizer_config.json");
  const auto replace = [&](std::optional<int32_t>& id, const char* key) {
    if (const auto found = named_token(config, key, spec)) id = found;
  };
  replace(spec.bos, "bos_token");
  replace(spec.eos, "eos_token");
  replace(spec.unk, "unk_token");
  replace(spec.pad, "pad_token");
  if (member(config, "add_bos_token")) spec.add_bos = flag(config, "add_bos_token", "tokenizer_config.json");
  if (member(config, "add_eos_token")) spec.add_eos = flag(config, "add_eos_token", "tokenizer_config.json");
  spec.chat_template = read_chat_template(config);
}

// GGUF and SentencePiece files say the order of merges by scores: the earlier a token is made, the higher.
void add_scores(TokenizerSpec& spec) {
  const auto merges = static_cast<float>(spec.merges.size());
  spec.scores.resize(spec.tokens.size());
  std::unordered_map<std::string, float> rank;
  rank.reserve(spec.merges.size());
  for (size_t i = 0; i < spec.merges.size(); ++i)
    rank.emplace(spec.merges[i].first + spec.merges[i].second, static_cast<float>(i));
  for (size_t i = 0; i < spec.tokens.size(); ++i) {
    if (spec.types[i] != TokenType::kNormal) continue;
    const auto it = rank.find(spec.tokens[i]);
    spec.scores[i] = it != rank.end() ? -it->second : -merges - static_cast<float>(i);
  }
}

}  // namespace

TokenizerSpec spec_from_hf_json(std::string_view tokenizer_json, std::string_view tokenizer_config_json) {
  const json root = parse(tokenizer_json, "tokenizer.json");
  const json& model = read_model(root);
  TokenizerSpec spec;
  if (flag(model, "byte_fallback", "tokenizer.json: model")) spec.kind = TokenizerKind::kSentencePieceBpe;
  const HfPipeline pipeline = read_hf_pipeline(root, spec.kind);
  spec.pre_split = pipeline.pre_split;
  spec.add_space_prefix = pipeline.add_space_prefix;
  spec.prefix_style = pipeline.prefix_style;
  read_tokens(root, model, spec);
  read_merges(model, spec);

  const auto find = [&](const std::string& token, const char* what) {
    const auto it = std::find(spec.tokens.begin(), spec.tokens.end(), token);
    if (it == spec.tokens.end())
      fail(ErrorCode::kCorrupt, "tokenizer.json: the {} {} is not in the vocabulary", what, printable(token));
    return static_cast<int32_t>(it - spec.tokens.begin());
  };
  if (!pipeline.before.empty()) spec.bos = find(pipeline.before, "post-processor's token");
  if (!pipeline.after.empty()) spec.eos = find(pipeline.after, "post-processor's token");
  spec.add_bos = spec.bos.has_value();
  spec.add_eos = spec.eos.has_value();
  if (const json* unk = member(model, "unk_token")) spec.unk = find(text(*unk, "model.unk_token"), "unknown token");
  read_config(tokenizer_config_json, spec);
  if (spec.kind == TokenizerKind::kSentencePieceBpe) {
    if (spec.unk) spec.types[*spec.unk] = TokenType::kUnknown;
    add_scores(spec);
  }
  validate(spec);
  return spec;
}

}  // namespace brick::text
