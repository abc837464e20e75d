// Any text as a task's table or records: only brick::Error may come out, and a table's cells fit into its text.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "brick/base/error.h"
#include "brick/eval/task_files.h"

namespace {

template <class Parse>
void check_rows(std::string_view text, Parse&& parse) {
  try {
    size_t bytes = 0;
    for (const brick::eval::Row& row : parse())
      for (const std::string& cell : row.cells) bytes += cell.size();
    if (bytes > text.size()) std::abort();
  } catch (const brick::Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace brick::eval;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  check_rows(text, [&] { return parse_csv(text, "fuzz"); });
  check_rows(text, [&] { return parse_tsv(text, "fuzz", {"sentence", "label"}); });
  try {
    for (const Instruction& record : parse_instructions(text, "fuzz")) {
      const Choices choices = parse_choices(record, "Q: ", "Answer", "\n\n");
      if (choices.gold >= choices.options.size()) std::abort();
    }
  } catch (const brick::Error&) {
  }
  try {  // the text itself as a question
    const Choices choices = parse_choices({"fuzz", std::string(text), "option1"}, "", "Option", " ");
    if (choices.gold >= choices.options.size() || choices.question.empty()) std::abort();
  } catch (const brick::Error&) {
  }
  return 0;
}
