// What the readers of the tasks share: finding their files, tables, LLM-Adapters' records.
#pragma once

#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "brick/eval/task.h"

namespace brick::eval {

// The first of `names` (relative to `folder`) that is there, as it is or with .gz, .bz2 or .xz.
std::optional<std::filesystem::path> find_file(const std::filesystem::path& folder,
                                               std::initializer_list<std::string_view> names);
// Error(kNotFound) that lists the names.
std::filesystem::path need_file(const std::filesystem::path& folder, std::initializer_list<std::string_view> names);

// UTF-8 text of a file, compressed or not, without a byte order mark. Error(kCorrupt) naming the line that is not
// UTF-8.
std::string read_task_text(const std::filesystem::path& path);
void check_utf8(std::string_view text, std::string_view file);

// A row of a table: the line where it begins, from 1, and its cells.
struct Row {
  int64_t line = 0;
  std::vector<std::string> cells;
};

// RFC 4180, quotes doubled inside quotes, a cell may hold line breaks. Error(kCorrupt) for a quote that is never closed
// or has text around it.
std::vector<Row> parse_csv(std::string_view text, std::string_view file);

// GLUE's tables: a header, then cells between tabs; quotes are ordinary characters. Only the columns asked for, in that
// order. Error(kInvalidInput) for a row with more or fewer cells than the header, or a column that is missing.
std::vector<Row> parse_tsv(std::string_view text, std::string_view file,
                           std::initializer_list<std::string_view> columns);

// A record of LLM-Adapters' files, where question and options are one text: [{"instruction", "answer", …}, …].
struct Instruction {
  std::string where;  // for messages: "element [3] of test.json"
  std::string text, answer;
};
std::vector<Instruction> parse_instructions(std::string_view text, std::string_view file);

// What stands between `before` and `after`; Error(kInvalidInput) if the text does not begin and end with them.
std::string_view between(const Instruction& record, std::string_view before, std::string_view after);

struct Choices {
  std::string question;
  std::vector<std::string> options;
  size_t gold = 0;
};

// The form "<before>question\n\nAnswer1: … Answer2: …<gap>Answer format: answer1/answer2", answer "answer2"; `label` is
// "Answer" or "Option", `gap` stands before "Answer format". Every label must stand there once.
Choices parse_choices(const Instruction& record, std::string_view before, std::string_view label, std::string_view gap);

// The records of a file in that form, "Please choose the correct answer to the question: …".
std::vector<Choices> read_questions(const std::filesystem::path& path);

// The text at `key`; Error(kInvalidInput) if it is missing or no string.
std::string string_field(const nlohmann::json& record, const char* key, std::string_view where);

// Number of a label that must be one of `names`.
size_t parse_label(std::string_view label, std::initializer_list<std::string_view> names, std::string_view where);

// The items and few-shot examples of a task without subjects; `pool` empty: examples come from the items themselves.
// Numbers the rows. Error(kInvalidInput) naming `path` if there is no item.
TaskItems one_subject(std::vector<Item> items, std::vector<Item> pool, const std::filesystem::path& path);

// Of a task with one file a split: items from the first of `test`, examples from the first of `train`, if any is there.
using SplitReader = std::vector<Item> (*)(const std::filesystem::path& path);
TaskItems read_splits(const std::filesystem::path& folder, std::initializer_list<std::string_view> test,
                      std::initializer_list<std::string_view> train, SplitReader read);

}  // namespace brick::eval
