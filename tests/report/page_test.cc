#include "brick/report/page.h"

#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <regex>
#include <string>
#include <vector>

#include "brick/io/json_file.h"
#include "brick/report/asset.h"
#include "brick/report/table.h"
#include "report/read_page.h"

namespace brick::report {
namespace {

using nlohmann::json;

constexpr int kTerminal = 100;

json sample() { return io::read_json_file(std::string(BRICK_TEST_SOURCE_DIR) + "/report/simulation_run.json"); }

// The page without the parts that are the program's own, whatever the run says.
std::string written(const json& run) { return without_assets(simulation_page(run)); }

std::string seen(const json& run) { return visible_text(simulation_page(run)); }

TEST(SimulationPage, IsOneFileThatAsksForNothingElse) {
  const std::string page = written(sample());
  EXPECT_FALSE(contains(page, "http://"));
  EXPECT_FALSE(contains(page, "https://"));
  for (const char* reference : {"src=", "@import", "url(", "<link", "<img", "<iframe", "<object", "style=\""})
    EXPECT_FALSE(contains(page, reference)) << reference;
  EXPECT_TRUE(contains(page, "default-src 'none'"));
  for (const std::string_view asset : {asset::kPageCss, asset::kPageJs, asset::kPageHtml})
    EXPECT_EQ(asset.find("//www"), std::string_view::npos);
  // Chart.js names its makers in its licence comments; nothing follows those addresses.
  EXPECT_EQ(occurrences(std::string(asset::kChartMinJs), "https://"), 2);
  EXPECT_EQ(occurrences(std::string(asset::kChartMinJs), "</script"), 0);
}

TEST(SimulationPage, IsWellFormed) {
  const std::string page = simulation_page(sample());
  EXPECT_EQ(page.rfind("<!doctype html>", 0), 0);
  EXPECT_EQ(unbalanced(written(sample())), "");
  EXPECT_EQ(unbalanced(written(json::object())), "");
  EXPECT_EQ(occurrences(page, "<h1>"), 1);
  for (const char* id : {"run", "quality", "rounds", "model", "baselines", "cost", "reproduce"}) {
    EXPECT_EQ(occurrences(page, std::string(" id=\"") + id + '"'), 1) << id;
    EXPECT_TRUE(contains(page, std::string("href=\"#") + id + '"')) << id;
  }
  const std::string text = written(sample());
  EXPECT_EQ(occurrences(text, "<table "), occurrences(text, "<caption>"));
  EXPECT_EQ(occurrences(text, "<figure "), occurrences(text, "<figcaption>"));
  EXPECT_EQ(unbalanced("<p><b></p></b>"), "</p> closes b");  // the check itself can fail
}

// The browser runs only what has these hashes, so the elements must hold the assets to the byte.
TEST(SimulationPage, HoldsItsAssetsUnchanged) {
  const std::string page = simulation_page(sample());
  EXPECT_TRUE(contains(page, "<style>" + std::string(asset::kPageCss) + "</style>"));
  EXPECT_TRUE(contains(page, "<script>" + std::string(asset::kChartMinJs) + "</script>"));
  EXPECT_TRUE(contains(page, "<script>" + std::string(asset::kPageJs) + "</script>"));
  EXPECT_EQ(asset::kChartMinJs.substr(0, 19), "/*!\n * Chart.js v3.");
  static const std::regex kPolicy(
      "script-src 'sha256-[A-Za-z0-9+/]{43}=' 'sha256-[A-Za-z0-9+/]{43}='; style-src "
      "'sha256-[A-Za-z0-9+/]{43}='");
  EXPECT_TRUE(std::regex_search(written(sample()), kPolicy));
}

TEST(SimulationPage, SaysItsNumbers) {
  const std::string text = seen(sample());
  for (const char* part : {"Synthetic fixture (not a measurement)",
                           "134,515,008 parameters",
                           "2.443 to 1.956",
                           "fell from 2.443 to 1.956",
                           "rose from 18.42 to 19.11 (+3.7",
                           "better at 2, not clearly different at 1 and worse at 1 of 4 offices",
                           "no clear difference",
                           "−0.045",
                           "−0.071",
                           "141.35",
                           "61,240",
                           "244",
                           "seed = 7",
                           "calibration_seed = 11",
                           "sparsegpt",
                           "Stored, the blocks of 25",
                           "norm 41.2",
                           "Brickwork 0.1.0",
                           "Imaginary CPU 9000",
                           "0.1, 0.1, 0.3 and 0.3"})
    EXPECT_TRUE(contains(text, part)) << part;
  EXPECT_FALSE(contains(text, "not measured"));
}

TEST(SimulationPage, NumbersFollowTheRun) {
  json run = sample();
  run["clients"][2]["loss"]["block_lego"] = 7.654;
  EXPECT_TRUE(contains(seen(run), "7.654"));
  EXPECT_FALSE(contains(seen(sample()), "7.654"));
}

TEST(SimulationPage, SaysWhereLegoLoses) {
  const std::string text = seen(sample());
  EXPECT_TRUE(contains(text, "LEGO is worse than the same block tuned alone at it (+0.034;"));
  EXPECT_TRUE(contains(text, "On general text the whole model got worse: perplexity 18.42 before, 19.11 after."));
  EXPECT_TRUE(
      contains(text, "Lower loss than the whole model with LEGO (1.956): centralised (1.920) and fedit-dense (1.947)"));
}

TEST(SimulationPage, SaysWhenOnlyTheMeanIsWorse) {
  json run = sample();
  run["clients"][1]["intervals"]["lego_minus_local"] = {{"mean", 0.006}, {"low", -0.017}, {"high", 0.029}, {"n", 30}};
  EXPECT_TRUE(contains(seen(run), "LEGO is worse on average than the same block tuned alone at law (+0.006;"));
  run["clients"][1]["intervals"].erase("lego_minus_local");
  run["clients"][1]["loss"]["block_lego"] = 2.141;  // alone: 2.041
  EXPECT_TRUE(contains(seen(run), "at law (+0.100); no interval was measured."));
}

TEST(SimulationPage, SaysNothingOfLosingWhereLegoWins) {
  json run = sample();
  for (json& client : run["clients"])
    client["intervals"]["lego_minus_local"] = {{"mean", -0.1}, {"low", -0.2}, {"high", -0.05}, {"n", 30}};
  run["llm"]["perplexity_by_round"] = {18.42, 18.3};
  run["arms"] = json::array();
  const std::string text = seen(run);
  EXPECT_FALSE(contains(text, "Where LEGO loses"));
  EXPECT_FALSE(contains(text, "LEGO is worse"));
  EXPECT_TRUE(contains(text, "better at 4 of 4 offices"));
}

TEST(SimulationPage, EscapesHostileText) {
  const std::string attack = "</script><img src=x onerror=\"pwned=1\">'<!--<script>{{run}}";
  json run = sample();
  run["title"] = run["tool_version"] = run["rule"] = run["tau"] = run["compute"] = run["config"] = run["command"] =
      attack;
  for (const char* key : {"path", "name", "dtype"}) run["model"][key] = attack;
  for (const char* key : {"cpu", "isa"}) run["machine"][key] = attack;
  for (json& client : run["clients"]) {
    client["name"] = attack;
    client["rejected"] = {{{"round", 1}, {"reason", attack}}};
  }
  for (json& block : run["blocks"]) block["method"] = attack;
  for (json& arm : run["arms"])
    if (arm["name"] != "lego") arm["name"] = arm["what"] = attack;
  run["llm"]["text"] = attack;
  run["notes"] = {attack};
  const std::string page = written(run);
  EXPECT_FALSE(contains(page, "<img"));
  EXPECT_FALSE(contains(page, "<!--"));
  EXPECT_EQ(occurrences(page, "</script>"), 4);
  EXPECT_EQ(occurrences(page, "<script"), 4);
  EXPECT_EQ(unbalanced(page), "");
  EXPECT_TRUE(
      contains(page, "&lt;/script&gt;&lt;img src=x onerror=&quot;pwned=1&quot;&gt;&#39;&lt;!--&lt;script&gt;{{run}}"));
  EXPECT_EQ(embedded(page, "records"), run);
  EXPECT_EQ(embedded(page, "charts")["quality"]["offices"][0], attack);
}

// The same check finds an attack that is not escaped: put in by hand, behind the escaping.
TEST(SimulationPage, AnUnescapedNameWouldBeNoticed) {
  std::string page = written(sample());
  page.replace(page.find("<bdi>clinic</bdi>"), 17, "<bdi></script><img></bdi>");
  EXPECT_NE(unbalanced(page), "");
}

TEST(SimulationPage, BytesThatAreNotUtf8AreReplaced) {
  json run = sample();
  run["clients"][0]["name"] = "cl\xFFinic\x01";
  run["llm"]["loss_by_round"][1] = std::numeric_limits<double>::quiet_NaN();
  const std::string page = simulation_page(run);
  EXPECT_FALSE(contains(page, "\xFF"));
  EXPECT_FALSE(contains(page, "\x01"));
  EXPECT_TRUE(contains(page, "cl\uFFFDinic"));
  EXPECT_FALSE(contains(written(run), "nan"));
}

TEST(SimulationPage, AnEmptyRunIsAPageThatSaysSo) {
  for (const json& run : {json(), json::object(), json::array(), json("text"), json(3)}) {
    const std::string text = seen(run);
    EXPECT_TRUE(contains(text, "Not measured."));
    EXPECT_TRUE(contains(text, "No baseline was measured."));
    EXPECT_TRUE(contains(text, "The configuration was not recorded."));
    EXPECT_EQ(embedded(simulation_page(run), "charts"), json::object());
    EXPECT_FALSE(contains(written(run), "<figure"));
  }
}

// Every key of the sample in turn absent, null, or of another type.
void spoil(json& node, const json& root, int& pages) {
  const auto check = [&] {
    ASSERT_NO_THROW({
      ASSERT_EQ(unbalanced(written(root)), "");
      ASSERT_FALSE(summary_table(root).empty());
    });
    ++pages;
  };
  if (!node.is_structured()) return;
  size_t n = 0;
  for (json& child : node) {
    if (node.is_array() && n++ > 0) return;  // an array's elements are alike
    const json kept = child;
    for (const json& other : {json(), json("text"), json(-1e300), json::array(), json::object(), json{{1, 2}, "x"}}) {
      child = other;
      check();
    }
    child = kept;
    spoil(child, root, pages);
  }
}

TEST(SimulationPage, SurvivesEveryKeyMissingOrOfAnotherType) {
  json run = sample();
  run["clients"].erase(run["clients"].begin() + 1, run["clients"].end());
  int pages = 0;
  spoil(run, run, pages);
  EXPECT_GT(pages, 400);
}

TEST(SimulationPage, WhatIsNotMeasuredIsCalledSo) {
  json run = sample();
  for (json& client : run["clients"]) {
    client["loss"].erase("block_local");
    client["intervals"].erase("lego_minus_local");
  }
  const std::string text = seen(run);
  EXPECT_TRUE(contains(text, "not measured"));
  EXPECT_TRUE(contains(text, "was not measured with an interval"));
  EXPECT_FALSE(embedded(simulation_page(run), "charts").contains("differences"));
}

TEST(SummaryTable, IsWhatTheTerminalShows) {
  const std::string table = summary_table(sample());
  EXPECT_EQ(table.substr(0, table.find("whole model")),
            "office       block  records  before  alone   LEGO  LEGO - alone, 95 %       verdict\n"
            "-----------  -----  -------  ------  -----  -----  -----------------------  -------\n"
            "clinic         0 %       30   2.412  1.893  1.846  -0.045 [-0.071, -0.019]  better\n"
            "law           25 %       30   2.588  2.041  2.037  -0.006 [-0.029, +0.017]  unclear\n"
            "it            50 %       30   2.931  2.251  2.288  +0.034 [+0.009, +0.059]  worse\n"
            "permits       75 %       30   4.127  2.969  2.874  -0.097 [-0.148, -0.046]  better\n");
  for (const char* part :
       {"120   2.443         1.956  -0.487 to before\n", "18.42 -> 19.11", "53.8 MB up, 56.2 MB down", "21 min 03 s",
        "LEGO is worse than tuning alone at 1 of 4 offices"})
    EXPECT_TRUE(contains(table, part)) << part;
}

TEST(SummaryTable, KeepsToAHundredColumns) {
  json run = sample();
  run["clients"][0]["name"] =
      "a very long name of an office that goes on and on and never seems to come to an end at all";
  run["clients"][1]["name"] = "診療所診療所診療所診療所診療所診療所診療所診療所診療所診療所診療所診療所";
  run["clients"][2]["name"] = "line\nfeed\x1B[31m";
  run["clients"][3]["intervals"]["lego_minus_local"] = {
      {"mean", -1234.5678}, {"low", -9999.9}, {"high", -1000.1}, {"n", 3}};
  const std::string table = summary_table(run);
  for (size_t begin = 0, end; (end = table.find('\n', begin)) != std::string::npos; begin = end + 1)
    EXPECT_LE(display_width(table.substr(begin, end - begin)), kTerminal) << table;
  EXPECT_FALSE(contains(table, "\x1B"));
}

}  // namespace
}  // namespace brick::report
