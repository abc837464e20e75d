// SST-2 (Socher et al. 2013), lm-evaluation-harness's glue/sst2: the labelled test.tsv of glue_sst2/ (GLUE's official
// development set), or SST-2/dev.tsv as GLUE has it; examples from train.tsv.
#include "brick/base/error.h"
#include "brick/eval/task_files.h"

namespace brick::eval {
namespace {

std::vector<Item> read_split(const std::filesystem::path& path) {
  std::vector<Item> items;
  for (Row& row : parse_tsv(read_task_text(path), path.string(), {"sentence", "label"}))
    items.push_back({{row.cells[0] + "\nQuestion: Is this sentence positive or negative?\nAnswer:"},
                     {"negative", "positive"},
                     parse_label(row.cells[1], {"0", "1"}, fmt::format("{}: line {}", path.string(), row.line))});
  return items;
}

}  // namespace

TaskItems read_sst2(const std::filesystem::path& folder) {
  return read_splits(folder, {"glue_sst2/test.tsv", "SST-2/dev.tsv"}, {"glue_sst2/train.tsv", "SST-2/train.tsv"},
                     read_split);
}

}  // namespace brick::eval
