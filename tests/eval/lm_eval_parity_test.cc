// Prompts and continuations beside lm-evaluation-harness's own, for a few questions of every task
// (tests/golden/make_lm_eval_golden.py). Their log-likelihoods are compared in tests/e2e/eval_tasks_test.py.
#include <gtest/gtest.h>

#include <filesystem>

#include "brick/eval/multiple_choice.h"
#include "brick/eval/task.h"
#include "brick/io/json_file.h"

namespace brick::eval {
namespace {

using nlohmann::json;

const std::filesystem::path kGolden = std::filesystem::path(BRICK_TEST_SOURCE_DIR) / "golden/lm_eval";

const Item* find_item(const TaskItems& task, const json& want) {
  for (const Item& item : task.items)
    if (item.row == want["row"].get<int64_t>() && task.subjects[item.subject].name == want["subject"]) return &item;
  return nullptr;
}

TEST(LmEvalParity, PromptsAndContinuations) {
  size_t items = 0;
  const json golden = io::read_json_file(kGolden / "lm_eval.json");
  for (const json& run : golden["runs"]) {
    const TaskItems task = find_task(run["task"].get<std::string>()).read(kGolden / "data");
    ASSERT_EQ(task.items.size(), run["items"].size()) << run["task"];
    for (const json& want : run["items"]) {
      const Item* item = find_item(task, want);
      ASSERT_NE(item, nullptr) << run["task"] << want["row"];
      ASSERT_EQ(item->options.size(), want["prompts"].size()) << run["task"];
      for (size_t o = 0; o < item->options.size(); ++o) {
        EXPECT_EQ(prompt_of(task, *item, o, run["num_fewshot"].get<int64_t>()), want["prompts"][o]) << run["task"];
        EXPECT_EQ(" " + item->options[o], want["continuations"][o]) << run["task"];
      }
      ++items;
    }
  }
  EXPECT_GT(items, 60U);
}

}  // namespace
}  // namespace brick::eval
