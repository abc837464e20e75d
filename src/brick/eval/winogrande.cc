// WinoGrande (Sakaguchi et al. 2019), lm-evaluation-harness's winogrande: each option is put into the blank, and the
// text after the blank is scored ("partial evaluation"). LLM-Adapters' winogrande/test.json (the official validation
// set); examples from train.json where it is.
#include "brick/base/error.h"
#include "brick/eval/strip.h"
#include "brick/eval/task_files.h"

namespace brick::eval {
namespace {

std::vector<Item> read_split(const std::filesystem::path& path) {
  std::vector<Item> items;
  for (const Instruction& record : parse_instructions(read_task_text(path), path.string())) {
    const Choices choices = parse_choices(
        record, "Please choose the correct answer to fill in the blank to complete the given sentence: ", "Option",
        " ");
    const std::string_view sentence = choices.question;
    const size_t blank = sentence.find('_');
    if (choices.options.size() != 2 || blank == std::string_view::npos)
      fail(ErrorCode::kInvalidInput, "{}: needs two options and a blank \"_\" in the sentence", record.where);
    const std::string rest(stripped(sentence.substr(blank + 1)));
    if (rest.empty()) fail(ErrorCode::kInvalidInput, "{}: nothing follows the blank", record.where);
    Item item{{}, {rest, rest}, choices.gold};
    for (const std::string& option : choices.options)
      item.contexts.push_back(std::string(sentence.substr(0, blank)) + option);
    items.push_back(std::move(item));
  }
  return items;
}

}  // namespace

TaskItems read_winogrande(const std::filesystem::path& folder) {
  return read_splits(folder, {"mc_eval/winogrande/test.json", "winogrande/test.json"},
                     {"mc_eval/winogrande/train.json", "winogrande/train.json"}, read_split);
}

}  // namespace brick::eval
