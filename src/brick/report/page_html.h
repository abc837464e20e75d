// HTML by a type: text becomes Html only by escaping, so that nothing of a run's records is ever read as
// markup.
#pragma once

#include <fmt/format.h>

#include <concepts>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace brick::report {

struct Html {
  std::string markup;
  Html& operator+=(const Html& more) {
    markup += more.markup;
    return *this;
  }
};

// & < > " ' as references, control characters but for tab and line feed as spaces.
std::string escaped(std::string_view text);

namespace detail {
inline const std::string& inserted(const Html& html) { return html.markup; }
inline std::string inserted(std::string_view text) { return escaped(text); }
template <std::integral T>
T inserted(T value) {
  return value;
}
template <class T>
using Inserted = decltype(inserted(std::declval<const T&>()));
}  // namespace detail

// fmt::format for markup: the format is markup, as is any argument of type Html; other text is escaped.
template <class... Args>
Html html(fmt::format_string<detail::Inserted<Args>...> format, const Args&... args) {
  return {fmt::format(format, detail::inserted(args)...)};
}

// A name from a file: its writing direction stays its own.
inline Html name_html(std::string_view name) { return html("<bdi>{}</bdi>", name); }
Html paragraph(const Html& inside);
// True minus signs, and no line break inside "12 min 30 s".
Html figure(std::string_view formatted);

struct TableColumn {
  std::string header;
  enum Kind { kNumber, kText, kInterval, kProse } kind = kNumber;
};

// A table with a caption, column and row headers. On a narrow screen a `stacked` one becomes one card a row,
// each cell with its column's name; one that isn't scrolls sideways inside its frame.
class HtmlTable {
 public:
  HtmlTable(std::string caption, std::vector<TableColumn> columns, bool stacked);
  // The first cell is the row's header. `row_class` is a class of page.css.
  void add_row(std::vector<Html> cells, std::string_view row_class = "");
  bool is_empty() const { return rows_.markup.empty(); }
  Html str() const;

 private:
  std::string caption_;
  std::vector<TableColumn> columns_;
  bool stacked_;
  Html rows_;
};

// JSON inside <script type="application/json">: every < is \u003c, so that no text can end the element.
std::string script_json(const nlohmann::json& value);

// The template with each {{name}} replaced, in one pass: what is put in is not searched again. A name that
// isn't there is a programmer's error.
std::string filled(std::string_view form, const std::vector<std::pair<std::string_view, std::string_view>>& parts);

}  // namespace brick::report
