// MMLU (Hendrycks et al. 2020), lm-evaluation-harness's mmlu: 57 subjects, five examples from dev/. Files as the
// authors publish them, without header: mmlu/dev/<subject>_dev.csv and mmlu/test/<subject>_test.csv (question, A, B, C,
// D, answer); the test files may be in mmlu/mmlu_test_val_csv.tar.xz instead. Questions are taken in turn from the
// subjects, so that a limit is spread over all of them.
#include <algorithm>
#include <map>

#include "brick/base/error.h"
#include "brick/eval/strip.h"
#include "brick/eval/task_files.h"
#include "brick/io/packed_file.h"

namespace brick::eval {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kArchive = "mmlu/mmlu_test_val_csv.tar.xz";

std::vector<Item> parse_questions(std::string_view text, const std::string& file) {
  std::vector<Item> items;
  for (const Row& row : parse_csv(text, file)) {
    const std::string where = fmt::format("{}: line {}", file, row.line);
    const std::vector<std::string>& cells = row.cells;
    if (cells.size() != 6)
      fail(ErrorCode::kInvalidInput, "{}: has {} cells; question, A, B, C, D and answer are six", where, cells.size());
    if (stripped(cells[0]).empty()) fail(ErrorCode::kInvalidInput, "{}: the question is blank", where);
    items.push_back({{fmt::format("{}\nA. {}\nB. {}\nC. {}\nD. {}\nAnswer:", stripped(cells[0]), cells[1], cells[2],
                                  cells[3], cells[4])},
                     {"A", "B", "C", "D"},
                     parse_label(cells[5], {"A", "B", "C", "D"}, where),
                     static_cast<int64_t>(items.size())});
  }
  return items;
}

// "abstract_algebra" of "…/abstract_algebra_test.csv"; empty for other names.
std::string subject_of(const fs::path& file, std::string_view ending) {
  const std::string name = file.filename().string();
  return name.ends_with(ending) ? name.substr(0, name.size() - ending.size()) : "";
}

std::map<std::string, std::vector<Item>> read_tests(const fs::path& folder) {
  std::map<std::string, std::vector<Item>> tests;
  const fs::path plain = folder / "mmlu/test";
  if (fs::is_directory(plain)) {
    for (const fs::directory_entry& entry : fs::directory_iterator(plain))
      if (const std::string subject = subject_of(entry.path(), "_test.csv"); !subject.empty())
        tests[subject] = parse_questions(read_task_text(entry.path()), entry.path().string());
  } else if (const fs::path archive = folder / kArchive; fs::is_regular_file(archive)) {
    io::for_each_member(archive, [&](std::string_view member, std::string_view bytes) {
      const std::string subject = subject_of(member, "_test.csv"),
                        file = fmt::format("{}: {}", archive.string(), member);
      if (subject.empty()) return;
      check_utf8(bytes, file);
      tests[subject] = parse_questions(bytes, file);
    });
  }
  if (tests.empty())
    fail(ErrorCode::kNotFound, "{}: has neither mmlu/test/*_test.csv nor {}; name the data's folder with --tasks-dir",
         folder.string(), kArchive);
  return tests;
}

}  // namespace

TaskItems read_mmlu(const fs::path& folder) {
  TaskItems out;
  std::map<std::string, std::vector<Item>> tests = read_tests(folder);
  size_t longest = 0;
  for (auto& [name, items] : tests) {
    std::string words = name;
    std::replace(words.begin(), words.end(), '_', ' ');
    Subject subject{name,
                    fmt::format("The following are multiple choice questions (with answers) about {}.\n\n", words),
                    {},
                    false};
    if (const auto dev = find_file(folder, {"mmlu/dev/" + name + "_dev.csv"}))
      subject.pool = parse_questions(read_task_text(*dev), dev->string());
    for (Item& item : items) item.subject = out.subjects.size();
    longest = std::max(longest, items.size());
    out.subjects.push_back(std::move(subject));
  }
  for (size_t row = 0; row < longest; ++row)
    for (auto& [name, items] : tests)
      if (row < items.size()) out.items.push_back(std::move(items[row]));
  if (out.items.empty()) fail(ErrorCode::kInvalidInput, "{}: mmlu's test files hold no questions", folder.string());
  return out;
}

}  // namespace brick::eval
