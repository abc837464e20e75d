// BoolQ (Clark et al. 2019) without the passages, which LLM-Adapters' boolq/test.json (the official validation set)
// does not have: lm-evaluation-harness's boolq (super_glue) with its first line left out. Answers "no" and "yes".
#include "brick/eval/task_files.h"

namespace brick::eval {
namespace {

std::vector<Item> read_split(const std::filesystem::path& path) {
  std::vector<Item> items;
  for (const Instruction& record : parse_instructions(read_task_text(path), path.string())) {
    // LLM-Adapters added the question mark, which lm-evaluation-harness adds as well.
    const std::string_view question = between(
        record,
        "Please answer the following question with true or false, question: ", "?\n\nAnswer format: true/false");
    items.push_back({{"Question: " + std::string(question) + "?\nAnswer:"},
                     {"no", "yes"},
                     parse_label(record.answer, {"false", "true"}, record.where)});
  }
  return items;
}

}  // namespace

TaskItems read_boolq_closed(const std::filesystem::path& folder) {
  return read_splits(folder, {"mc_eval/boolq/test.json", "boolq/test.json"},
                     {"mc_eval/boolq/train.json", "boolq/train.json"}, read_split);
}

}  // namespace brick::eval
