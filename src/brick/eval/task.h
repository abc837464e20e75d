// Multiple-choice tasks: what is asked, and the readers of their files. A task is one file of this folder and one line
// in task_registry.cc. Prompts and targets are those of lm-evaluation-harness 0.4 where it has the task; each reader's
// head says which of its task files it follows and where the local files force a difference.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace brick::eval {

// One question. The model scores each option's text after its context and a space.
struct Item {
  // One for all options, or one an option with equal options (WinoGrande: the option stands in the context and what
  // follows is scored; Trinh & Le 2018, "partial evaluation"). None is blank.
  std::vector<std::string> contexts;
  std::vector<std::string> options;  // at least two, none empty
  size_t gold = 0;
  int64_t row = 0;     // in its file, from 0
  size_t subject = 0;  // of TaskItems::subjects

  const std::string& context(size_t option) const { return contexts.size() == 1 ? contexts[0] : contexts[option]; }
  bool same_question(const Item& other) const {
    return contexts == other.contexts && options == other.options && gold == other.gold;
  }
};

// What stands before the questions of a subject; most tasks have one nameless subject.
struct Subject {
  std::string name;            // "abstract_algebra"; empty where the task has no subjects
  std::string description;     // text before the examples, may be empty
  std::vector<Item> pool;      // few-shot examples are its first ones
  bool pool_is_asked = false;  // the pool holds the questions themselves: an item is no example for itself
};

struct TaskItems {
  std::vector<Subject> subjects;
  std::vector<Item> items;  // in the order in which a limit takes them
};

struct Task {
  std::string_view name;
  int64_t shots = 0;  // few-shot examples unless the caller says otherwise
  // `folder` holds the data sets' folders. Error(kNotFound) naming the files looked for; kInvalidInput or kCorrupt
  // naming file and line of a row that is malformed.
  TaskItems (*read)(const std::filesystem::path& folder) = nullptr;
};

std::string known_tasks();  // "piqa arc_easy ..."
// Error(kInvalidInput) that lists the known ones.
const Task& find_task(std::string_view name);

TaskItems read_piqa(const std::filesystem::path& folder);
TaskItems read_arc_easy(const std::filesystem::path& folder);
TaskItems read_arc_challenge(const std::filesystem::path& folder);
TaskItems read_hellaswag(const std::filesystem::path& folder);
TaskItems read_winogrande(const std::filesystem::path& folder);
TaskItems read_openbookqa(const std::filesystem::path& folder);
TaskItems read_boolq_closed(const std::filesystem::path& folder);
TaskItems read_social_iqa(const std::filesystem::path& folder);
TaskItems read_sst2(const std::filesystem::path& folder);
TaskItems read_rte(const std::filesystem::path& folder);
TaskItems read_wnli(const std::filesystem::path& folder);
TaskItems read_mmlu(const std::filesystem::path& folder);

}  // namespace brick::eval
