#include "brick/io/json_file.h"

#include "io/temp_files.h"

namespace brick::io {
namespace {

using nlohmann::json;
using test::expect_error;

TEST(JsonFile, ParsesWhatTheLibraryParses) {
  for (const char* text :
       {"null", "true", "-3", "18446744073709551615", "1.5e3", "\"a\\u00e9\"", "[]", "{}", "[1,[2,{\"a\":[{}]}],\"x\"]",
        "{\"a\":{\"b\":1},\"c\":[null,false]}", " \n[ 1 ]\n ", "\xEF\xBB\xBF{\"bom\":1}"})
    EXPECT_EQ(parse_json(text, "t"), json::parse(text)) << text;
}

TEST(JsonFile, SaysWhereItIsWrong) {
  expect_error(ErrorCode::kCorrupt, "conf.json: line 3, byte 10: is not valid JSON: syntax error",
               [] { parse_json("{\n\"a\":1,\n}", "conf.json"); });
  for (const char* text :
       {"", "{", "[1,", "{\"a\" 1}", "nul", "[1] 2", "{'a':1}", "// c\n1", "\"\xff\"", "1e999", "[NaN]"})
    expect_error(ErrorCode::kCorrupt, "is not valid JSON", [&] { parse_json(text, "t"); });
}

TEST(JsonFile, MessagesArePrintable) {
  try {
    parse_json("\"" + std::string(1000, 'x') + "\x1b[2J\xff", "t");
    FAIL();
  } catch (const Error& error) {
    const std::string_view message = error.what();
    EXPECT_LT(message.size(), 300u);
    for (const char c : message) EXPECT_TRUE(c >= 0x20 && c < 0x7F);
  }
}

TEST(JsonFile, BoundsTheNesting) {
  const auto nested = [](size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_NO_THROW(parse_json(nested(128), "t"));
  expect_error(ErrorCode::kCorrupt, "byte 129: nests deeper than 128", [&] { parse_json(nested(129), "t"); });
  expect_error(ErrorCode::kCorrupt, "nests deeper", [&] { parse_json(std::string(1000000, '['), "t"); });
  std::string objects;
  for (int i = 0; i < 100000; ++i) objects += "{\"a\":";
  expect_error(ErrorCode::kCorrupt, "nests deeper", [&] { parse_json(objects, "t"); });
  expect_error(ErrorCode::kCorrupt, "deeper than 2", [&] { parse_json(nested(3), "t", {.depth = 2}); });
}

TEST(JsonFile, RepeatedKeys) {
  EXPECT_EQ(parse_json("{\"a\":{\"b\":1},\"a\":2}", "t"), json({{"a", 2}}));
  EXPECT_EQ(parse_json("{\"a\":1,\"a\":[{\"a\":3}]}", "t")["a"][0]["a"], 3);
  expect_error(ErrorCode::kCorrupt, "\"a\" stands there twice",
               [] { parse_json("{\"a\":1,\"a\":2}", "t", {.refuse_duplicates = true}); });
  EXPECT_NO_THROW(parse_json("[{\"a\":1},{\"a\":{\"a\":2}}]", "t", {.refuse_duplicates = true}));
}

TEST(JsonFile, ReadsAndWrites) {
  const TempFolder folder;
  const json value{{"b", {1, 2.5}}, {"a", "\xC3\xA9"}};
  write_json_file(folder / "v.json", value);
  EXPECT_EQ(test::slurp(folder / "v.json"), "{\n  \"a\": \"\xC3\xA9\",\n  \"b\": [\n    1,\n    2.5\n  ]\n}\n");
  EXPECT_EQ(read_json_file(folder / "v.json"), value);
  EXPECT_EQ(compact_json(value), "{\"a\":\"\xC3\xA9\",\"b\":[1,2.5]}");
  EXPECT_EQ(compact_json(json("\xff")), "\"\xEF\xBF\xBD\"");
  expect_error(ErrorCode::kExists, "--force", [&] { write_json_file(folder / "v.json", value); });
  expect_error(ErrorCode::kNotFound, "gone.json", [&] { read_json_file(folder / "gone.json"); });
}

TEST(JsonFile, SurvivesDamage) {
  const std::string good = R"({"a":[1,-2,3.5e1,true,null],"b":{"c":"d\u00e9\n"},"e":[[],{},""]})";
  test::expect_robust(good, good.size(), good.size(), [](std::string_view text) { parse_json(text, "t"); });
}

}  // namespace
}  // namespace brick::io
