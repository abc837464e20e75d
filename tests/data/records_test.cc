#include "brick/data/records.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "brick/base/error.h"
#include "io/temp_files.h"

namespace brick::data {
namespace {

class LoadRecords : public ::testing::Test {
 protected:
  std::vector<Record> load(const std::string& text, const std::string& name = "data.jsonl") {
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return load_records(folder_ / name);
  }

  // The message, which must have all `parts`.
  void expect_error(const std::string& text, ErrorCode code, const std::vector<std::string>& parts,
                    const std::string& name = "data.jsonl") {
    try {
      load(text, name);
      ADD_FAILURE() << "no error for " << text;
    } catch (const Error& error) {
      const std::string message = error.what();
      EXPECT_EQ(error.code(), code) << message;
      EXPECT_NE(message.find(name), std::string::npos) << message;
      EXPECT_EQ(message.find('\n'), std::string::npos) << message;
      for (const std::string& part : parts)
        EXPECT_NE(message.find(part), std::string::npos) << part << " in: " << message;
    }
  }

  TempFolder folder_;
};

// role=content|role=content
std::string shown(const Record& record) {
  std::string text;
  for (const text::Message& message : record.messages)
    text += (text.empty() ? "" : "|") + message.role + "=" + message.content;
  return text;
}

const std::string kGood = R"({"instruction": "i", "response": "r"})";

TEST_F(LoadRecords, ReadsInstructions) {
  const auto records =
      load(R"({"instruction": "Name one.", "context": "Two are red.", "response": "é", "category": "qa"})"
           "\n"
           R"({"instruction": "i", "context": "", "response": "", "id": 7, "extra": [{}]})"
           "\n"
           R"({"response": "r", "instruction": "i", "context": null, "category": null})");
  ASSERT_EQ(records.size(), 3U);
  EXPECT_EQ(shown(records[0]), "user=Name one.\n\nTwo are red.|assistant=é");
  EXPECT_EQ(records[0].category, "qa");
  EXPECT_EQ(shown(records[1]), "user=i|assistant=");
  EXPECT_EQ(shown(records[2]), "user=i|assistant=r");
  EXPECT_EQ(records[2].category, "");
}

TEST_F(LoadRecords, ReadsAlpacasNames) {
  const auto records = load(R"({"instruction": "i", "input": "c", "output": "o"})"
                            "\n"
                            R"({"instruction": "i", "input": "", "response": "r"})");
  EXPECT_EQ(shown(records[0]), "user=i\n\nc|assistant=o");
  EXPECT_EQ(shown(records[1]), "user=i|assistant=r");
  expect_error(R"({"instruction": "i", "output": "o", "response": "r"})", ErrorCode::kInvalidInput,
               {"line 1 of", "\"response\" and \"output\""});
  expect_error(R"({"instruction": "i", "input": "o", "context": "r", "output": ""})", ErrorCode::kInvalidInput,
               {"\"context\" and \"input\""});
}

TEST_F(LoadRecords, ReadsMessages) {
  const auto records = load(
      R"({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u", "name": 1},)"
      R"( {"role": "assistant", "content": "a"}, {"role": "user", "content": "v"}, {"role": "assistant", "content": "b"}],)"
      R"( "category": "chat", "instruction": 5})");
  EXPECT_EQ(shown(records[0]), "system=s|user=u|assistant=a|user=v|assistant=b");
  EXPECT_EQ(records[0].category, "chat");
}

TEST_F(LoadRecords, ReadsShareGptsConversations) {
  const auto records = load(
      R"({"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}]})");
  EXPECT_EQ(shown(records[0]), "system=s|user=u|assistant=a");
  expect_error(R"({"conversations": [{"from": "user", "value": "u"}]})", ErrorCode::kInvalidInput,
               {"conversations[0]", "\"from\" is \"user\"", "system, human, gpt"});
  expect_error(R"({"conversations": [{"role": "human", "content": "u"}]})", ErrorCode::kInvalidInput, {"\"from\""});
  expect_error(R"({"conversations": [{"from": "human", "value": "u"}]})", ErrorCode::kInvalidInput, {"must end with"});
  expect_error(R"({"conversations": [{"from": "human", "value": "u"}, {"from": "system", "value": "s"}]})",
               ErrorCode::kInvalidInput, {"\"system\"", "only the first"});
}

TEST_F(LoadRecords, ReadsPromptsAndCompletions) {
  const auto records = load(R"({"prompt": "p", "completion": " c", "category": "k"})");
  EXPECT_EQ(shown(records[0]), "user=p|assistant= c");
  EXPECT_EQ(records[0].category, "k");
  expect_error(R"({"prompt": "p"})", ErrorCode::kInvalidInput, {"\"completion\" is missing"});
  expect_error(R"({"prompt": ["p"], "completion": "c"})", ErrorCode::kInvalidInput, {"\"prompt\" is array"});
}

TEST_F(LoadRecords, ReadsAnArrayWhateverTheName) {
  const std::string array = " [\n" + kGood + ",\n" + kGood + "\n]\n";
  EXPECT_EQ(load(array, "data.json").size(), 2U);
  EXPECT_EQ(load(array, "data.jsonl").size(), 2U);
  EXPECT_EQ(load(kGood + "\n" + kGood, "lines.json").size(), 2U);
}

TEST_F(LoadRecords, ToleratesMarksCarriageReturnsAndBlankLines) {
  EXPECT_EQ(load("\xEF\xBB\xBF" + kGood + "\r\n\r\n  \t\r\n" + kGood + "\r\n\n").size(), 2U);
  EXPECT_EQ(load("\xEF\xBB\xBF\n[" + kGood + "]", "data.json").size(), 1U);
  EXPECT_EQ(load("\n\n" + kGood).size(), 1U);
}

TEST_F(LoadRecords, KeepsEscapesAndUnicode) {
  const auto records = load(R"({"instruction": "a\tb\u00e9\ud83e\uddf1\u0000z", "response": "  spaced \n"})");
  EXPECT_EQ(records[0].messages[0].content, "a\tbé🧱" + std::string("\0z", 2));
  EXPECT_EQ(records[0].messages[1].content, "  spaced \n");
}

TEST_F(LoadRecords, LinesAreCountedWithBlankOnes) {
  expect_error(kGood + "\n\n" + kGood + "\n{}", ErrorCode::kInvalidInput,
               {"line 4 of", "is no record, an object with \"messages\"", "none"});
}

TEST_F(LoadRecords, RefusesEmptyFiles) {
  for (const char* text : {"", "\n \r\n", "[]", "\xEF\xBB\xBF", " [ ] "})
    expect_error(text, ErrorCode::kInvalidInput, {"no records"});
  EXPECT_THROW(load_records(folder_ / "absent.jsonl"), Error);
  EXPECT_THROW(load_records(folder_.path()), Error);
}

TEST_F(LoadRecords, RefusesWhatIsNotUtf8) {
  expect_error(kGood + "\n{\"instruction\": \"caf\xE9\", \"response\": \"\"}", ErrorCode::kCorrupt,
               {"line 2 of", "byte 21", "0xE9", "UTF-8"});
  expect_error("[" + kGood + ",\n{\"x\xC3\": 1}]", ErrorCode::kCorrupt, {"line 2 of", "0xC3"});
  expect_error(std::string("\xFF\xFE{\0", 4), ErrorCode::kCorrupt, {"line 1 of", "0xFF"});
}

TEST_F(LoadRecords, RefusesWhatIsNotJson) {
  expect_error(kGood + "\n" + R"({"instruction": "i", "response": )", ErrorCode::kCorrupt,
               {"line 2 of", "byte 33", "one whole record a line"});
  expect_error("{\n\"instruction\": \"i\", \"response\": \"r\"}", ErrorCode::kCorrupt, {"line 1 of", "a line"});
  expect_error(kGood + kGood, ErrorCode::kCorrupt, {"line 1 of"});
  expect_error("instruction,response\n", ErrorCode::kCorrupt, {"line 1 of"});
  expect_error(R"({"instruction": "\ud800", "response": ""})", ErrorCode::kCorrupt, {"line 1 of"});
  expect_error("[" + kGood + ",\n", ErrorCode::kCorrupt, {"line 2"});
  expect_error("[" + kGood + "]\n" + kGood, ErrorCode::kCorrupt, {"line 2"});
  expect_error(R"({"instruction": "i", "response": "r", "response": "s"})", ErrorCode::kCorrupt, {"response", "twice"});
  expect_error(std::string(100000, '['), ErrorCode::kCorrupt, {"deep"});
}

TEST_F(LoadRecords, RefusesRecordsThatAreNone) {
  constexpr ErrorCode kBad = ErrorCode::kInvalidInput;
  expect_error("7", kBad, {"line 1 of", "number 7"});
  expect_error("null", kBad, {"line 1 of", "null"});
  expect_error("[" + kGood + ", \"text\"]", kBad, {"element [1] of", "string"});
  expect_error("[" + kGood + ", {\"prompt\": 1}]", kBad, {"element [1] of", "\"prompt\""});
  expect_error(R"({"instruction": "i"})", kBad, {"\"response\" is missing"});
  expect_error(R"({"instruction": "i", "response": null})", kBad, {"\"response\" is missing or null"});
  expect_error(R"({"instruction": 3, "response": "r"})", kBad, {"\"instruction\" is number 3", "a string"});
  expect_error(R"({"instruction": "i", "response": ["r"]})", kBad, {"\"response\" is array [\"r\"]"});
  expect_error(R"({"instruction": "i", "output": 3})", kBad, {"\"output\" is number 3"});
  expect_error(R"({"instruction": "i", "context": {}, "response": "r"})", kBad, {"\"context\" is object"});
  expect_error(R"({"instruction": "i", "response": "r", "category": ["a"]})", kBad, {"\"category\" is array"});
  expect_error("{\"a\\u001b[31m\\n\": 1}", kBad, {"\\u001b[31m\\n"});
}

TEST_F(LoadRecords, RefusesMalformedMessages) {
  constexpr ErrorCode kBad = ErrorCode::kInvalidInput;
  const auto messages = [](const std::string& list) { return kGood + "\n{\"messages\": " + list + "}"; };
  expect_error(messages("[]"), kBad, {"line 2 of", "\"messages\" is an empty array"});
  expect_error(messages("{}"), kBad, {"line 2 of", "\"messages\" is object"});
  expect_error(messages("[5]"), kBad, {"line 2 of", "messages[0]", "number 5"});
  expect_error(messages(R"([{"role": "user"}])"), kBad, {"messages[0]", "\"content\" is missing"});
  expect_error(messages(R"([{"from": "human", "value": "x"}])"), kBad, {"\"role\" is missing", "\"from\", \"value\""});
  expect_error(messages(R"([{"role": "user", "content": [{"type": "text"}]}])"), kBad, {"\"content\" is array"});
  expect_error(messages(R"([{"role": "human", "content": "x"}])"), kBad,
               {"messages[0]", "\"role\" is \"human\"", "system, user, assistant"});
  expect_error(messages(R"([{"role": "user", "content": "x"}])"), kBad,
               {"role is \"user\"", "must end with an assistant"});
  expect_error(messages(R"([{"role": "user", "content": "x"}, {"role": "system", "content": "x"}])"), kBad,
               {"messages[1]", "system"});
}

TEST_F(LoadRecords, MessagesStayShort) {
  try {
    load("{\"instruction\": [\"" + std::string(100000, 'x') + "\"], \"response\": \"\"}");
    FAIL();
  } catch (const Error& error) {
    EXPECT_LT(std::string(error.what()).size(), 400U);
  }
}

// A file of the shared data (environment BRICK_DATA, by default ../shared/data beside the repository).
std::filesystem::path shared_data(const std::string& name) {
  const char* root = std::getenv("BRICK_DATA");
  const std::filesystem::path repository = std::filesystem::path(BRICK_TEST_SOURCE_DIR).parent_path();
  return (root != nullptr ? std::filesystem::path(root) : repository.parent_path() / "shared/data") / name;
}

TEST(LoadRealRecords, ReadsDolly) {
  const std::filesystem::path folder = shared_data("dolly15k");
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "no " << folder << "; set BRICK_DATA";
  EXPECT_EQ(load_records(folder / "global_test.json").size(), 80U);
  size_t training = 0;
  for (int client = 0; client < 10; ++client)
    training += load_records(folder / ("local_training_" + std::to_string(client) + ".json")).size();
  EXPECT_EQ(training, 14931U);
}

}  // namespace
}  // namespace brick::data
