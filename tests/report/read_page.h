// Reading a page as a test does.
#pragma once

#include <algorithm>
#include <nlohmann/json.hpp>
#include <regex>
#include <string>
#include <string_view>
#include <vector>

#include "brick/report/asset.h"

namespace brick::report {

inline bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

inline size_t occurrences(const std::string& text, std::string_view part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++n;
  return n;
}

inline void erase_all(std::string& text, std::string_view part) {
  for (size_t at; (at = text.find(part)) != std::string::npos;) text.erase(at, part.size());
}

// Without the parts that are the program's own.
inline std::string without_assets(std::string page) {
  for (const std::string_view own : {asset::kChartMinJs, asset::kPageJs, asset::kPageCss}) erase_all(page, own);
  return page;
}

// What a reader sees: no scripts, no tags.
inline std::string visible_text(std::string page) {
  page = without_assets(std::move(page));
  for (size_t begin; (begin = page.find("<script")) != std::string::npos;)
    page.erase(begin, page.find("</script>", begin) + 9 - begin);
  std::string text;
  bool is_tag = false;
  for (const char c : page) {
    is_tag = is_tag || c == '<';
    if (!is_tag) text += c;
    if (c == '>') is_tag = false;
  }
  return text;
}

inline nlohmann::json embedded(const std::string& page, const std::string& id) {
  const std::string open = "<script type=\"application/json\" id=\"" + id + "\">";
  const size_t begin = page.find(open) + open.size();
  return nlohmann::json::parse(page.substr(begin, page.find("</script>", begin) - begin));
}

// Elements opened and not closed, or closed out of order; empty if all is well.
inline std::string unbalanced(const std::string& page) {
  static const std::regex kTag("<(/?)([a-z][a-z0-9]*)[^>]*>");
  static const std::vector<std::string> kVoid = {"meta", "br", "img"};
  std::vector<std::string> open;
  for (std::sregex_iterator tag(page.begin(), page.end(), kTag), end; tag != end; ++tag) {
    const std::string name = (*tag)[2];
    if (std::find(kVoid.begin(), kVoid.end(), name) != kVoid.end()) continue;
    if ((*tag)[1].length() == 0) {
      open.push_back(name);
    } else if (open.empty() || open.back() != name) {
      return "</" + name + "> closes " + (open.empty() ? "nothing" : open.back());
    } else {
      open.pop_back();
    }
  }
  return open.empty() ? "" : open.back() + " stays open";
}

}  // namespace brick::report
