#include "brick/report/page.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "brick/report/table.h"

namespace brick::report {
namespace {

using nlohmann::json;

std::string escaped(const std::string& text) {
  std::string out;
  for (char c : text) {
    if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '&')
      out += "&amp;";
    else if (c == '"')
      out += "&quot;";
    else
      out += c;
  }
  return out;
}

std::string number(const json& object, const char* key) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  if (!object.is_object() || found == object.end() || !found->is_number()) return "-";
  return fmt::format("{:.4f}", found->get<double>());
}

json at(const json& object, const char* key) {
  return object.is_object() && object.contains(key) ? object[key] : json();
}

}  // namespace

std::string simulation_page(const json& run) {
  return "<!doctype html><meta charset=utf-8><title>Brickwork</title><pre>" + escaped(summary_table(run)) +
         "</pre>";
}

std::string summary_table(const json& run) {
  Table table({{"office"}, {"before", Align::kRight}, {"alone", Align::kRight}, {"LEGO", Align::kRight}});
  for (const json& client : at(run, "clients")) {
    const json loss = at(client, "loss"), name = at(client, "name");
    table.add_row({name.is_string() ? name.get<std::string>() : "?", number(loss, "block_untuned"),
                   number(loss, "block_local"), number(loss, "block_lego")});
  }
  return table.text();
}

}  // namespace brick::report
