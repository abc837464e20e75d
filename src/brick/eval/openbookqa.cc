// OpenBookQA (Mihaylov et al. 2018), lm-evaluation-harness's openbookqa.yaml: LLM-Adapters' openbookqa/test.json;
// examples from train.json where it is.
#include "brick/eval/task_files.h"

namespace brick::eval {
namespace {

std::vector<Item> read_split(const std::filesystem::path& path) {
  std::vector<Item> items;
  for (Choices& choices : read_questions(path))
    items.push_back({{std::move(choices.question)}, std::move(choices.options), choices.gold});
  return items;
}

}  // namespace

TaskItems read_openbookqa(const std::filesystem::path& folder) {
  return read_splits(folder, {"mc_eval/openbookqa/test.json", "openbookqa/test.json"},
                     {"mc_eval/openbookqa/train.json", "openbookqa/train.json"}, read_split);
}

}  // namespace brick::eval
