// PIQA (Bisk et al. 2020), lm-evaluation-harness's piqa.yaml: piqa/valid.jsonl {"goal", "sol1", "sol2"} with the labels
// 0 and 1 in valid-labels.lst, one a line; examples from train.jsonl and train-labels.lst where they are.
#include "brick/base/error.h"
#include "brick/eval/task_files.h"
#include "brick/io/json_file.h"
#include "brick/io/text_file.h"

namespace brick::eval {
namespace {

std::vector<Item> read_split(const std::filesystem::path& questions, const std::filesystem::path& labels) {
  std::vector<Item> items;
  io::for_each_line_in(read_task_text(questions), [&](int64_t number, std::string_view line) {
    const std::string where = fmt::format("{}: line {}", questions.string(), number);
    const nlohmann::json record = io::parse_json(line, where);
    Item item{{fmt::format("Question: {}\nAnswer:", string_field(record, "goal", where))},
              {string_field(record, "sol1", where), string_field(record, "sol2", where)}};
    for (const std::string& option : item.options)
      if (option.empty()) fail(ErrorCode::kInvalidInput, "{}: a solution is empty", where);
    items.push_back(std::move(item));
  });
  size_t count = 0;
  io::for_each_line_in(read_task_text(labels), [&](int64_t number, std::string_view line) {
    const size_t label = parse_label(line, {"0", "1"}, fmt::format("{}: line {}", labels.string(), number));
    if (count < items.size()) items[count].gold = label;
    ++count;
  });
  if (count != items.size())
    fail(ErrorCode::kInvalidInput, "{}: has {} labels for the {} questions of {}", labels.string(), count, items.size(),
         questions.filename().string());
  return items;
}

}  // namespace

TaskItems read_piqa(const std::filesystem::path& folder) {
  const std::filesystem::path questions = need_file(folder, {"piqa/valid.jsonl"});
  std::vector<Item> pool;
  if (const auto train = find_file(folder, {"piqa/train.jsonl"}))
    pool = read_split(*train, need_file(folder, {"piqa/train-labels.lst"}));
  return one_subject(read_split(questions, need_file(folder, {"piqa/valid-labels.lst"})), std::move(pool), questions);
}

}  // namespace brick::eval
