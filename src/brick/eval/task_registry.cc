#include <array>

#include "brick/base/error.h"
#include "brick/eval/task.h"

namespace brick::eval {
namespace {

constexpr std::array kTasks{
    Task{"piqa", 0, read_piqa},
    Task{"arc_easy", 0, read_arc_easy},
    Task{"arc_challenge", 0, read_arc_challenge},
    Task{"hellaswag", 0, read_hellaswag},
    Task{"winogrande", 0, read_winogrande},
    Task{"openbookqa", 0, read_openbookqa},
    Task{"boolq_closed", 0, read_boolq_closed},
    Task{"social_iqa", 0, read_social_iqa},
    Task{"sst2", 0, read_sst2},
    Task{"rte", 0, read_rte},
    Task{"wnli", 0, read_wnli},
    Task{"mmlu", 5, read_mmlu},
};

}  // namespace

std::string known_tasks() {
  std::string names;
  for (const Task& task : kTasks) names.append(names.empty() ? "" : " ").append(task.name);
  return names;
}

const Task& find_task(std::string_view name) {
  for (const Task& task : kTasks)
    if (task.name == name) return task;
  fail(ErrorCode::kInvalidInput, "there is no task \"{}\"; there are: {}", name, known_tasks());
}

}  // namespace brick::eval
