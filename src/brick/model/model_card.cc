#include "brick/model/model_card.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "brick/base/error.h"
#include "brick/io/atomic_output.h"
#include "brick/io/gguf.h"
#include "brick/io/json_file.h"
#include "brick/io/text_file.h"
#include "brick/model/save_parts.h"

namespace brick::model {
namespace {

using nlohmann::json;

constexpr size_t kLongestIdentifier = 64;

json parsed_provenance(const std::string& text) {
  try {
    json parsed = text.empty() ? json::object() : io::parse_json(text, "provenance");
    return parsed.is_object() ? parsed : json::object();
  } catch (const Error&) {
    return json::object();
  }
}

std::string text_of(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

// A code span that no text can leave.
std::string code(std::string text) {
  for (char& c : text)
    if (c == '`' || c == '|' || std::iscntrl(static_cast<unsigned char>(c)) != 0) c = ' ';
  return "`" + text + "`";
}

std::string percent(double share) { return fmt::format("{:.4g} %", 100 * share); }

void add_row(std::string& table, std::string_view name, const std::string& value) {
  table += fmt::format("| {} | {} |\n", name, value);
}

// A row a setting, "calibration.tokens" for one inside an object.
void add_settings(std::string& table, const std::string& prefix, const json& settings) {
  for (const auto& [key, value] : settings.items()) {
    if (value.is_object())
      add_settings(table, prefix + key + ".", value);
    else
      add_row(table, code(prefix + key), code(value.is_string() ? value.get<std::string>() : io::compact_json(value)));
  }
}

struct Facts {
  explicit Facts(const Model& model) : provenance(parsed_provenance(model.block.provenance)) {
    const auto found = provenance.find("config");
    if (found != provenance.end() && found->is_object()) config = *found;
    parent = text_of(config, "model");
    if (parent.empty()) parent = model_name(model);
    const int64_t dropped = model.parameters() - model.nonzeros();
    zeros = static_cast<double>(dropped) / static_cast<double>(model.linear_parameters());
    merged = config.contains("merged");
  }

  json provenance, config = json::object();
  std::string parent;
  double zeros = 0;  // share of the linear weights that masks drop
  bool merged = false;
};

std::string head(const Model& model, CardFor use, const Facts& facts, const std::string& license) {
  std::string out = "---\n";
  if (!license.empty()) out += fmt::format("license: {}\n", license);
  out += fmt::format("library_name: {}\npipeline_tag: text-generation\ntags:\n- brickwork\n",
                     use == CardFor::kBrick ? "brickwork" : "transformers");
  if (facts.zeros > 0 || model.block.cut || (model.block.pattern == "structured" && model.block.sparsity > 0))
    out += "- pruned\n";
  if (facts.zeros > 0) out += "- sparse\n";
  return out + "---\n\n";
}

std::string what(const Model& model, const Facts& facts) {
  const BlockSpec& block = model.block;
  std::string out = code(facts.parent);
  if (block.is_block() && block.sparsity > 0)
    out += fmt::format(" with {}{} of {} layers' linear weights removed by {}",
                       block.cut || block.pattern == "structured" ? "about " : "", percent(block.sparsity),
                       block.cut && facts.zeros > 0 && block.pattern != "structured" ? "what a cut left of its" : "its",
                       code(block.method));
  if (block.cut) out += fmt::format(", {} of {} layers left", block.cut->layers.size(), block.cut->parent_layers);
  if (block.cut && block.cut->stream)
    out += fmt::format(", {} of {} channels of its residual stream", model.config.hidden, block.cut->stream->parent);
  if (facts.merged) out += ", and an adapter merged into it";
  return out + ".";
}

std::string measures(const Model& model, const Facts& facts, int64_t weight_bytes) {
  std::string table = "| | |\n| --- | --- |\n";
  add_row(table, "parameters", fmt::format("{}", model.parameters()));
  if (facts.zeros > 0) {
    add_row(table, "of which kept", fmt::format("{}", model.nonzeros()));
    add_row(table, "zeros among the layers' linear weights", percent(facts.zeros));
  }
  add_row(table, "bytes of `model.safetensors`", fmt::format("{}", weight_bytes));
  const std::string parent = model.block.parent.empty() ? text_of(facts.provenance, "parent_hash") : model.block.parent;
  if (!parent.empty()) add_row(table, "fingerprint of the model that it was made from", code(parent));
  if (!model.block.mask_hash.empty()) add_row(table, "hash of the masks", code(model.block.mask_hash));
  return table + "\n";
}

std::string settings(const Facts& facts) {
  std::string table;
  if (const std::string version = text_of(facts.provenance, "tool_version"); !version.empty())
    add_row(table, "Brickwork", code(version));
  if (const auto seed = facts.provenance.find("seed"); seed != facts.provenance.end() && seed->is_number_integer())
    add_row(table, "seed", code(seed->dump()));
  add_settings(table, "", facts.config);
  return table.empty() ? table : "## How it was made\n\n| | |\n| --- | --- |\n" + table + "\n";
}

bool is_even(const Model& model) {
  return std::all_of(model.layers.begin(), model.layers.end(),
                     [&](const Layer& layer) { return layer.shape == model.layers.front().shape; });
}

std::string usage(const Model& model, CardFor use, bool has_zeros) {
  if (use == CardFor::kTransformers)
    return "## Use\n\n```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
           "model = AutoModelForCausalLM.from_pretrained(\"FOLDER\")\n"
           "tokenizer = AutoTokenizer.from_pretrained(\"FOLDER\")\n```\n\n"
           "FOLDER is this one." +
           std::string(has_zeros ? " Weights are dense: masked ones are written out as zeros." : "") +
           (is_even(model) ? "" : " Narrower layers are filled up with zeros to the widest.") + "\n\n";
  std::string out =
      "## Use\n\n```sh\n"
      "brick generate FOLDER --prompt \"Once upon a time\"\n"
      "brick eval FOLDER --text text.txt --length 512\n"
      "brick tune FOLDER --data records.jsonl --masked --out adapter\n"
      "brick export FOLDER --format gguf --dtype q8_0 --out model.gguf\n";
  out += fmt::format("brick export FOLDER --format hf --dtype bf16{} --out folder\n", is_even(model) ? "" : " --pad");
  return out +
         "```\n\nFOLDER is this one. transformers does not read it; the last commands write what others load.\n\n";
}

}  // namespace

std::string model_card(const Model& model, CardFor use, int64_t weight_bytes, const std::string& license) {
  const Facts facts(model);
  std::string out = head(model, use, facts, license);
  out += fmt::format("# {}\n\n{}\n\n", code(facts.parent), what(model, facts));
  out += measures(model, facts, weight_bytes) + settings(facts) + usage(model, use, facts.zeros > 0);
  if (license.empty()) out += "The files that it was made from name no licence; that of the original holds.\n\n";
  return out +
         "This card is written from what the files record. It has no figures of quality: whoever uses the model should "
         "measure it on\ntext of their own, since pruning and tuning change what a model says.\n";
}

void write_model_card(const Model& model, CardFor use, const std::string& folder) {
  const std::filesystem::path path(folder);
  const auto bytes = static_cast<int64_t>(std::filesystem::file_size(path / "model.safetensors"));
  io::write_file_atomic(path / "README.md", model_card(model, use, bytes, license_of(model.source)), false);
}

std::string license_identifier(std::string_view text) {
  const bool fits = text.size() <= kLongestIdentifier && std::all_of(text.begin(), text.end(), [](unsigned char c) {
                      return std::isalnum(c) != 0 || c == '.' || c == '-' || c == '_' || c == '+';
                    });
  return fits ? std::string(text) : std::string();
}

std::string license_of(const std::string& source) {
  const std::filesystem::path path(source);
  try {
    if (std::filesystem::is_directory(path)) {
      const std::filesystem::path card = path / "README.md";
      return std::filesystem::is_regular_file(card) ? license_of_card(io::read_text(card)) : std::string();
    }
    if (path.extension() != ".gguf" || !std::filesystem::is_regular_file(path)) return {};
    const io::GgufFile file = io::GgufFile::open(path);
    const io::GgufValue* value = file.find("general.license");
    const auto* text = value != nullptr ? std::get_if<std::string>(value) : nullptr;
    return text != nullptr ? license_identifier(*text) : std::string();
  } catch (const std::runtime_error&) {  // of ours and of std::filesystem
    return {};
  }
}

std::string license_of_card(std::string_view card) {
  std::string found;
  bool inside = false, done = false;
  io::for_each_line_in(card, [&](int64_t number, std::string_view line) {
    if (line == "---") {
      done = done || inside || number > 1;
      inside = number == 1;
    } else if (inside && !done && line.starts_with("license:")) {
      std::string_view value = line.substr(line.find(':') + 1);
      const auto is_around = [](char c) { return c == ' ' || c == '"' || c == '\''; };
      while (!value.empty() && is_around(value.front())) value.remove_prefix(1);
      while (!value.empty() && is_around(value.back())) value.remove_suffix(1);
      found = license_identifier(value);
    }
  });
  return found;
}

}  // namespace brick::model
