#include "brick/train/objective.h"

#include <array>
#include <cmath>

#include "brick/base/error.h"

namespace brick::train {
namespace {

struct Entry {
  std::string_view name;
  bool needs_teacher;
  std::unique_ptr<Objective> (*make)(const ObjectiveSettings&);
};

constexpr std::array kObjectives{
    Entry{"cross-entropy", false, make_cross_entropy},
    Entry{"forward-kl", true, make_forward_kl},
};

const Entry& find(std::string_view name) {
  for (const Entry& entry : kObjectives)
    if (entry.name == name) return entry;
  fail(ErrorCode::kInvalidInput, "objective '{}': expected one of {}", name, known_objectives());
}

}  // namespace

std::unique_ptr<Objective> make_objective(std::string_view name, const ObjectiveSettings& settings) {
  const Entry& entry = find(name);
  if (entry.needs_teacher && settings.teacher == nullptr)
    fail(ErrorCode::kInvalidInput, "the objective {} needs a teacher", name);
  if (!(settings.share >= 0 && settings.share <= 1))
    fail(ErrorCode::kInvalidInput, "distill = {}: expected a share from 0 to 1", settings.share);
  if (!(settings.hidden_weight >= 0) || !std::isfinite(settings.hidden_weight))
    fail(ErrorCode::kInvalidInput, "hidden_weight = {}: expected 0 or more", settings.hidden_weight);
  if (settings.hidden_weight > 0 && !entry.needs_teacher)
    fail(ErrorCode::kInvalidInput, "hidden_weight = {}: the objective {} has no teacher's hidden states",
         settings.hidden_weight, name);
  return entry.make(settings);
}

bool needs_teacher(std::string_view name) { return find(name).needs_teacher; }

std::string known_objectives() {
  std::string names;
  for (const Entry& entry : kObjectives) names.append(names.empty() ? "" : ", ").append(entry.name);
  return names;
}

}  // namespace brick::train
