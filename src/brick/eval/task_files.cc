#include "brick/eval/task_files.h"

#include <algorithm>

#include "brick/base/error.h"
#include "brick/eval/strip.h"
#include "brick/io/json_file.h"
#include "brick/io/packed_file.h"
#include "brick/io/text_file.h"
#include "brick/text/utf8.h"

namespace brick::eval {
namespace fs = std::filesystem;
namespace {

std::vector<std::string_view> split(std::string_view text, char at) {
  std::vector<std::string_view> parts;
  while (true) {
    const size_t end = text.find(at);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

// The one place of `part` in `text`.
size_t find_once(std::string_view text, std::string_view part, std::string_view where) {
  const size_t at = text.find(part);
  if (at == std::string_view::npos) fail(ErrorCode::kInvalidInput, "{}: has no {}", where, text::printable(part));
  if (text.find(part, at + 1) != std::string_view::npos)
    fail(ErrorCode::kInvalidInput, "{}: has {} twice, so that its options cannot be told apart", where,
         text::printable(part));
  return at;
}

}  // namespace

std::optional<fs::path> find_file(const fs::path& folder, std::initializer_list<std::string_view> names) {
  for (const std::string_view name : names)
    for (const char* packed : {"", ".gz", ".bz2", ".xz"})
      if (fs::path path = folder / (std::string(name) + packed); fs::is_regular_file(path)) return path;
  return std::nullopt;
}

fs::path need_file(const fs::path& folder, std::initializer_list<std::string_view> names) {
  if (std::optional<fs::path> path = find_file(folder, names)) return *path;
  std::string all;
  for (const std::string_view name : names) all += fmt::format("{}{}", all.empty() ? "" : " or ", name);
  fail(ErrorCode::kNotFound, "{}: has no {} (plain, .gz, .bz2 or .xz); name the data's folder with --tasks-dir",
       folder.string(), all);
}

void check_utf8(std::string_view text, std::string_view file) {
  const size_t end = text::valid_end(text, 0);
  if (end == text.size()) return;
  const auto line = std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(end), '\n') + 1;
  fail(ErrorCode::kCorrupt, "{}: line {}: byte 0x{:02X} is not valid UTF-8", file, line,
       static_cast<uint8_t>(text[end]));
}

std::string read_task_text(const fs::path& path) {
  std::string text = io::read_packed_text(path);
  if (text.starts_with(io::kByteOrderMark)) text.erase(0, io::kByteOrderMark.size());
  check_utf8(text, path.string());
  return text;
}

std::vector<Row> parse_csv(std::string_view text, std::string_view file) {
  std::vector<Row> rows;
  int64_t line = 1;
  size_t at = 0;
  const auto newline = [&] { return at < text.size() && (text[at] == '\n' || text.substr(at).starts_with("\r\n")); };
  while (at < text.size()) {
    Row row{line, {}};
    do {  // a cell; at its start `at` is past the comma
      if (!row.cells.empty()) ++at;
      std::string cell;
      if (at < text.size() && text[at] == '"') {
        for (++at;; ++at) {
          if (at >= text.size()) fail(ErrorCode::kCorrupt, "{}: line {}: a quote is never closed", file, row.line);
          if (text[at] == '"' && !text.substr(at + 1).starts_with('"')) break;
          if (text[at] == '"') ++at;
          if (text[at] == '\n') ++line;
          cell += text[at];
        }
        ++at;
        if (at < text.size() && text[at] != ',' && !newline())
          fail(ErrorCode::kCorrupt, "{}: line {}: text after a closing quote", file, line);
      } else {
        for (; at < text.size() && text[at] != ',' && !newline(); ++at) {
          if (text[at] == '"')
            fail(ErrorCode::kCorrupt, "{}: line {}: a quote inside a cell without quotes", file, line);
          cell += text[at];
        }
      }
      row.cells.push_back(std::move(cell));
    } while (at < text.size() && text[at] == ',');
    if (at < text.size()) at += text[at] == '\r' ? 2 : 1;
    ++line;
    rows.push_back(std::move(row));
  }
  return rows;
}

std::vector<Row> parse_tsv(std::string_view text, std::string_view file,
                           std::initializer_list<std::string_view> columns) {
  std::vector<Row> rows;
  std::vector<size_t> places;
  size_t width = 0;
  io::for_each_line_in(text, [&](int64_t number, std::string_view line) {
    const std::vector<std::string_view> cells = split(line, '\t');
    if (number == 1) {
      width = cells.size();
      for (const std::string_view column : columns) {
        const auto found = std::find(cells.begin(), cells.end(), column);
        if (found == cells.end())
          fail(ErrorCode::kInvalidInput, "{}: line 1: the header has no column \"{}\"", file, column);
        places.push_back(static_cast<size_t>(found - cells.begin()));
      }
      return;
    }
    if (cells.size() != width)
      fail(ErrorCode::kInvalidInput, "{}: line {}: has {} cells, the header {}", file, number, cells.size(), width);
    Row row{number, {}};
    for (const size_t place : places) row.cells.emplace_back(cells[place]);
    rows.push_back(std::move(row));
  });
  return rows;
}

std::vector<Instruction> parse_instructions(std::string_view text, std::string_view file) {
  const nlohmann::json records = io::parse_json(text, file);
  if (!records.is_array())
    fail(ErrorCode::kInvalidInput, "{}: is {}, not an array of records", file, records.type_name());
  std::vector<Instruction> out;
  for (const nlohmann::json& record : records) {
    const std::string where = fmt::format("{}: element [{}]", file, out.size());
    out.push_back({where, string_field(record, "instruction", where), string_field(record, "answer", where)});
  }
  return out;
}

std::string_view between(const Instruction& record, std::string_view before, std::string_view after) {
  std::string_view text = record.text;
  if (!text.starts_with(before))
    fail(ErrorCode::kInvalidInput, "{}: does not begin with {}", record.where, text::printable(before));
  text.remove_prefix(before.size());
  if (!text.ends_with(after))
    fail(ErrorCode::kInvalidInput, "{}: does not end with {}", record.where, text::printable(after));
  text.remove_suffix(after.size());
  if (stripped(text).empty()) fail(ErrorCode::kInvalidInput, "{}: the question is blank", record.where);
  return text;
}

Choices parse_choices(const Instruction& record, std::string_view before, std::string_view label,
                      std::string_view gap) {
  // "answer1/answer2/answer3" ends the text and says how many options there are.
  std::string name(label);
  name[0] = static_cast<char>(name[0] | 0x20);
  const std::string_view text = record.text;
  const std::string_view names = text.substr(std::min(text.size(), text.rfind(' ')));
  const size_t count = static_cast<size_t>(std::count(names.begin(), names.end(), '/')) + 1;
  std::string format = fmt::format("{}Answer format: ", gap);
  for (size_t i = 1; i <= count; ++i) format += fmt::format("{}{}{}", i == 1 ? "" : "/", name, i);
  const std::string_view body = between(record, before, format);
  if (count < 2) fail(ErrorCode::kInvalidInput, "{}: has fewer than two options", record.where);

  Choices out;
  size_t begin = 0;
  for (size_t i = 1; i <= count + 1; ++i) {
    const std::string mark = fmt::format("{}{}{}: ", i == 1 ? "\n\n" : " ", label, i);
    const size_t end = i > count ? body.size() : find_once(body, mark, record.where);
    if (end < begin) fail(ErrorCode::kInvalidInput, "{}: its options are not in order", record.where);
    const std::string part(body.substr(begin, end - begin));
    if (stripped(part).empty())
      fail(ErrorCode::kInvalidInput, "{}: {} is blank", record.where,
           i == 1 ? "the question" : fmt::format("{} {}", label, i - 1));
    if (i == 1)
      out.question = part;
    else
      out.options.push_back(part);
    begin = end + mark.size();
    if (record.answer == fmt::format("{}{}", name, i) && i <= count) out.gold = i;
  }
  if (out.gold == 0)
    fail(ErrorCode::kInvalidInput, "{}: the answer is {}, not {}1 to {}{}", record.where,
         text::printable(record.answer), name, name, count);
  --out.gold;
  return out;
}

std::vector<Choices> read_questions(const fs::path& path) {
  std::vector<Choices> out;
  for (const Instruction& record : parse_instructions(read_task_text(path), path.string()))
    out.push_back(parse_choices(record, "Please choose the correct answer to the question: ", "Answer", "\n\n"));
  return out;
}

std::string string_field(const nlohmann::json& record, const char* key, std::string_view where) {
  if (!record.is_object()) fail(ErrorCode::kInvalidInput, "{}: is {}, not an object", where, record.type_name());
  const auto it = record.find(key);
  if (it == record.end() || !it->is_string())
    fail(ErrorCode::kInvalidInput, "{}: key \"{}\" is missing or no string", where, key);
  return it->get<std::string>();
}

size_t parse_label(std::string_view label, std::initializer_list<std::string_view> names, std::string_view where) {
  const auto* const found = std::find(names.begin(), names.end(), label);
  if (found == names.end())
    fail(ErrorCode::kInvalidInput, "{}: the label is {}; known are {}", where, text::printable(label),
         fmt::join(names.begin(), names.end(), " "));
  return static_cast<size_t>(found - names.begin());
}

TaskItems one_subject(std::vector<Item> items, std::vector<Item> pool, const fs::path& path) {
  if (items.empty()) fail(ErrorCode::kInvalidInput, "{}: holds no questions", path.string());
  for (size_t i = 0; i < items.size(); ++i) items[i].row = static_cast<int64_t>(i);
  const bool pool_is_asked = pool.empty();
  if (pool_is_asked) pool = items;
  return {{{"", "", std::move(pool), pool_is_asked}}, std::move(items)};
}

TaskItems read_splits(const fs::path& folder, std::initializer_list<std::string_view> test,
                      std::initializer_list<std::string_view> train, SplitReader read) {
  const fs::path items = need_file(folder, test);
  const std::optional<fs::path> examples = find_file(folder, train);
  return one_subject(read(items), examples ? read(*examples) : std::vector<Item>(), items);
}

}  // namespace brick::eval
