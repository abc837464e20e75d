// What quality is held against, and what stands for quality. Used inside report/ only.
#pragma once

#include <array>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace brick::report {

struct Axis {
  const char *name, *key;  // in a row's "front"; the member
  bool less_is_better;
  const char* title;
};

inline constexpr std::array<Axis, 3> kAxes = {{{"bytes", "bytes", true, "size"},
                                               {"decode", "decode_tokens_per_second", false, "decoding speed"},
                                               {"train", "train_tokens_per_second", false, "training speed"}}};

struct Quality {
  const char* prefix;                // of the axis's name in a row's "front"
  const char *key, *what;            // the members: its value, and of what it is; only rows of the same are comparable
  bool less_is_better, is_of_tasks;  // the latter: the mean over a row's "tasks"
  int decimals;
  const char *title, *unknown;  // the latter: what it is of where a row does not say
};

inline constexpr std::array<Quality, 2> kQualities = {
    {{"", "perplexity", "text", true, false, 2, "Perplexity", "a text that was not recorded"},
     {"accuracy-", "accuracy", "questions", false, true, 3, "Accuracy", "questions that were not recorded"}}};

std::string front_name(const Quality& quality, const Axis& axis);
bool is_on_front(const nlohmann::json& row, const Quality& quality, const Axis& axis);
std::vector<std::string> fronts(const nlohmann::json& row, const Quality& quality);  // the axes' names

}  // namespace brick::report
