// Each task's reader on files small enough to read here; what it must refuse, by file and line.
#include <gtest/gtest.h>

#include "brick/eval/multiple_choice.h"
#include "brick/eval/task.h"
#include "brick/eval/task_files.h"
#include "io/temp_files.h"
#include "model/real_files.h"

namespace brick::eval {
namespace {

using io::test::expect_error;
namespace fs = std::filesystem;

// A folder of data sets with one file to begin with.
class DataFolder {
 public:
  DataFolder(std::string_view name, std::string_view text) { add(name, text); }
  void add(std::string_view name, std::string_view text) {
    fs::create_directories((folder_ / name).parent_path());
    io::test::spill(folder_ / name, text);
  }
  TaskItems read(std::string_view task) const { return find_task(task).read(folder_.path()); }

 private:
  TempFolder folder_;
};

using Texts = std::vector<std::string>;

// The whole text of each option, prompt and option told apart by "|".
Texts texts(const TaskItems& task, size_t item, int64_t shots = 0) {
  Texts all;
  for (size_t o = 0; o < task.items[item].options.size(); ++o)
    all.push_back(prompt_of(task, task.items[item], o, shots) + "|" + task.items[item].options[o]);
  return all;
}

std::string question(std::string_view instruction, std::string_view answer) {
  return nlohmann::json{{"instruction", instruction}, {"input", ""}, {"answer", answer}}.dump();
}

constexpr std::string_view kAsk = "Please choose the correct answer to the question: ";

TEST(Registry, NamesEveryTaskOfTheContract) {
  EXPECT_EQ(known_tasks(),
            "piqa arc_easy arc_challenge hellaswag winogrande openbookqa boolq_closed social_iqa sst2 rte wnli mmlu");
  expect_error(ErrorCode::kInvalidInput, "no task \"piqaa\"; there are: piqa arc_easy", [] { find_task("piqaa"); });
}

TEST(Piqa, ReadsQuestionsAndLabels) {
  DataFolder data("piqa/valid.jsonl",
                  "{\"goal\": \"Cool soup\", \"sol1\": \"Blow. \", \"sol2\": \"Wait\"}\n"
                  "{\"goal\": \"Dry hair\", \"sol1\": \"Towel\", \"sol2\": \"Fork\"}\n");
  data.add("piqa/valid-labels.lst", "1\n0\n");
  const TaskItems task = data.read("piqa");
  ASSERT_EQ(task.items.size(), 2U);
  EXPECT_EQ(texts(task, 0), (Texts{"Question: Cool soup\nAnswer:|Blow. ", "Question: Cool soup\nAnswer:|Wait"}));
  EXPECT_EQ(task.items[0].gold, 1U);
  EXPECT_EQ(task.items[1].row, 1);
  // Without a training file the examples come from the items, the one that is asked left out.
  EXPECT_EQ(texts(task, 0, 1)[0], "Question: Dry hair\nAnswer: Towel\n\nQuestion: Cool soup\nAnswer:|Blow. ");
  EXPECT_EQ(texts(task, 1, 1)[0], "Question: Cool soup\nAnswer: Wait\n\nQuestion: Dry hair\nAnswer:|Towel");
  expect_error(ErrorCode::kInvalidInput, "2 few-shot examples asked for, 1 there", [&] { texts(task, 0, 2); });
}

TEST(Piqa, RefusesMalformedRows) {
  DataFolder data("piqa/valid.jsonl",
                  "{\"goal\": \"a\", \"sol1\": \"b\", \"sol2\": \"c\"}\n{\"goal\": \"a\", \"sol1\": 3}\n");
  data.add("piqa/valid-labels.lst", "1\n0\n");
  expect_error(ErrorCode::kInvalidInput, "valid.jsonl: line 2: key \"sol1\"", [&] { data.read("piqa"); });
  data.add("piqa/valid.jsonl", "{\"goal\": \"a\", \"sol1\": \"b\", \"sol2\": \"c\"}\n\n");
  expect_error(ErrorCode::kCorrupt, "valid.jsonl: line 2", [&] { data.read("piqa"); });
  data.add("piqa/valid.jsonl", "{\"goal\": \"a\", \"sol1\": \"b\", \"sol2\": \"c\"}\n");
  expect_error(ErrorCode::kInvalidInput, "has 2 labels for the 1 questions", [&] { data.read("piqa"); });
  data.add("piqa/valid-labels.lst", "2\n");
  expect_error(ErrorCode::kInvalidInput, "valid-labels.lst: line 1: the label is \"2\"", [&] { data.read("piqa"); });
  data.add("piqa/valid-labels.lst", "0\n");
  data.add("piqa/valid.jsonl", "{\"goal\": \"\xC3(\", \"sol1\": \"b\", \"sol2\": \"c\"}\n");
  expect_error(ErrorCode::kCorrupt, "valid.jsonl: line 1: byte 0xC3", [&] { data.read("piqa"); });
  data.add("piqa/valid.jsonl", "");
  data.add("piqa/valid-labels.lst", "");
  expect_error(ErrorCode::kInvalidInput, "holds no questions", [&] { data.read("piqa"); });
}

TEST(Arc, TakesOptionsOutOfTheQuestion) {
  DataFolder data("mc_eval/ARC-Easy/test.json",
                  "[" +
                      question(std::string(kAsk) + "What is wet?\n\nAnswer1: fire Answer2: the sea Answer3: sand\n\n"
                                                   "Answer format: answer1/answer2/answer3",
                               "answer2") +
                      "]");
  data.add("mc_eval/ARC-Easy/train.json",
           "[" +
               question(std::string(kAsk) + "Hot?\n\nAnswer1: ice Answer2: sun\n\nAnswer format: answer1/answer2",
                        "answer2") +
               "]");
  const TaskItems task = data.read("arc_easy");
  EXPECT_EQ(texts(task, 0, 1)[2], "Question: Hot?\nAnswer: sun\n\nQuestion: What is wet?\nAnswer:|sand");
  EXPECT_EQ(task.items[0].gold, 1U);
  expect_error(ErrorCode::kNotFound, "has no mc_eval/ARC-Challenge/test.json or ARC-Challenge/test.json",
               [&] { data.read("arc_challenge"); });
}

TEST(Arc, RefusesWhatCannotBeToldApart) {
  const std::string tail = "\n\nAnswer format: answer1/answer2", ask(kAsk);
  const auto refused = [&](ErrorCode code, const std::string& words, const std::string& text,
                           const std::string& answer) {
    DataFolder data("ARC-Easy/test.json", "[" + question(text, answer) + "]");
    expect_error(code, words, [&] { data.read("arc_easy"); });
  };
  const ErrorCode bad = ErrorCode::kInvalidInput;
  refused(bad, "test.json: element [0]: does not begin with", "Choose: a\n\nAnswer1: b Answer2: c" + tail, "answer1");
  refused(bad, "does not end with", ask + "a\n\nAnswer1: b Answer2: c\n\nAnswer format: answer1/answer3", "answer1");
  refused(bad, "has no \"\\x0A\\x0AAnswer1: \"", ask + "a Answer1: b Answer2: c" + tail, "answer1");
  refused(bad, "twice", ask + "a\n\nAnswer1: b Answer2: c Answer2: d" + tail, "answer1");
  refused(bad, "not in order", ask + "a Answer2: c\n\nAnswer1: b" + tail, "answer1");
  refused(bad, "Answer 1 is blank", ask + "a\n\nAnswer1:  Answer2: c" + tail, "answer1");
  refused(bad, "the answer is \"answer3\", not answer1 to answer2", ask + "a\n\nAnswer1: b Answer2: c" + tail,
          "answer3");
  refused(bad, "the answer is \"\"", ask + "a\n\nAnswer1: b Answer2: c" + tail, "");
  refused(bad, "fewer than two options", ask + "a\n\nAnswer1: b\n\nAnswer format: answer1", "answer1");
  refused(bad, "does not begin", "", "answer1");
  DataFolder data("ARC-Easy/test.json", "[{\"instruction\": \"x\"}]");
  expect_error(bad, "element [0]: key \"answer\" is missing", [&] { data.read("arc_easy"); });
  data.add("ARC-Easy/test.json", "{}");
  expect_error(bad, "is object, not an array", [&] { data.read("arc_easy"); });
  data.add("ARC-Easy/test.json", "[3]");
  expect_error(bad, "element [0]: is number, not an object", [&] { data.read("arc_easy"); });
}

TEST(HellaSwag, ReadsSixLinesATask) {
  DataFolder data("hellaswag/hellaswag_val_full.txt", "Skiing: A man skis. he\n2\nfalls.\nflies.\nwins.\nsings.\n");
  const TaskItems task = data.read("hellaswag");
  EXPECT_EQ(texts(task, 0)[3], "Skiing: A man skis. he|sings.");
  EXPECT_EQ(task.items[0].gold, 2U);
  data.add("hellaswag/hellaswag_val_full.txt", "a\n2\nb\nc\nd\n");
  expect_error(ErrorCode::kInvalidInput, "line 5: the last task has fewer than six lines",
               [&] { data.read("hellaswag"); });
  data.add("hellaswag/hellaswag_val_full.txt", "a\n4\nb\nc\nd\ne\n");
  expect_error(ErrorCode::kInvalidInput, "line 2: the label is \"4\"", [&] { data.read("hellaswag"); });
  data.add("hellaswag/hellaswag_val_full.txt", "a\n1\nb\n \nd\ne\n");
  expect_error(ErrorCode::kInvalidInput, "line 4: is blank", [&] { data.read("hellaswag"); });
}

TEST(HellaSwag, PreparesTheOriginalAsTheHarnessDoes) {
  DataFolder data(
      "hellaswag/hellaswag_val.jsonl",
      "{\"activity_label\": \"Cooking\", \"ctx_a\": \"Heat oil. [header] How [title] Now stir\", "
      "\"ctx_b\": \"the COOK\", \"label\": \"1\", \"endings\": [\" a  b\", \"c [step] d\", \"e\", \"f [g\"]}\n");
  const TaskItems task = data.read("hellaswag");
  EXPECT_EQ(texts(task, 0),
            (Texts{"Cooking: Heat oil. How. Now stir The cook|a b", "Cooking: Heat oil. How. Now stir The cook|c d",
                   "Cooking: Heat oil. How. Now stir The cook|e", "Cooking: Heat oil. How. Now stir The cook|f [g"}));
  EXPECT_EQ(task.items[0].gold, 1U);
  data.add("hellaswag/hellaswag_val.jsonl",
           "{\"activity_label\": \"a\", \"ctx_a\": \"b\", \"ctx_b\": \"\", \"label\": 1}\n");
  expect_error(ErrorCode::kInvalidInput, "line 1: key \"endings\"", [&] { data.read("hellaswag"); });
}

TEST(WinoGrande, ScoresWhatFollowsTheBlank) {
  const std::string ask = "Please choose the correct answer to fill in the blank to complete the given sentence: ";
  DataFolder data(
      "mc_eval/winogrande/test.json",
      "[" +
          question(ask + "Ann beat Bea, so _ was glad.\n\nOption1: Ann Option2: Bea Answer format: option1/option2",
                   "option1") +
          "," + question(ask + "The _ fell.\n\nOption1: cup Option2: sky Answer format: option1/option2", "option1") +
          "]");
  const TaskItems task = data.read("winogrande");
  EXPECT_EQ(texts(task, 0, 1), (Texts{"The cup fell.\n\nAnn beat Bea, so Ann|was glad.",
                                      "The cup fell.\n\nAnn beat Bea, so Bea|was glad."}));
  data.add(
      "mc_eval/winogrande/test.json",
      "[" + question(ask + "No blank.\n\nOption1: Ann Option2: Bea Answer format: option1/option2", "option1") + "]");
  expect_error(ErrorCode::kInvalidInput, "element [0]: needs two options and a blank",
               [&] { data.read("winogrande"); });
  data.add("mc_eval/winogrande/test.json",
           "[" + question(ask + "At the end _\n\nOption1: Ann Option2: Bea Answer format: option1/option2", "option1") +
               "]");
  expect_error(ErrorCode::kInvalidInput, "nothing follows the blank", [&] { data.read("winogrande"); });
}

TEST(OpenBookQa, AsksTheQuestionAlone) {
  DataFolder data(
      "mc_eval/openbookqa/test.json",
      "[" +
          question(std::string(kAsk) + "Cats eat\n\nAnswer1: mice Answer2: sand\n\nAnswer format: answer1/answer2",
                   "answer1") +
          "]");
  EXPECT_EQ(texts(data.read("openbookqa"), 0), (Texts{"Cats eat|mice", "Cats eat|sand"}));
}

TEST(SocialIqa, HasItsOwnWords) {
  DataFolder data(
      "mc_eval/social_i_qa/test.json",
      "[" +
          question(std::string(kAsk) + "Al ran. Why?\n\nAnswer1: fear Answer2: fun\n\nAnswer format: answer1/answer2",
                   "answer1") +
          "]");
  EXPECT_EQ(texts(data.read("social_iqa"), 0)[1], "Q: Al ran. Why?\nA:|fun");
}

TEST(BoolQ, AsksWithoutThePassage) {
  const std::string ask = "Please answer the following question with true or false, question: ";
  DataFolder data("mc_eval/boolq/test.json",
                  "[" + question(ask + "is ice cold?\n\nAnswer format: true/false", "true") + "]");
  const TaskItems task = data.read("boolq_closed");
  EXPECT_EQ(texts(task, 0), (Texts{"Question: is ice cold?\nAnswer:|no", "Question: is ice cold?\nAnswer:|yes"}));
  EXPECT_EQ(task.items[0].gold, 1U);
  data.add("mc_eval/boolq/test.json", "[" + question(ask + "is ice cold?\n\nAnswer format: true/false", "yes") + "]");
  expect_error(ErrorCode::kInvalidInput, "element [0]: the label is \"yes\"; known are false true",
               [&] { data.read("boolq_closed"); });
}

TEST(Glue, ReadsTables) {
  DataFolder data("glue_sst2/test.tsv", "sentence\tlabel\na \"fine\" film \t1\n");
  EXPECT_EQ(texts(data.read("sst2"), 0)[1],
            "a \"fine\" film \nQuestion: Is this sentence positive or negative?\nAnswer:|positive");
  data.add("RTE/dev.tsv", "index\tsentence1\tsentence2\tlabel\n0\tIt rains.\tIt is wet.\tnot_entailment\n");
  const TaskItems rte = data.read("rte");
  EXPECT_EQ(texts(rte, 0)[1], "It rains.\nQuestion: It is wet. True or False?\nAnswer:|False");
  EXPECT_EQ(rte.items[0].gold, 1U);
  data.add("WNLI/dev.tsv", "index\tsentence1\tsentence2\tlabel\r\n0\tIt rains.\tIt is wet.\t1\r\n");
  EXPECT_EQ(texts(data.read("wnli"), 0)[1], "It rains.\nQuestion: It is wet. True or False?\nAnswer:|True");
}

TEST(Glue, RefusesMalformedRows) {
  DataFolder data("SST-2/dev.tsv", "sentence\tlabel\ngood\t1\nbad\n");
  expect_error(ErrorCode::kInvalidInput, "dev.tsv: line 3: has 1 cells, the header 2", [&] { data.read("sst2"); });
  data.add("SST-2/dev.tsv", "index\tsentence\n0\tgood\n");
  expect_error(ErrorCode::kInvalidInput, "line 1: the header has no column \"label\"", [&] { data.read("sst2"); });
  data.add("SST-2/dev.tsv", "sentence\tlabel\ngood\t2\n");
  expect_error(ErrorCode::kInvalidInput, "line 2: the label is \"2\"", [&] { data.read("sst2"); });
}

TEST(Mmlu, TakesSubjectsInTurn) {
  DataFolder data("mmlu/test/b_c_test.csv", "\"One, \"\"two\"\"\nthree? \",w,x,y,z,B\nSecond?,1,2,3,4,A\n");
  data.add("mmlu/test/a_test.csv", "First?,1,2,3,4,D\r\n");
  data.add("mmlu/dev/b_c_dev.csv", "Shot?,5,6,7,8,C\n");
  const TaskItems task = data.read("mmlu");
  ASSERT_EQ(task.items.size(), 3U);
  EXPECT_EQ(texts(task, 0)[0],
            "The following are multiple choice questions (with answers) about a.\n\nFirst?\nA. 1\nB. 2\nC. 3\nD. "
            "4\nAnswer:|A");
  EXPECT_EQ(texts(task, 1, 1)[1],
            "The following are multiple choice questions (with answers) about b c.\n\n"
            "Shot?\nA. 5\nB. 6\nC. 7\nD. 8\nAnswer: C\n\n"
            "One, \"two\"\nthree?\nA. w\nB. x\nC. y\nD. z\nAnswer:|B");
  EXPECT_EQ(task.items[2].row, 1);
  EXPECT_EQ(task.items[2].gold, 0U);
  expect_error(ErrorCode::kInvalidInput, "1 few-shot examples asked for, 0 there for a", [&] { texts(task, 0, 1); });
}

TEST(Mmlu, RefusesMalformedRows) {
  DataFolder data("mmlu/test/a_test.csv", "q,1,2,3,4,A\nq,1,2,3,4\n");
  const ErrorCode bad = ErrorCode::kInvalidInput;
  expect_error(bad, "a_test.csv: line 2: has 5 cells", [&] { data.read("mmlu"); });
  data.add("mmlu/test/a_test.csv", "q,1,2,3,4,E\n");
  expect_error(bad, "line 1: the label is \"E\"", [&] { data.read("mmlu"); });
  data.add("mmlu/test/a_test.csv", "\"q\n\",1,2,3,4,A\n\"q,1,2,3,4,A\n");
  expect_error(ErrorCode::kCorrupt, "line 3: a quote is never closed", [&] { data.read("mmlu"); });
  data.add("mmlu/test/a_test.csv", "\"q\"r,1,2,3,4,A\n");
  expect_error(ErrorCode::kCorrupt, "line 1: text after a closing quote", [&] { data.read("mmlu"); });
  data.add("mmlu/test/a_test.csv", "q\"r,1,2,3,4,A\n");
  expect_error(ErrorCode::kCorrupt, "line 1: a quote inside", [&] { data.read("mmlu"); });
  data.add("mmlu/test/a_test.csv", "\n");
  expect_error(bad, "line 1: has 1 cells", [&] { data.read("mmlu"); });
  data.add("mmlu/test/a_test.csv", "");
  expect_error(bad, "hold no questions", [&] { data.read("mmlu"); });
}

// The public files in whole: their sizes are those of BRICK_DATA's README.
TEST(RealFiles, AreReadInWhole) {
  const std::string folder = model::shared_data("mc_eval");
  BRICK_SKIP_WITHOUT(folder, "mc_eval is not in BRICK_DATA");
  const std::vector<std::pair<std::string_view, size_t>> sizes{
      {"piqa", 1838},      {"arc_easy", 2376},     {"arc_challenge", 1172}, {"hellaswag", 10042}, {"winogrande", 1267},
      {"openbookqa", 500}, {"boolq_closed", 3270}, {"social_iqa", 1954},    {"sst2", 872},        {"rte", 277},
      {"wnli", 71},        {"mmlu", 14079}};
  for (const auto& [name, size] : sizes) {
    const TaskItems task = find_task(name).read(fs::path(folder).parent_path());
    EXPECT_EQ(task.items.size(), size) << name;
    EXPECT_FALSE(prompt_of(task, task.items.back(), 0, 5).empty()) << name;
  }
}

}  // namespace
}  // namespace brick::eval
