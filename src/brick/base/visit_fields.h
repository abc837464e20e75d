// A configuration is a plain aggregate with defaults and one member
//   template <class V> void fields(V&& visit) { visit("rank", rank, "LoRA rank"); ... }
// that feeds flags, TOML and JSON alike. This header has the JSON-free part: listing and finding names.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace brick {

template <class Config>
std::vector<std::string> field_names(Config& config) {
  std::vector<std::string> names;
  config.fields([&](std::string_view name, auto&, std::string_view) { names.emplace_back(name); });
  return names;
}

}  // namespace brick
