// HellaSwag (Zellers et al. 2019), lm-evaluation-harness's hellaswag. Either the original
// hellaswag/hellaswag_val.jsonl, prepared as that harness does, or hellaswag/hellaswag_val_full.txt: six lines a task
// (context, label, four endings), prepared already and taken as they are. The text file keeps the original's "ctx",
// while the harness joins ctx_a and the capitalised ctx_b; so its contexts may differ in the case of a sentence's first
// letter.
#include "brick/base/error.h"
#include "brick/eval/strip.h"
#include "brick/eval/task_files.h"
#include "brick/io/json_file.h"
#include "brick/io/text_file.h"

namespace brick::eval {
namespace {

constexpr size_t kEndings = 4;

void check_blank(std::string_view text, std::string_view where) {
  if (stripped(text).empty()) fail(ErrorCode::kInvalidInput, "{}: is blank", where);
}

std::vector<Item> parse_lines(std::string_view text, const std::string& file) {
  std::vector<Item> items;
  Item item;
  int64_t lines = 0;
  io::for_each_line_in(text, [&](int64_t number, std::string_view line) {
    const std::string where = fmt::format("{}: line {}", file, number);
    lines = number;
    check_blank(line, where);
    const auto place = static_cast<size_t>(number - 1) % (kEndings + 2);
    if (place == 0)
      item = {{std::string(line)}, {}};
    else if (place == 1)
      item.gold = parse_label(line, {"0", "1", "2", "3"}, where);
    else
      item.options.emplace_back(line);
    if (place == kEndings + 1) items.push_back(item);
  });
  if (lines % static_cast<int64_t>(kEndings + 2) != 0)
    fail(ErrorCode::kInvalidInput, "{}: line {}: the last task has fewer than six lines", file, lines);
  return items;
}

// The harness's preprocess().
std::string prepared(std::string_view raw) {
  std::string text(stripped(raw));
  const auto replace = [&text](std::string_view what, std::string_view with) {
    std::string out;
    for (size_t at = 0; at < text.size();) {
      const bool found = text.compare(at, what.size(), what) == 0;
      out += found ? with : std::string_view(text).substr(at, 1);
      at += found ? what.size() : 1;
    }
    text = std::move(out);
  };
  replace(" [title]", ". ");
  for (size_t at = 0; (at = text.find('[', at)) != std::string::npos;) {
    const size_t end = text.find_first_of("]\n", at + 1);  // the regular expression's dot stops at a line's end
    if (end == std::string::npos || text[end] == '\n')
      ++at;
    else
      text.erase(at, end - at + 1);
  }
  replace("  ", " ");
  return text;
}

// Python's capitalize() for ASCII.
std::string capitalised(std::string text) {
  for (size_t i = 0; i < text.size(); ++i)
    if (i == 0 ? text[i] >= 'a' && text[i] <= 'z' : text[i] >= 'A' && text[i] <= 'Z') text[i] ^= 0x20;
  return text;
}

std::vector<Item> parse_records(std::string_view text, const std::string& file) {
  std::vector<Item> items;
  io::for_each_line_in(text, [&](int64_t number, std::string_view line) {
    const std::string where = fmt::format("{}: line {}", file, number);
    const nlohmann::json record = io::parse_json(line, where);
    const auto field = [&](const char* key) { return string_field(record, key, where); };
    Item item{{prepared(field("activity_label") + ": " + field("ctx_a") + " " + capitalised(field("ctx_b")))}, {}};
    const auto endings = record.find("endings");
    if (endings == record.end() || !endings->is_array() || endings->size() != kEndings)
      fail(ErrorCode::kInvalidInput, "{}: key \"endings\" is no array of four", where);
    for (const nlohmann::json& ending : *endings) {
      if (!ending.is_string()) fail(ErrorCode::kInvalidInput, "{}: an ending is no string", where);
      item.options.push_back(prepared(ending.get<std::string>()));
      check_blank(item.options.back(), where + ": an ending");
    }
    const auto label = record.find("label");
    if (label == record.end() || !(label->is_number_unsigned() || label->is_string()))
      fail(ErrorCode::kInvalidInput, "{}: key \"label\" is missing or no number", where);
    item.gold =
        parse_label(label->is_string() ? label->get<std::string>() : label->dump(), {"0", "1", "2", "3"}, where);
    items.push_back(std::move(item));
  });
  return items;
}

}  // namespace

TaskItems read_hellaswag(const std::filesystem::path& folder) {
  const std::filesystem::path path =
      need_file(folder, {"hellaswag/hellaswag_val.jsonl", "hellaswag/hellaswag_val_full.txt"});
  const std::string text = read_task_text(path);
  return one_subject(text.starts_with('{') ? parse_records(text, path.string()) : parse_lines(text, path.string()), {},
                     path);
}

}  // namespace brick::eval
