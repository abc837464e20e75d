#include "brick/data/sequences.h"

#include <gtest/gtest.h>

#include <string>

#include "brick/base/error.h"
#include "data/toy_tokenizer.h"

namespace brick::data {
namespace {

Record pair(const std::string& user, const std::string& assistant) {
  return {{{"user", user}, {"assistant", assistant}}, ""};
}

EncodedRecords encode(const std::vector<Record>& records, int64_t max_length, LossOn loss_on = LossOn::kResponse) {
  return encode_records(records, toy_tokenizer(), text::chat_template("chatml"), max_length, loss_on);
}

// The supervised tokens as text, with $ for the end of a turn.
std::string targets(const TokenSequence& sequence) {
  std::string text;
  for (size_t i = 0; i < sequence.ids.size(); ++i)
    if (sequence.supervised[i] != 0)
      text += sequence.ids[i] == kEnd ? '$' : sequence.ids[i] == kStart ? '^' : static_cast<char>(sequence.ids[i]);
  return text;
}

// <|im_start|> "user\n" .. <|im_end|> "\n" <|im_start|> "assistant\n" .. <|im_end|> "\n"
constexpr int64_t kBeforeUser = 6, kBetween = 2 + 11, kAfter = 2;

TEST(EncodeRecords, SupervisesTheResponseAndItsEnd) {
  const EncodedRecords encoded = encode({pair("hi", "hello there")}, 512);
  ASSERT_EQ(encoded.sequences.size(), 1U);
  const TokenSequence& sequence = encoded.sequences[0];
  EXPECT_EQ(static_cast<int64_t>(sequence.ids.size()), kBeforeUser + 2 + kBetween + 11 + kAfter);
  EXPECT_EQ(sequence.supervised.size(), sequence.ids.size());
  EXPECT_EQ(targets(sequence), "hello there$");
  EXPECT_EQ(encoded.cut, 0);
  EXPECT_EQ(encoded.without_target, 0);
  EXPECT_EQ(count_tokens(encoded.sequences), kBeforeUser + 2 + kBetween + 11 + kAfter);
  EXPECT_EQ(count_supervised(encoded.sequences), 12);
  EXPECT_EQ(lengths_of(encoded.sequences), (std::vector<int64_t>{34}));
}

TEST(EncodeRecords, SupervisesEveryAssistantTurn) {
  Record record{{{"system", "s"}, {"user", "u"}, {"assistant", "one"}, {"user", "v"}, {"assistant", "two"}}, ""};
  EXPECT_EQ(targets(encode({record}, 512).sequences[0]), "one$two$");
}

TEST(EncodeRecords, TheWholeTextButItsFirstToken) {
  const TokenSequence sequence = encode({pair("hi", "x")}, 512, LossOn::kAll).sequences[0];
  EXPECT_EQ(targets(sequence), "user\nhi$\n^assistant\nx$\n");
  EXPECT_EQ(sequence.supervised[0], 0);
}

TEST(EncodeRecords, FirstTokenIsNeverATarget) {
  text::ChatTemplate bare;  // no markers: the response would begin at position 0
  bare.name = "bare";
  const std::vector<Record> records{{{{"assistant", "abc"}}, ""}};
  const EncodedRecords encoded = encode_records(records, toy_tokenizer(), bare, 512, LossOn::kResponse);
  EXPECT_EQ(targets(encoded.sequences[0]), "bc");
}

TEST(EncodeRecords, MarkersInContentAreText) {
  const TokenSequence sequence = encode({pair("hi", "a<|im_end|>b")}, 512).sequences[0];
  EXPECT_EQ(targets(sequence), "a<|im_end|>b$");
  EXPECT_EQ(std::count(sequence.ids.begin(), sequence.ids.end(), kEnd), 2);
}

TEST(EncodeRecords, CutsOnTheRight) {
  const int64_t prompt = kBeforeUser + 2 + kBetween;
  const std::vector<Record> records{pair("hi", "hello"), pair("hi", "h"), pair(std::string(100, 'u'), "lost")};
  const EncodedRecords encoded = encode(records, prompt + 3);
  ASSERT_EQ(encoded.sequences.size(), 2U);
  EXPECT_EQ(targets(encoded.sequences[0]), "hel");
  EXPECT_EQ(targets(encoded.sequences[1]), "h$");
  EXPECT_EQ(encoded.record, (std::vector<int64_t>{0, 1}));
  EXPECT_EQ(encoded.cut, 2);
  EXPECT_EQ(encoded.without_target, 1);
}

TEST(EncodeRecords, ExactLengthIsNotCut) {
  const int64_t whole = kBeforeUser + 2 + kBetween + 5 + kAfter;
  EXPECT_EQ(encode({pair("hi", "hello")}, whole).cut, 0);
  const EncodedRecords cut = encode({pair("hi", "hello")}, whole - 1);
  EXPECT_EQ(cut.cut, 1);
  EXPECT_EQ(targets(cut.sequences[0]), "hello$");
}

TEST(EncodeRecords, KeepsTheRecordsIndexAcrossGaps) {
  const EncodedRecords encoded = encode(
      {pair(std::string(100, 'u'), "lost"), pair("a", "b"), pair(std::string(100, 'u'), "lost"), pair("c", "d")}, 60);
  EXPECT_EQ(encoded.record, (std::vector<int64_t>{1, 3}));
  EXPECT_EQ(encoded.without_target, 2);
}

TEST(EncodeRecords, SaysWhenNothingIsLeft) {
  try {
    encode({pair(std::string(100, 'u'), "lost")}, 50);
    FAIL();
  } catch (const Error& error) {
    const std::string message = error.what();
    for (const char* part : {"none of 1 records", "length of 50", "--length"})
      EXPECT_NE(message.find(part), std::string::npos) << message;
  }
  EXPECT_THROW(encode({pair("a", "b")}, 1), Error);
}

TEST(EncodeRecords, NamesTheRecordThatCannotBeRendered) {
  try {
    encode({pair("a", "b"), {{{"tool", "x"}, {"assistant", "y"}}, ""}}, 50);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).find("record 2: "), 0U) << error.what();
  }
}

}  // namespace
}  // namespace brick::data
