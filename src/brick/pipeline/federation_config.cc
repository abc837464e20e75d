#include "brick/pipeline/federation_config.h"

#include <toml++/toml.h>

#include <algorithm>
#include <set>

#include "brick/base/error.h"
#include "brick/federate/placement.h"
#include "brick/io/text_file.h"
#include "brick/model/adapter.h"
#include "brick/prune/registry.h"
#include "brick/prune/structured.h"
#include "brick/text/utf8.h"

namespace brick::pipeline {
namespace {

// toml++ recurses for each part of a dotted key.
void check_dots(const std::string& text, const std::filesystem::path& path) {
  constexpr int64_t kMostDots = 1000;
  io::for_each_line_in(text, [&](int64_t number, std::string_view line) {
    if (std::count(line.begin(), line.end(), '.') > kMostDots)
      fail(ErrorCode::kInvalidInput, "{}, line {}: more than {} dots", path.string(), number, kMostDots);
  });
}

// A table whose keys are taken one by one; what is left over is an error.
class Reader {
 public:
  Reader(const toml::table& table, std::string where, std::filesystem::path folder)
      : table_(table), where_(std::move(where)), folder_(std::move(folder)) {}

  bool has(std::string_view key) const { return table_.contains(key); }
  bool is_string(std::string_view key) const { return table_[key].is_string(); }

  // For another Reader.
  void leave(std::string_view key) { taken_.emplace(key); }
  // True if the key was there.
  template <class T>
  bool take(std::string_view key, T& value) {
    taken_.emplace(key);
    const toml::node* node = table_.get(key);
    if (node == nullptr) {  // "batch-tokens", as the flag is spelt
      std::string dashed(key);
      std::replace(dashed.begin(), dashed.end(), '_', '-');
      node = table_.get(dashed);
      taken_.insert(dashed);
    }
    if (node == nullptr) return false;
    if constexpr (std::is_same_v<T, double>) {
      const auto number = node->value<double>();
      if (!node->is_number() || !number) complain(key, *node, "a number");
      value = *number;
    } else if constexpr (std::is_same_v<T, bool>) {
      if (!node->is_boolean()) complain(key, *node, "true or false");
      value = **node->as_boolean();
    } else if constexpr (std::is_integral_v<T>) {
      if (!node->is_integer() || **node->as_integer() < 0) complain(key, *node, "a whole number of at least 0");
      value = static_cast<T>(**node->as_integer());
    } else if constexpr (std::is_same_v<T, std::filesystem::path>) {
      if (!node->is_string() || node->as_string()->get().empty()) complain(key, *node, "a path");
      const std::filesystem::path path = node->as_string()->get();
      value = (path.is_absolute() ? path : folder_ / path).lexically_normal();
      if (!value.has_filename()) value = value.parent_path();  // "folder/"
    } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
      if (!node->is_array()) complain(key, *node, "a list of names");
      value.clear();
      for (const toml::node& element : *node->as_array()) {
        if (!element.is_string()) complain(key, element, "a name");
        value.push_back(element.as_string()->get());
      }
    } else {
      if (!node->is_string()) complain(key, *node, "a string");
      value = node->as_string()->get();
    }
    return true;
  }
  template <class T>
  void require(std::string_view key, T& value) {
    if (!take(key, value)) refuse("'{}' is missing", key);
  }
  template <class Config>
  void take_fields(Config& config) {
    config.fields([&](std::string_view key, auto& value, std::string_view) {
      take(key, value);
      if constexpr (std::is_same_v<std::decay_t<decltype(value)>, bool>)
        if (bool no = false; take("no_" + std::string(key), no)) value = !no;
    });
  }
  void share(std::string_view key, double& value) {
    take(key, value);
    if (!(value >= 0 && value <= 1)) refuse("{} = {}: expected 0 to 1", key, value);
  }
  // Error(kInvalidInput) that names this table.
  template <class... Args>
  [[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) const {
    fail(ErrorCode::kInvalidInput, "{}: {}", where_, fmt::format(format, std::forward<Args>(args)...));
  }

  // The work's Error does, too.
  template <class Work>
  void check(Work&& work) const {
    try {
      work();
    } catch (const Error& e) {
      fail(e.code(), "{}: {}", where_, e.what());
    }
  }
  void finish() const {
    for (const auto& [key, node] : table_)
      if (!taken_.contains(std::string(key.str())))
        fail(ErrorCode::kInvalidInput, "{}, line {}: unknown key '{}'", where_, node.source().begin.line, key.str());
  }

 private:
  [[noreturn]] void complain(std::string_view key, const toml::node& node, std::string_view expected) const {
    fail(ErrorCode::kInvalidInput, "{}, line {}: {}: expected {}", where_, node.source().begin.line, key, expected);
  }

  const toml::table& table_;
  std::string where_;
  std::filesystem::path folder_;
  std::set<std::string> taken_;
};

// Settings that make no sense, or blocks that no round could use, are an Error here, not after an hour.
void check_blocks(const prune::PruneConfig& config, std::span<const double> sparsities) {
  const prune::Recipe recipe = prune::parse_recipe(config.method);
  if (recipe.structured != nullptr && recipe.structured->needs(config).rotates)
    fail(ErrorCode::kUnsupported, "a block of {} has no use in a federation: {}", config.method,
         federate::kOtherStream);
  prune::check_settings(config, sparsities);
}

void check_tuning(const train::TuneConfig& config) {
  config.validate();
  model::parse_targets(config.targets);
}

void read_blocks(Reader reader, FederationConfig::Blocks& blocks) {
  reader.take("method", blocks.prune.method);
  reader.take_fields(blocks.prune);
  reader.take("calibration", blocks.calibration);
  reader.take("samples", blocks.samples);
  reader.take("length", blocks.length);
  if (uint64_t drawn = 0; reader.take("calibration_seed", drawn)) blocks.calibration_seed = drawn;
  reader.finish();
  reader.check([&] { check_blocks(blocks.prune, {}); });
}

void read_tuning(Reader reader, train::TuneConfig& tune) {
  reader.take_fields(tune);
  reader.finish();
  reader.check([&] { check_tuning(tune); });
}

void read_aggregation(Reader reader, FederationConfig& config) {
  if (reader.has("tau") && !reader.is_string("tau")) {
    double tau = 0;
    reader.share("tau", tau);
    config.tau = fmt::format("{}", tau);
  } else {
    reader.take("tau", config.tau);
    if (config.tau != "auto" && config.tau != "0.1")
      reader.refuse("tau = \"{}\": expected a number from 0 to 1, or \"auto\"", config.tau);
  }
  config.aggregate.fields([&](std::string_view key, auto& value, std::string_view) {
    if (key != "tau") reader.take(key, value);
  });
  reader.take("validation", config.validation);
  reader.finish();
  reader.check([&] { federate::check_config(config.aggregate); });
  if (config.tau == "auto" && config.aggregate.rule == "hete-tau" && config.validation.empty())
    reader.refuse("tau = \"auto\" needs validation = the server's records");
}

void read_evaluation(Reader reader, FederationConfig::Evaluate& evaluate) {
  static const std::set<std::string> kArms{"untuned", "local", "centralised", "fedit-dense"};
  reader.take("text", evaluate.text);
  reader.take("every", evaluate.every);
  reader.take("length", evaluate.length);
  reader.take("samples", evaluate.samples);
  reader.take("arms", evaluate.arms);
  reader.finish();
  for (const std::string& arm : evaluate.arms)
    if (!kArms.contains(arm))
      reader.refuse("unknown arm '{}': untuned, local, centralised and fedit-dense are known", arm);
  if (evaluate.every < 1) reader.refuse("every = 0: expected 1 or more");
}

FederationConfig::Client read_client(Reader reader, prune::PruneConfig blocks, const train::TuneConfig& shared,
                                     size_t index) {
  FederationConfig::Client client;
  client.tune = shared;
  reader.require("name", client.name);
  if (client.name.empty() || client.name.size() > 100 || client.name[0] == '.' ||
      std::ranges::any_of(client.name, [](unsigned char c) { return c < ' ' || c == '/' || c == '\\'; }))
    fail(ErrorCode::kInvalidInput, "client {}: name {} cannot name a folder", index + 1, text::printable(client.name));
  reader.require("data", client.data);
  reader.take("test", client.test);
  if (reader.take("block", client.block) && (reader.has("sparsity") || reader.has("method")))
    fail(ErrorCode::kInvalidInput, "client {}: give block, or sparsity and method, not both", client.name);
  reader.take("sparsity", client.sparsity);
  if (!(client.sparsity >= 0 && client.sparsity < 1))
    fail(ErrorCode::kInvalidInput, "client {}: sparsity = {}: expected at least 0 and below 1", client.name,
         client.sparsity);
  if (reader.take("method", client.method)) {
    blocks.method = client.method;
    if (client.sparsity == 0)
      fail(ErrorCode::kInvalidInput, "client {}: method = \"{}\" without a sparsity", client.name, client.method);
  }
  if (client.sparsity > 0) reader.check([&] { check_blocks(blocks, std::span(&client.sparsity, 1)); });
  reader.take("limit", client.limit);
  reader.share("participation", client.participation);
  // Here `dropout` is the share of lost uploads; LoRA's is a matter of [tune].
  reader.share("dropout", client.dropout);
  const double lora_dropout = client.tune.dropout;
  reader.take_fields(client.tune);
  client.tune.dropout = lora_dropout;
  reader.check([&] { check_tuning(client.tune); });
  reader.finish();
  return client;
}

std::vector<FederationConfig::Client> read_clients(const toml::table& root, const std::filesystem::path& path,
                                                   const FederationConfig& config) {
  const toml::array* tables = root.get_as<toml::array>("client");
  if (tables == nullptr || tables->empty()) fail(ErrorCode::kInvalidInput, "{}: no [[client]]", path.string());
  std::vector<FederationConfig::Client> clients;
  std::set<std::string> names;
  for (size_t i = 0; i < tables->size(); ++i) {
    const toml::table* table = tables->get_as<toml::table>(i);
    if (table == nullptr) fail(ErrorCode::kInvalidInput, "{}: client {} is no table", path.string(), i + 1);
    const Reader reader(*table, fmt::format("{} [[client]] {}", path.string(), i + 1), path.parent_path());
    clients.push_back(read_client(reader, config.blocks.prune, config.tune, i));
    if (!names.insert(clients.back().name).second)
      fail(ErrorCode::kInvalidInput, "{}: two clients are called '{}'", path.string(), clients.back().name);
  }
  return clients;
}

// What the clients' blocks are is known before they are cut; given ones are checked when they are loaded.
void check_rule_takes_clients(const FederationConfig& config) {
  const federate::Rule& rule = *federate::find_rule(config.aggregate.rule);
  const FederationConfig::Client& first = config.clients.front();
  for (const FederationConfig::Client& client : config.clients) {
    if (rule.needs_equal_ranks && client.tune.rank != first.tune.rank)
      fail(ErrorCode::kInvalidInput,
           "client {}: rank {}, client {}: rank {}, and {} averages factors of one rank; use zero-pad, flexlora or a "
           "hete rule",
           first.name, first.tune.rank, client.name, client.tune.rank, rule.name);
    const std::string& method = client.method.empty() ? config.blocks.prune.method : client.method;
    if (client.sparsity > 0 && !rule.takes_structured && prune::parse_recipe(method).structured != nullptr)
      refuse_structured(rule, client.name, "what " + method + " makes");
  }
}

// `text` of the file that was parsed into `root`, with another seed.
std::string with_seed(const std::string& text, const toml::table& root, uint64_t seed) {
  const std::string line = fmt::format("seed = {}", seed);
  const toml::node* old = root.get("seed");
  if (old == nullptr) return line + "\n" + text;
  size_t begin = 0;
  for (auto at = old->source().begin.line; at > 1; --at) begin = text.find('\n', begin) + 1;
  return text.substr(0, begin) + line + text.substr(std::min(text.find('\n', begin), text.size()));
}

}  // namespace

void refuse_structured(const federate::Rule& rule, const std::string& client, const std::string& what) {
  fail(ErrorCode::kInvalidInput,
       "client {}: {} is structured, and {} averages factors of one shape; use flexlora or a hete rule", client, what,
       rule.name);
}

FederationConfig load_federation(const std::filesystem::path& path, std::optional<uint64_t> seed) {
  FederationConfig config;
  config.text = io::read_text(path);
  if (config.text.starts_with(io::kByteOrderMark)) config.text.erase(0, io::kByteOrderMark.size());
  check_dots(config.text, path);
  toml::table root;
  try {
    root = toml::parse(config.text, path.string());
  } catch (const toml::parse_error& e) {
    fail(ErrorCode::kInvalidInput, "{}, line {}: {}", path.string(), e.source().begin.line, e.description());
  }
  const std::filesystem::path folder = path.parent_path();
  const auto section = [&](const char* name) {
    static const toml::table kEmpty;
    const toml::node* node = root.get(name);
    if (node != nullptr && !node->is_table())
      fail(ErrorCode::kInvalidInput, "{}: [{}] is no table", path.string(), name);
    return Reader(node != nullptr ? *node->as_table() : kEmpty, fmt::format("{} [{}]", path.string(), name), folder);
  };

  Reader top(root, path.string(), folder);
  for (const char* name : {"blocks", "tune", "aggregate", "client", "evaluate"}) top.leave(name);
  top.require("model", config.model);
  top.take("title", config.title);
  top.take("rounds", config.rounds);
  top.take("seed", config.seed);
  top.finish();
  if (seed) {
    config.text = with_seed(config.text, root, *seed);
    config.seed = *seed;
  }
  if (config.rounds < 1) top.refuse("rounds = {}: expected 1 or more", config.rounds);

  read_blocks(section("blocks"), config.blocks);
  read_tuning(section("tune"), config.tune);
  read_aggregation(section("aggregate"), config);
  read_evaluation(section("evaluate"), config.evaluate);
  config.clients = read_clients(root, path, config);
  check_rule_takes_clients(config);
  return config;
}

}  // namespace brick::pipeline
