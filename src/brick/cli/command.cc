#include "brick/cli/command.h"

#include <fmt/format.h>
#include <unistd.h>

#include <charconv>
#include <cstdio>

#include "brick/base/process.h"
#include "brick/io/json_file.h"
#include "brick/pipeline/evaluate_tasks.h"
#include "brick/pipeline/training.h"
#include "brick/prune/registry.h"
#include "brick/report/table.h"

namespace brick::cli {
namespace {

constexpr double kQuietSeconds = 2, kRedrawSeconds = 0.1;
constexpr int kBarWidth = 28;

std::string duration(double seconds) {
  const auto s = static_cast<int64_t>(seconds + 0.5);
  if (s >= 3600) return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
  return fmt::format("{}:{:02}", s / 60, s % 60);
}

class TerminalSink : public ProgressSink {
 public:
  explicit TerminalSink(bool quiet) : quiet_(quiet), terminal_(isatty(STDERR_FILENO) != 0) {}
  ~TerminalSink() override { clear(); }

  void progress(const std::string& task, int64_t done, int64_t total, const std::string& unit,
                const std::string& detail) override {
    if (!terminal_ || total <= 0) return;
    if (task != task_ || done < done_) {
      task_ = task;
      watch_ = Stopwatch();
      first_ = done;
      last_draw_ = 0;
    }
    done_ = done;
    const double seconds = watch_.seconds();
    if (seconds < kQuietSeconds || (seconds - last_draw_ < kRedrawSeconds && done < total)) return;
    last_draw_ = seconds;
    const double share = static_cast<double>(done) / static_cast<double>(total);
    const double rate = static_cast<double>(done - first_) / seconds;
    const auto filled = static_cast<int>(share * kBarWidth);
    std::string bar(static_cast<size_t>(filled), '#');
    bar.resize(kBarWidth, '.');
    const std::string left = rate > 0 ? duration(static_cast<double>(total - done) / rate) : "?";
    say(fmt::format("\r\x1b[K{} [{}] {}/{} {}  {:.1f}/s  {} left  {}", task, bar, done, total, unit, rate, left,
                    detail));
    drawn_ = true;
    if (done >= total) clear();
  }
  void note(const std::string& line) override {
    if (!quiet_) print("", line);
  }
  void warn(const std::string& line) override { print("warning: ", line); }

 private:
  void print(const char* prefix, const std::string& line) {
    clear();
    say(fmt::format("{}{}\n", prefix, report::without_controls(line)));
  }
  void clear() {
    if (drawn_) say("\r\x1b[K");
    drawn_ = false;
  }

  bool quiet_, terminal_, drawn_ = false;
  std::string task_;
  Stopwatch watch_;
  int64_t done_ = 0, first_ = 0;
  double last_draw_ = 0;
};

// "134,515,008"
std::string grouped(int64_t number) {
  const std::string digits = std::to_string(number);
  std::string out;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0 && digits[i - 1] != '-') out.push_back(',');
    out.push_back(digits[i]);
  }
  return out;
}

std::string cell(const nlohmann::json& value) {
  if (value.is_string()) return report::without_controls(value.get<std::string>());
  if (value.is_number_float()) return fmt::format("{:.6g}", value.get<double>());
  if (value.is_number_integer()) return grouped(value.get<int64_t>());
  return value.dump();
}

// Objects with the keys of the first.
std::string table_of(const nlohmann::json& rows) {
  std::vector<report::Column> columns;
  for (const auto& [key, value] : rows.front().items())
    columns.push_back({key, value.is_number() ? report::Align::kRight : report::Align::kLeft});
  report::Table table(columns);
  for (const nlohmann::json& row : rows) {
    std::vector<std::string> cells;
    for (const report::Column& column : columns)
      cells.push_back(row.contains(column.header) ? cell(row[column.header]) : "");
    table.add_row(std::move(cells));
  }
  return table.text();
}

}  // namespace

CLI::App* add_command(CLI::App& app, Globals& globals, const std::string& verb, const std::string& purpose,
                      const std::string& example) {
  CLI::App* command = app.add_subcommand(verb, purpose);
  command->add_flag("--json", globals.json, "print one JSON object on standard output");
  command->add_option("--threads", globals.threads, "threads (default: physical cores)")->check(CLI::Range(0, 1024));
  command->add_option("--seed", globals.settings.seed, "seed of all random choices")
      ->check(seed_complaint)
      ->capture_default_str();
  command
      ->add_option("--compute", globals.settings.compute,
                   "auto, f32 or bf16; auto also generates text with integer products where weights are quantised")
      ->check(CLI::IsMember({"auto", "f32", "bf16"}))
      ->capture_default_str();
  command->footer(fmt::format("Example:\n  {}", example));
  return command;
}

void add_force(CLI::App* command, Globals& globals) {
  command->add_flag("--force", globals.settings.force, "replace an existing output");
}

CLI::Option* add_method(CLI::App* command, std::string& method) {
  return command->add_option(
      "--method", method,
      prune::known_methods() +
          "; each may follow owl+ and be followed by +reconstruct; structured: " + prune::known_structured_methods());
}

void add_amount(CLI::App* command, double& sparsity, std::string& target, std::string& profile) {
  CLI::App* amount = command->add_option_group("How much", "one of these");
  amount->add_option("--sparsity", sparsity, "share of the layers' linear weights to remove");
  CLI::Option* budget = amount->add_option(
      "--target", target,
      "what the block shall be: \"40 MB\", \"2x decode\" or \"60% parameters\"; the least sparsity that reaches it is "
      "chosen, and q4 values where bf16 ones cannot and none are asked for");
  budget->check(
      [](const std::string& text) { return text.empty() ? "an empty target asks for nothing" : std::string(); });
  amount->require_option(1);
  command
      ->add_option("--profile", profile,
                   "file of brick bench --calibrate, for a decoding speed (default: measured now)")
      ->needs(budget);
}

CLI::Option* add_tasks(CLI::App* command, pipeline::TasksJob& tasks, const std::string& purpose) {
  CLI::Option* names = add_list(command, "--tasks", tasks.tasks, purpose);
  command->add_option("--tasks-dir", tasks.folder, "folder of the tasks' data sets (docs/evaluation.md)");
  command->add_option("--num-fewshot", tasks.shots, "examples before each question (default: mmlu 5, others 0)")
      ->check(CLI::NonNegativeNumber);
  return names;
}

void add_training_files(CLI::App* command, Globals& globals, pipeline::TrainingFiles& files) {
  command->add_option("--save-every", files.save_every, "steps between checkpoints (0: none)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_flag("--resume", files.resume, "continue from the checkpoint beside --out");
  command->add_option("--log", files.log, "JSONL file with a line a step");
  command->add_option("--tokenizer", globals.settings.tokenizer_file, "tokenizer file instead of the model's own");
  add_force(command, globals);
}

void say(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stderr) == text.size()) std::fflush(stderr);
}

void refuse_empty_numbers(const CLI::App& app) {
  for (const CLI::Option* option : app.get_options()) {
    const std::string type = option->get_type_name();
    const bool number = type.starts_with("INT") || type.starts_with("UINT") || type.starts_with("FLOAT");
    for (const std::string& word : option->results())
      if (number && word.empty()) throw CLI::ValidationError(option->get_name(), "expected a number");
  }
  const auto is_used = [](const CLI::App* part) { return part->get_name().empty() || part->parsed(); };
  for (const CLI::App* part : app.get_subcommands(is_used)) refuse_empty_numbers(*part);
}

std::string seed_complaint(const std::string& text) {
  uint64_t seed = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seed);
  return error == std::errc() && end == text.data() + text.size() ? "" : "expected an integer from 0 to 2^64 - 1";
}

std::unique_ptr<ProgressSink> make_terminal_sink(bool quiet) { return std::make_unique<TerminalSink>(quiet); }

void print_result(const Globals& globals, const nlohmann::json& result) {
  if (globals.json) return fmt::print("{}\n", io::compact_json(result));
  std::vector<std::pair<std::string, std::string>> lines;
  std::string tables;
  const auto list = [&](const auto& self, const std::string& prefix, const nlohmann::json& object) -> void {
    for (const auto& [key, value] : object.items()) {
      if (value.is_array() && value.size() > 8) continue;
      if (value.is_object())
        self(self, prefix + key + ".", value);
      else if (value.is_array() && !value.empty() && value.front().is_object())
        tables += fmt::format("\n{}{}\n{}", prefix, key, table_of(value));
      else
        lines.emplace_back(report::without_controls(prefix + key), cell(value));
    }
  };
  list(list, "", result);
  size_t width = 0;
  for (const auto& [key, value] : lines) width = std::max(width, key.size());
  for (const auto& [key, value] : lines) fmt::print("{:<{}}  {}\n", key, width, value);
  fmt::print("{}", tables);
}

}  // namespace brick::cli
