// SocialIQA (Sap et al. 2019), lm-evaluation-harness's siqa.yaml: LLM-Adapters' social_i_qa/test.json (the official
// validation set), whose question already is "<context> <question>"; examples from train.json where it is.
#include "brick/eval/task_files.h"

namespace brick::eval {
namespace {

std::vector<Item> read_split(const std::filesystem::path& path) {
  std::vector<Item> items;
  for (Choices& choices : read_questions(path))
    items.push_back({{"Q: " + choices.question + "\nA:"}, std::move(choices.options), choices.gold});
  return items;
}

}  // namespace

TaskItems read_social_iqa(const std::filesystem::path& folder) {
  return read_splits(folder, {"mc_eval/social_i_qa/test.json", "social_i_qa/test.json"},
                     {"mc_eval/social_i_qa/train.json", "social_i_qa/train.json"}, read_split);
}

}  // namespace brick::eval
