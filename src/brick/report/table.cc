#include "brick/report/table.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "brick/base/error.h"

namespace brick::report {
namespace {

constexpr int kGap = 2, kShortestCell = 8;

struct Range {
  uint32_t first, last;
};

// Combining marks, joiners, variation selectors and direction marks.
constexpr std::array<Range, 15> kZeroWidth{{{0x0300, 0x036F},
                                            {0x0483, 0x0489},
                                            {0x0591, 0x05BD},
                                            {0x0610, 0x061A},
                                            {0x064B, 0x065F},
                                            {0x093C, 0x093C},
                                            {0x094D, 0x094D},
                                            {0x1AB0, 0x1AFF},
                                            {0x1DC0, 0x1DFF},
                                            {0x200B, 0x200F},
                                            {0x202A, 0x202E},
                                            {0x20D0, 0x20FF},
                                            {0xFE00, 0xFE0F},
                                            {0xFE20, 0xFE2F},
                                            {0xFEFF, 0xFEFF}}};

// Hangul, CJK, kana, full-width forms, emoji.
constexpr std::array<Range, 19> kWide{{{0x1100, 0x115F},
                                       {0x231A, 0x231B},
                                       {0x23E9, 0x23EC},
                                       {0x2614, 0x2615},
                                       {0x26A1, 0x26A1},
                                       {0x2705, 0x2705},
                                       {0x274C, 0x274C},
                                       {0x2E80, 0x303E},
                                       {0x3041, 0x33FF},
                                       {0x3400, 0x4DBF},
                                       {0x4E00, 0xA4CF},
                                       {0xA960, 0xA97C},
                                       {0xAC00, 0xD7A3},
                                       {0xF900, 0xFAFF},
                                       {0xFE30, 0xFE6F},
                                       {0xFF00, 0xFF60},
                                       {0xFFE0, 0xFFE6},
                                       {0x1F300, 0x1FAFF},
                                       {0x20000, 0x3FFFD}}};

template <size_t n>
bool in(const std::array<Range, n>& ranges, uint32_t code) {
  return std::any_of(ranges.begin(), ranges.end(),
                     [&](const Range& range) { return code >= range.first && code <= range.last; });
}

// The character at the start of `text`, which is not empty, and its bytes; a byte that starts none counts as
// U+FFFD. Lenient: this measures, it does not validate.
uint32_t next_character(std::string_view text, size_t& bytes) {
  const auto lead = static_cast<uint8_t>(text[0]);
  bytes = lead < 0xC0 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF8 ? 4 : 1;
  if (bytes == 1) return lead < 0x80 ? lead : 0xFFFD;
  uint32_t code = lead & (0xFFU >> (bytes + 1));
  for (size_t i = 1; i < bytes; ++i) {
    const uint32_t byte = i < text.size() ? static_cast<uint8_t>(text[i]) : 0;
    if ((byte & 0xC0) != 0x80) {
      bytes = 1;
      return 0xFFFD;
    }
    code = code << 6 | (byte & 0x3F);
  }
  return code;
}

bool is_control(uint32_t code) { return code < 0x20 || (code >= 0x7F && code < 0xA0); }

std::string shortened(std::string cell, int width) {
  if (display_width(cell) <= width) return cell;
  // Whole characters from the end: the bytes after a UTF-8 character's first are 10xxxxxx.
  while (!cell.empty() && display_width(cell) > width - 2) {
    while (cell.size() > 1 && (static_cast<unsigned char>(cell.back()) & 0xC0) == 0x80) cell.pop_back();
    cell.pop_back();
  }
  return cell + "..";
}

void append_line(std::string& text, const std::vector<Column>& columns, const std::vector<int>& widths,
                 const std::vector<std::string>& cells) {
  for (size_t c = 0; c < columns.size(); ++c) {
    const std::string padding(widths[c] - display_width(cells[c]), ' ');
    if (c > 0) text.append(kGap, ' ');
    text += columns[c].align == Align::kRight ? padding + cells[c] : cells[c] + padding;
  }
  text.erase(text.find_last_not_of(' ') + 1);
  text += '\n';
}

}  // namespace

std::string without_controls(std::string_view text) {
  std::string clean;
  for (size_t bytes; !text.empty(); text.remove_prefix(bytes)) {
    if (is_control(next_character(text, bytes)))
      clean += ' ';
    else
      clean += text.substr(0, bytes);
  }
  return clean;
}

int display_width(std::string_view text) {
  int width = 0;
  for (size_t bytes; !text.empty(); text.remove_prefix(bytes)) {
    const uint32_t code = next_character(text, bytes);
    width += is_control(code) || in(kZeroWidth, code) ? 0 : in(kWide, code) ? 2 : 1;
  }
  return width;
}

void Table::add_row(std::vector<std::string> cells) {
  BRICK_ASSERT(cells.size() <= columns_.size());
  cells.resize(columns_.size());
  for (std::string& cell : cells) cell = without_controls(cell);
  rows_.push_back(std::move(cells));
}

std::string Table::text(int most) const {
  std::vector<std::string> headers, rules;
  std::vector<int> widths;
  int total = -kGap;
  for (size_t c = 0; c < columns_.size(); ++c) {
    headers.push_back(without_controls(columns_[c].header));
    int width = display_width(headers[c]);
    for (const auto& row : rows_) width = std::max(width, display_width(row[c]));
    widths.push_back(width);
    total += width + kGap;
  }
  if (most > 0 && total > most)
    widths[0] = std::max({kShortestCell, display_width(headers[0]), widths[0] - total + most});
  for (const int width : widths) rules.emplace_back(width, '-');
  std::string text;
  append_line(text, columns_, widths, headers);
  append_line(text, columns_, widths, rules);
  for (std::vector<std::string> row : rows_) {
    row[0] = shortened(row[0], widths[0]);
    append_line(text, columns_, widths, row);
  }
  return text;
}

}  // namespace brick::report
