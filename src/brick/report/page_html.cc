#include "brick/report/page_html.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "brick/base/error.h"
#include "brick/io/json_file.h"

namespace brick::report {

std::string escaped(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default: {
        const auto code = static_cast<unsigned char>(c);
        out += (code < 0x20 && c != '\n' && c != '\t') || code == 0x7F ? ' ' : c;
      }
    }
  }
  return out;
}

Html paragraph(const Html& inside) { return html("<p>{}</p>\n", inside); }

Html figure(std::string_view formatted) {
  std::string out;
  for (const char c : formatted) out += c == '-' ? "\u2212" : c == ' ' ? "\u00A0" : std::string(1, c);
  return html("{}", out);
}

HtmlTable::HtmlTable(std::string caption, std::vector<TableColumn> columns, bool stacked)
    : caption_(std::move(caption)), columns_(std::move(columns)), stacked_(stacked) {}

void HtmlTable::add_row(std::vector<Html> cells, std::string_view row_class) {
  BRICK_ASSERT(!cells.empty() && cells.size() == columns_.size());
  rows_ += row_class.empty() ? html("<tr role=\"row\">") : html("<tr role=\"row\" class=\"{}\">", row_class);
  rows_ += html("<th role=\"rowheader\" scope=\"row\">{}</th>", cells[0]);
  static constexpr std::array<const char*, 4> kClasses = {" class=\"n\"", "", " class=\"n wide\"", " class=\"prose\""};
  for (size_t c = 1; c < cells.size(); ++c)
    rows_ += html("<td role=\"cell\"{} data-column=\"{}\"><span>{}</span></td>", Html{kClasses[columns_[c].kind]},
                  columns_[c].header, cells[c]);
  rows_ += Html{"</tr>\n"};
}

// Roles are said aloud because cards are made of `display: block`, which takes a table's meaning away in some
// browsers.
Html HtmlTable::str() const {
  constexpr size_t kFew = 5;  // so few columns would lie far apart over the whole width
  Html heads;
  for (size_t c = 0; c < columns_.size(); ++c)
    heads += html("<th role=\"columnheader\" scope=\"col\"{}>{}</th>",
                  Html{c > 0 && (columns_[c].kind == TableColumn::kNumber || columns_[c].kind == TableColumn::kInterval)
                           ? " class=\"n\""
                           : ""},
                  columns_[c].header);
  return html(
      "<div class=\"frame\" role=\"region\" tabindex=\"0\" aria-label=\"{}\">\n<table role=\"table\"{}>\n"
      "<caption>{}</caption>\n<thead role=\"rowgroup\"><tr role=\"row\">{}</tr></thead>\n"
      "<tbody role=\"rowgroup\">\n{}</tbody>\n</table>\n</div>\n",
      caption_,
      Html{stacked_                 ? " class=\"stacked\""
           : columns_.size() < kFew ? " class=\"few\""
                                    : ""},
      caption_, heads, rows_);
}

std::string script_json(const nlohmann::json& value) {
  std::string out;
  for (const char c : io::compact_json(value)) {
    if (c == '<')
      out += "\\u003c";
    else
      out += c;
  }
  return out;
}

std::string filled(std::string_view form, const std::vector<std::pair<std::string_view, std::string_view>>& parts) {
  std::string out;
  for (size_t open; (open = form.find("{{")) != std::string_view::npos;) {
    const size_t close = form.find("}}", open);
    BRICK_ASSERT(close != std::string_view::npos);
    const std::string_view name = form.substr(open + 2, close - open - 2);
    const auto part = std::find_if(parts.begin(), parts.end(), [&](const auto& p) { return p.first == name; });
    BRICK_ASSERT(part != parts.end());
    out.append(form.substr(0, open)).append(part->second);
    form.remove_prefix(close + 2);
  }
  return out.append(form);
}

}  // namespace brick::report
