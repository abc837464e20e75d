// WNLI (Levesque et al. 2012), lm-evaluation-harness's glue/wnli: the labelled WNLI/test.tsv of glue_rte_wnli/ (GLUE's
// official development set), or WNLI/dev.tsv as GLUE has it; examples from train.tsv.
#include "brick/base/error.h"
#include "brick/eval/task_files.h"

namespace brick::eval {
namespace {

std::vector<Item> read_split(const std::filesystem::path& path) {
  std::vector<Item> items;
  for (Row& row : parse_tsv(read_task_text(path), path.string(), {"sentence1", "sentence2", "label"}))
    items.push_back({{row.cells[0] + "\nQuestion: " + row.cells[1] + " True or False?\nAnswer:"},
                     {"False", "True"},
                     parse_label(row.cells[2], {"0", "1"}, fmt::format("{}: line {}", path.string(), row.line))});
  return items;
}

}  // namespace

TaskItems read_wnli(const std::filesystem::path& folder) {
  return read_splits(folder, {"glue_rte_wnli/WNLI/test.tsv", "WNLI/dev.tsv"},
                     {"glue_rte_wnli/WNLI/train.tsv", "WNLI/train.tsv"}, read_split);
}

}  // namespace brick::eval
