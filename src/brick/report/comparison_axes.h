// What perplexity is held against. Used inside report/ only.
#pragma once

#include <array>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace brick::report {

struct Axis {
  const char *name, *key;  // in a row's "front"; the member
  bool less_is_better;
  const char *title, *thing;  // of the picture, and what its points have
};

inline constexpr std::array<Axis, 3> kAxes = {
    {{"bytes", "bytes", true, "Perplexity against size", "smaller"},
     {"decode", "decode_tokens_per_second", false, "Perplexity against decoding speed", "faster in decoding"},
     {"train", "train_tokens_per_second", false, "Perplexity against training speed", "faster in training"}}};

bool is_on_front(const nlohmann::json& row, const Axis& axis);
std::vector<std::string> fronts(const nlohmann::json& row);  // the axes' names

}  // namespace brick::report
