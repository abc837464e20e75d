// RTE (Dagan et al. 2005 and later), lm-evaluation-harness's glue/rte: RTE/official_dev.tsv of glue_rte_wnli/ (whose
// other files mix GLUE's training and development sets), or RTE/dev.tsv as GLUE has it; examples from train.tsv.
#include "brick/base/error.h"
#include "brick/eval/task_files.h"

namespace brick::eval {
namespace {

std::vector<Item> read_split(const std::filesystem::path& path) {
  std::vector<Item> items;
  for (Row& row : parse_tsv(read_task_text(path), path.string(), {"sentence1", "sentence2", "label"}))
    items.push_back({{row.cells[0] + "\nQuestion: " + row.cells[1] + " True or False?\nAnswer:"},
                     {"True", "False"},
                     parse_label(row.cells[2], {"entailment", "not_entailment"},
                                 fmt::format("{}: line {}", path.string(), row.line))});
  return items;
}

}  // namespace

TaskItems read_rte(const std::filesystem::path& folder) {
  return read_splits(folder, {"glue_rte_wnli/RTE/official_dev.tsv", "RTE/dev.tsv"},
                     {"glue_rte_wnli/RTE/train.tsv", "RTE/train.tsv"}, read_split);
}

}  // namespace brick::eval
