#include "brick/pipeline/evaluate_tasks.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <tuple>

#include "brick/base/error.h"
#include "brick/eval/multiple_choice.h"
#include "brick/io/json_file.h"
#include "brick/io/text_file.h"
#include "brick/pipeline/log_file.h"
#include "brick/report/table.h"
#include "brick/text/utf8.h"

namespace brick::pipeline {
namespace fs = std::filesystem;
namespace {

using nlohmann::json;

struct Selected {
  const eval::Task* task;
  int64_t shots;
  eval::TaskItems all;
  std::vector<const eval::Item*> items;  // those scored, subject by subject

  const std::string& subject(const eval::Item& item) const { return all.subjects[item.subject].name; }
};

// Items by subject, so that those with the same examples follow each other.
Selected select(const std::string& name, const TasksJob& job) {
  const eval::Task& task = eval::find_task(name);
  Selected out{&task, job.shots >= 0 ? job.shots : task.shots, task.read(job.folder), {}};
  const size_t count =
      job.limit > 0 ? std::min(out.all.items.size(), static_cast<size_t>(job.limit)) : out.all.items.size();
  for (size_t i = 0; i < count; ++i) out.items.push_back(&out.all.items[i]);
  std::stable_sort(out.items.begin(), out.items.end(),
                   [](const eval::Item* a, const eval::Item* b) { return a->subject < b->subject; });
  return out;
}

// The scores of a run, in memory and, if it has a path, in a file that is only ever appended to.
class ItemLog {
 public:
  ItemLog(const TasksJob& job, const json& identity, bool force) : path_(job.log) {
    if (path_.empty()) return;
    const bool there = fs::exists(path_);
    if (there && !job.resume && !force)
      fail(ErrorCode::kExists, "{} is there already: continue it with --resume or replace it with --force",
           path_.string());
    if (there && !job.resume) check_is_log(path_, "tool_version");
    const bool goes_on = there && job.resume && read(identity);
    file_.open(path_, goes_on ? std::ios::app : std::ios::trunc);
    if (!goes_on) append(identity);
  }

  // nullptr if the log does not have it. Error(kMismatch) if the log's item cannot be this one.
  const eval::ItemScore* find(const Selected& from, const eval::Item& item) const {
    const auto it = scores_.find(key(from, item));
    if (it == scores_.end()) return nullptr;
    const auto& [score, gold] = it->second;
    const size_t options = item.options.size();
    if (score.log_likelihoods.size() != options || score.chosen >= options || score.chosen_norm >= options ||
        gold != item.gold)
      fail(ErrorCode::kMismatch, "{}: item {} of {} has another answer there: the task's files have changed",
           path_.string(), item.row, from.task->name);
    return &score;
  }

  void add(const Selected& from, const eval::Item& item, const eval::ItemScore& score) {
    scores_[key(from, item)] = {score, item.gold};
    if (path_.empty()) return;
    json line{{"task", from.task->name},
              {"index", item.row},
              {"num_fewshot", from.shots},
              {"log_likelihoods", score.log_likelihoods},
              {"gold", item.gold},
              {"chosen", score.chosen},
              {"chosen_norm", score.chosen_norm}};
    if (const std::string& subject = from.subject(item); !subject.empty()) line["subject"] = subject;
    append(line);
  }

 private:
  using Key = std::tuple<std::string, std::string, int64_t, int64_t>;  // task, subject, row, examples

  static Key key(const Selected& from, const eval::Item& item) {
    return {std::string(from.task->name), from.subject(item), item.row, from.shots};
  }

  void append(const json& line) {
    file_ << io::compact_json(line) << std::endl;  // flushed: a killed run loses no line
    if (!file_) fail(ErrorCode::kIo, "{}: cannot be written", path_.string());
  }

  // False if the file has not even its first line whole.
  bool read(const json& identity) {
    const std::string text = io::read_text(path_), first = io::compact_json(identity) + "\n";
    if (first.starts_with(text) && text.size() < first.size()) return false;
    if (!text.starts_with(first))
      fail(ErrorCode::kMismatch, "{} is of another run: its first line is {}, this run's would be {}", path_.string(),
           text::printable(text.substr(0, text.find('\n'))), io::compact_json(identity));
    // A killed run may have left half a line.
    const std::string_view whole = std::string_view(text).substr(0, text.rfind('\n') + 1);
    io::for_each_line_in(whole, [&](int64_t number, std::string_view line) {
      const std::string where = fmt::format("{}: line {}", path_.string(), number);
      if (number > 1) read_item(io::parse_json(line, where), where);
    });
    fs::resize_file(path_, whole.size());
    return true;
  }

  void read_item(const json& record, const std::string& where) {
    try {
      eval::ItemScore score{record.at("log_likelihoods").get<std::vector<double>>(), record.at("chosen").get<size_t>(),
                            record.at("chosen_norm").get<size_t>()};
      scores_[{record.at("task").get<std::string>(), record.value("subject", ""), record.at("index").get<int64_t>(),
               record.at("num_fewshot").get<int64_t>()}] = {std::move(score), record.at("gold").get<size_t>()};
    } catch (const json::exception&) {
      fail(ErrorCode::kCorrupt, "{}: is no item of a log that --log writes", where);
    }
  }

  fs::path path_;
  std::ofstream file_;
  std::map<Key, std::pair<eval::ItemScore, size_t>> scores_;  // and the gold option
};

json score_json(std::span<const eval::Item* const> items, std::span<const eval::ItemScore> scores) {
  const eval::TaskScore score = eval::summarise(items, scores);
  const auto number = [](double value) { return std::isnan(value) ? json() : json(value); };
  return {{"acc", score.acc},
          {"acc_norm", score.acc_norm},
          {"stderr", number(score.stderr_acc)},
          {"acc_norm_stderr", number(score.stderr_acc_norm)},
          {"n", score.n}};
}

json task_json(const Selected& selected, const ItemLog& log) {
  std::vector<eval::ItemScore> scores;
  for (const eval::Item* item : selected.items) scores.push_back(*log.find(selected, *item));
  json out = score_json(selected.items, scores);
  out["num_fewshot"] = selected.shots;
  if (selected.all.subjects.size() < 2) return out;
  for (size_t begin = 0, end = 0; begin < scores.size(); begin = end) {
    while (end < scores.size() && selected.items[end]->subject == selected.items[begin]->subject) ++end;
    const json part = score_json(std::span(selected.items).subspan(begin, end - begin),
                                 std::span(scores).subspan(begin, end - begin));
    out["subjects"][selected.subject(*selected.items[begin])] = {{"acc", part["acc"]}, {"n", part["n"]}};
  }
  return out;
}

}  // namespace

void check_tasks(const TasksJob& job) {
  if (!job.tasks.empty() && job.folder.empty())
    fail(ErrorCode::kInvalidInput, "--tasks needs --tasks-dir, the folder of the data sets");
  for (const std::string& name : job.tasks) eval::find_task(name);
}

json evaluate_tasks(const TasksJob& job, const json& identity, const Workbench& bench, const model::AdapterUse& use,
                    const RunSettings& settings, kernels::Context& context, ProgressSink& sink) {
  std::vector<Selected> all;
  for (const std::string& name : job.tasks) all.push_back(select(name, job));
  ItemLog log(job, identity, settings.force);
  json out = json::object();
  for (const Selected& selected : all) {
    std::vector<const eval::Item*> open;
    for (const eval::Item* item : selected.items)
      if (log.find(selected, *item) == nullptr) open.push_back(item);
    const auto total = static_cast<int64_t>(selected.items.size());
    int64_t done = total - static_cast<int64_t>(open.size());
    if (done > 0) sink.note(fmt::format("{}: {} of {} items are in the log already", selected.task->name, done, total));
    eval::score_items(bench.model(), use, bench.tokenizer(), selected.all, open, selected.shots, context,
                      [&](const eval::Item& item, const eval::ItemScore& score) {
                        log.add(selected, item, score);
                        sink.progress(std::string(selected.task->name), ++done, total, "items", "");
                      });
    out[std::string(selected.task->name)] = task_json(selected, log);
  }
  return out;
}

std::string tasks_table(const json& tasks) {
  report::Table table({{"task"},
                       {"items", report::Align::kRight},
                       {"shots", report::Align::kRight},
                       {"acc", report::Align::kRight},
                       {"± se", report::Align::kRight},
                       {"acc_norm", report::Align::kRight},
                       {"± se", report::Align::kRight}});
  const auto share = [](const json& value) {
    return value.is_null() ? "" : fmt::format("{:.4f}", value.get<double>());
  };
  for (const auto& [name, task] : tasks.items())
    table.add_row({name, task["n"].dump(), task["num_fewshot"].dump(), share(task["acc"]), share(task["stderr"]),
                   share(task["acc_norm"]), share(task["acc_norm_stderr"])});
  return table.text();
}

}  // namespace brick::pipeline
