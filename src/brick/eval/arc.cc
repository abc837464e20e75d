// ARC Easy and Challenge (Clark et al. 2018), lm-evaluation-harness's arc_easy.yaml: LLM-Adapters' ARC-Easy/test.json
// and ARC-Challenge/test.json; examples from train.json.
#include "brick/eval/task_files.h"

namespace brick::eval {
namespace {

std::vector<Item> read_split(const std::filesystem::path& path) {
  std::vector<Item> items;
  for (Choices& choices : read_questions(path))
    items.push_back({{"Question: " + choices.question + "\nAnswer:"}, std::move(choices.options), choices.gold});
  return items;
}

TaskItems read_arc(const std::filesystem::path& folder, const std::string& name) {
  return read_splits(folder, {"mc_eval/" + name + "/test.json", name + "/test.json"},
                     {"mc_eval/" + name + "/train.json", name + "/train.json"}, read_split);
}

}  // namespace

TaskItems read_arc_easy(const std::filesystem::path& folder) { return read_arc(folder, "ARC-Easy"); }
TaskItems read_arc_challenge(const std::filesystem::path& folder) { return read_arc(folder, "ARC-Challenge"); }

}  // namespace brick::eval
