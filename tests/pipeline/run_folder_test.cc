#include "brick/pipeline/run_folder.h"

#include <gtest/gtest.h>

#include <fstream>

#include "brick/base/error.h"
#include "brick/io/text_file.h"
#include "io/temp_files.h"
#include "model/expect_error.h"

namespace brick::pipeline {
namespace {

using nlohmann::json;

TEST(RunFolder, DoesAUnitOnce) {
  const brick::TempFolder temp;
  int worked = 0;
  const auto work = [&] { return json{{"loss", ++worked}}; };
  EXPECT_FALSE(RunFolder::is_begun(temp.path() / "run"));
  RunFolder run(temp.path() / "run", "x = 1\n", "id", false, false);
  EXPECT_TRUE(RunFolder::is_begun(temp.path() / "run"));
  EXPECT_EQ(run.once({{"event", "tune"}, {"round", 1}}, work)["loss"], 1);
  EXPECT_EQ(run.once({{"event", "tune"}, {"round", 1}}, work)["loss"], 1);
  EXPECT_EQ(run.find({{"event", "tune"}, {"round", 2}}), nullptr);
  const json& second = run.once({{"event", "tune"}, {"round", 2}}, work);
  EXPECT_EQ(second["loss"], 2);
  EXPECT_EQ(run.find({{"event", "tune"}, {"round", 2}}), &second);
  RunFolder again(temp.path() / "run", "x = 1\n", "id", true, false);
  EXPECT_EQ(again.once({{"event", "tune"}, {"round", 2}}, work)["loss"], 2);
  EXPECT_EQ(worked, 2);
}

TEST(RunFolder, EachEventHasItsSeconds) {
  const brick::TempFolder temp;
  RunFolder run(temp.path() / "run", "", "id", false, false);
  EXPECT_GE(run.once({{"event", "upload"}}, [] { return json{{"bytes", 3}}; }).at("seconds"), 0);
  EXPECT_EQ(run.once({{"event", "tune"}}, [] { return json{{"seconds", 7}}; }).at("seconds"), 7);
}

TEST(RunFolder, AUnitWhoseLineWasCutIsDoneAgain) {
  const brick::TempFolder temp;
  {
    RunFolder(temp.path() / "run", "", "id", false, false).once({{"event", "a"}}, [] { return json{{"v", 1}}; });
  }
  std::ofstream(temp.path() / "run" / "metrics.jsonl", std::ios::app) << "{\"event\":\"b\",\"un";
  RunFolder run(temp.path() / "run", "", "id", true, false);
  int worked = 0;
  run.once({{"event", "a"}}, [&] { return json{{"v", ++worked}}; });
  EXPECT_EQ(worked, 0);
  run.once({{"event", "b"}}, [&] { return json{{"v", ++worked}}; });
  EXPECT_EQ(worked, 1);
  const std::string text = io::read_text(temp.path() / "run" / "metrics.jsonl");
  EXPECT_EQ(text.find("\"un{"), std::string::npos);
}

TEST(RunFolder, RefusesLinesThatAreNoEvents) {
  const brick::TempFolder temp;
  const auto path = temp.path() / "run";
  for (const char* line : {"{}", "[]", "3", R"({"event":"a"})", R"({"unit":"a"})", R"({"event":1,"unit":"a"})"}) {
    RunFolder(path, "", "id", false, true);
    std::ofstream(path / "metrics.jsonl") << line << "\n";
    model::expect_error(ErrorCode::kCorrupt, "line 1 of ", [&] { RunFolder(path, "", "id", true, false); });
  }
  for (const char* identity : {"[]", "3", "{}", R"({"identity":3})"}) {
    std::ofstream(path / "identity.json") << identity;
    model::expect_error(ErrorCode::kMismatch, "another configuration", [&] { RunFolder(path, "", "id", true, false); });
  }
}

TEST(RunFolder, WorkThatFailsLeavesNoLine) {
  const brick::TempFolder temp;
  RunFolder run(temp.path() / "run", "", "id", false, false);
  EXPECT_THROW(run.once({{"event", "a"}}, []() -> json { fail(ErrorCode::kIo, "no"); }), Error);
  EXPECT_TRUE(run.events().empty());
}

TEST(RunFolder, RefusesAnotherRunAndAnExistingFolder) {
  const brick::TempFolder temp;
  { RunFolder run(temp.path() / "run", "", "id", false, false); }
  EXPECT_THROW(RunFolder(temp.path() / "run", "", "other", true, false), Error);
  try {
    RunFolder(temp.path() / "run", "", "id", false, false);
    ADD_FAILURE() << "a run that was begun went on unasked";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kExists);
    EXPECT_NE(std::string(e.what()).find("continue it with --resume"), std::string::npos) << e.what();
  }
  EXPECT_NO_THROW(RunFolder(temp.path() / "run", "", "id", false, true));
}

}  // namespace
}  // namespace brick::pipeline
