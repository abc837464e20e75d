#include "brick/report/comparison.h"

#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <string>

#include "brick/io/json_file.h"
#include "brick/report/table.h"
#include "report/read_page.h"

namespace brick::report {
namespace {

using nlohmann::json;

json row(const std::string& name, double perplexity, double bytes, double decode, const std::string& text = "a.txt") {
  return {{"name", name},
          {"kind", "model"},
          {"method", "wanda"},
          {"sparsity", 0.5},
          {"nonzeros", 1234567},
          {"bytes", bytes},
          {"perplexity", perplexity},
          {"text", text},
          {"decode_tokens_per_second", decode}};
}

json with_accuracy(json row, double accuracy, const std::string& questions = "piqa (200 questions, 0 shots)") {
  row["accuracy"] = accuracy;
  row["questions"] = questions;
  row["tasks"] = {{"piqa", {{"acc", accuracy}}}};
  return row;
}

json front(const json& rows, size_t i) { return rows[i].value("front", json::array()); }

json sample_run() { return io::read_json_file(std::string(BRICK_TEST_SOURCE_DIR) + "/report/simulation_run.json"); }

json sample() {
  json rows = {row("dense", 25, 90e6, 100), row("half", 39, 60e6, 140), row("worse half", 47, 60e6, 150)};
  for (json& one : rows_of_run(sample_run(), "run/a")) rows.push_back(one);
  mark_fronts(rows);
  return {{"rows", rows},
          {"tool_version", "0.1.0"},
          {"compute", "f32"},
          {"machine", {{"cpu", "Imaginary CPU 9000"}, {"isa", "avx2"}, {"threads", 2}}}};
}

TEST(Fronts, NobodyOnThemIsBeatenInBoth) {
  // bytes: b beats d (same perplexity, smaller) and e (smaller and better). decode: only c is faster than a.
  json rows = {row("a", 10, 100, 5), row("b", 20, 50, 5), row("c", 30, 40, 9), row("d", 20, 60, 1),
               row("e", 40, 70, 1)};
  mark_fronts(rows);
  EXPECT_EQ(front(rows, 0), json({"bytes", "decode"}));
  EXPECT_EQ(front(rows, 1), json({"bytes"}));
  EXPECT_EQ(front(rows, 2), json({"bytes", "decode"}));
  EXPECT_EQ(front(rows, 3), json::array());
  EXPECT_EQ(front(rows, 4), json::array());
}

TEST(Fronts, TwinsAreBothOnThem) {
  json rows = {row("a", 10, 100, 5), row("b", 10, 100, 5)};
  mark_fronts(rows);
  EXPECT_EQ(front(rows, 0), json({"bytes", "decode"}));
  EXPECT_EQ(front(rows, 1), front(rows, 0));
}

TEST(Fronts, OtherTextsAndMissingNumbersAreNotCompared) {
  json rows = {row("a", 10, 100, 5, "a.txt"), row("b", 99, 500, 1, "b.txt"), row("c", 20, 50, 5, "a.txt")};
  rows[2].erase("decode_tokens_per_second");
  rows.push_back({{"name", "no perplexity"}, {"bytes", 1}, {"front", {"bytes"}}});
  mark_fronts(rows);
  EXPECT_EQ(front(rows, 0), json({"bytes"}));  // alone in decode among those of a.txt
  EXPECT_EQ(front(rows, 1), json::array());
  EXPECT_EQ(front(rows, 2), json({"bytes"}));
  EXPECT_EQ(front(rows, 3), json::array());
}

TEST(Fronts, AccuracyHasThemOfItsOwn) {
  // More is better: b beats a and d; c was asked other questions.
  json rows = {with_accuracy(row("a", 10, 100, 5), 0.5), with_accuracy(row("b", 20, 50, 5), 0.6),
               with_accuracy(row("c", 30, 200, 9), 0.1, "rte (10 questions, 0 shots)"),
               with_accuracy(row("d", 40, 60, 5), 0.6)};
  mark_fronts(rows);
  EXPECT_EQ(front(rows, 0), json({"bytes", "decode"}));
  EXPECT_EQ(front(rows, 1), json({"bytes", "accuracy-bytes", "accuracy-decode"}));
  EXPECT_EQ(front(rows, 2), json({"decode"}));
  EXPECT_EQ(front(rows, 3), json({"accuracy-decode"}));
}

TEST(RowsOfRun, AreItsBlocksArmsAndClients) {
  const json run = sample_run();
  const json rows = rows_of_run(run, "run/a");
  ASSERT_EQ(rows.size(), run["blocks"].size() + run["arms"].size() + 2 * run["clients"].size());
  const auto find = [&](const std::string& name) {
    for (const json& one : rows)
      if (one["name"] == name) return one;
    ADD_FAILURE() << name;
    return json();
  };
  const json& block = run["blocks"][1];
  const json found = find("run/a: block 25 %");
  for (const char* key : {"bytes", "nonzeros", "perplexity", "sparsity"}) EXPECT_EQ(found[key], block[key]) << key;
  EXPECT_EQ(found["train_tokens_per_second"], block["tune_tokens_per_second"]);
  const json lego = find("run/a: law with LEGO");
  EXPECT_EQ(lego["loss"], run["clients"][1]["loss"]["block_lego"]);
  EXPECT_EQ(lego["bytes"], block["bytes"]);
  EXPECT_EQ(find("run/a: law alone")["loss"], run["clients"][1]["loss"]["block_local"]);
  EXPECT_EQ(find("run/a: centralised")["loss"], 1.92);
}

// Two methods may share a sparsity.
TEST(RowsOfRun, ClientsHaveTheSizeOfTheirOwnBlock) {
  json run = sample_run();
  json other = run["blocks"][1];
  other["bytes"] = 777;
  run["blocks"][1]["name"] = "25";
  other["name"] = "wanda-25";
  run["blocks"].push_back(other);
  const auto bytes = [&](const char* block) {
    run["clients"][1]["block"] = block;
    for (const json& one : rows_of_run(run, "run"))
      if (one["name"] == "run: law with LEGO") return one["bytes"];
    return json();
  };
  EXPECT_EQ(bytes("25"), run["blocks"][1]["bytes"]);
  EXPECT_EQ(bytes("wanda-25"), 777);
}

TEST(RowsOfRun, RowsOfASummaryKeepWhatTheySay) {
  const json run = {{"rows", {row("dense", 25, 90e6, 100), json(), row("block", 39, 60e6, 140)}}};
  json rows = rows_of_run(run, "shrunk");
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[1]["name"], "shrunk: block");
  EXPECT_EQ(rows[1]["text"], "a.txt as shrunk has it");
  rows[1]["name"] = "block";
  rows[1]["text"] = "a.txt";
  EXPECT_EQ(rows[1], row("block", 39, 60e6, 140));
}

TEST(ComparisonTable, HasWhatWasMeasured) {
  json rows = {row("dense", 25, 90e6, 100), row("half", 39, 60e6, 140)};
  mark_fronts(rows);
  EXPECT_EQ(comparison_table(rows),
            "what   method  removed  kept weights  on disk  perplexity  decode/s  front\n"
            "-----  ------  -------  ------------  -------  ----------  --------  ------------\n"
            "dense  wanda      50 %     1,234,567  90.0 MB       25.00     100.0  bytes decode\n"
            "half   wanda      50 %     1,234,567  60.0 MB       39.00     140.0  bytes decode\n");
}

TEST(ComparisonTable, HasAccuraciesAndTheirFrontsWhereNoPerplexityHasThem) {
  json rows = {with_accuracy(row("a", 10, 100e6, 5), 0.512), with_accuracy(row("b", 20, 50e6, 5), 0.625)};
  const auto expect = [&](const char* first, const char* second) {
    mark_fronts(rows);
    const std::string table = comparison_table(rows);
    for (const char* part : {"accuracy  decode/s  front", first, second}) EXPECT_TRUE(contains(table, part)) << table;
  };
  expect("   0.512      5.00  bytes decode\n", "   0.625      5.00  bytes\n");
  for (json& one : rows) one.erase("perplexity");
  expect("   0.512      5.00\n", "   0.625      5.00  bytes decode\n");
}

TEST(ComparisonTable, KeepsToItsWidth) {
  json rows = sample()["rows"];
  for (json& one : rows) one = with_accuracy(one, 0.5);
  mark_fronts(rows);
  rows[0]["name"] = std::string(300, 'x') + "\x1B[31m\n";
  const std::string table = comparison_table(rows);
  for (size_t begin = 0, end; (end = table.find('\n', begin)) != std::string::npos; begin = end + 1)
    EXPECT_LE(display_width(table.substr(begin, end - begin)), 120) << table;
  EXPECT_FALSE(contains(table, "\x1B"));
  EXPECT_EQ(comparison_table(json::array()), "what\n----\n");
}

TEST(ComparisonPage, IsWellFormedAndAsksForNothingElse) {
  const std::string page = without_assets(comparison_page(sample()));
  EXPECT_EQ(unbalanced(page), "");
  for (const char* reference : {"http:", "https:", "src=", "@import", "url(", "<link", "style=\""})
    EXPECT_FALSE(contains(page, reference)) << reference;
  for (const char* id : {"tradeoffs", "others", "machine"}) {
    EXPECT_EQ(occurrences(page, std::string(" id=\"") + id + '"'), 1) << id;
    EXPECT_TRUE(contains(page, std::string("href=\"#") + id + '"')) << id;
  }
  EXPECT_TRUE(contains(comparison_page(sample()), std::string(asset::kPageJs)));
}

TEST(ComparisonPage, SaysItsNumbersAndWhoIsBeaten) {
  const std::string text = visible_text(comparison_page(sample()));
  for (const char* part : {"39.00", "90.0\u00A0MB", "Imaginary CPU 9000", "run/a: law with LEGO", "1.920",
                           "Perplexity against size (a.txt): on the front are dense and half; beaten: worse half.",
                           "held-out records of law in run/a"})
    EXPECT_TRUE(contains(text, part)) << part;
}

TEST(ComparisonPage, DrawsAPictureForEachTextAndCost) {
  const json charts = embedded(comparison_page(sample()), "charts");
  ASSERT_TRUE(charts.contains("bytes-0") && charts.contains("decode-0") && charts.contains("bytes-1"));
  EXPECT_FALSE(charts.contains("train-0"));  // nobody's training was timed
  const json& points = charts["bytes-0"]["points"];
  ASSERT_EQ(points.size(), 3u);
  EXPECT_EQ(points[1], json({{"name", "half"},
                             {"label", "half"},
                             {"x", 60e6},
                             {"y", 39.0},
                             {"slot", points[1]["slot"]},
                             {"front", true}}));
  EXPECT_EQ(points[2]["front"], false);
  EXPECT_EQ(charts["bytes-0"]["less"], true);
  EXPECT_EQ(charts["decode-0"]["less"], false);
}

TEST(ComparisonPage, ShowsAccuraciesByTaskAndAgainstEachCost) {
  json rows = {with_accuracy(row("dense", 25, 90e6, 100), 0.625), with_accuracy(row("half", 39, 60e6, 140), 0.512)};
  rows[0].erase("perplexity");
  mark_fronts(rows);
  const std::string page = comparison_page({{"rows", rows}}), text = visible_text(page);
  for (const char* part : {"Accuracy against size (piqa (200 questions, 0 shots)): on the front are dense and half.",
                           "Accuracy of piqa (200 questions, 0 shots)", "0.512", "0.625"})
    EXPECT_TRUE(contains(text, part)) << part;
  const json charts = embedded(page, "charts");
  EXPECT_FALSE(charts.contains("bytes-0"));  // one row alone has a perplexity
  EXPECT_EQ(charts["accuracy-decode-0"]["quality"], "accuracy");
  EXPECT_EQ(charts["accuracy-bytes-0"]["points"][1]["y"], 0.512);
  EXPECT_FALSE(contains(text, "Without a perplexity"));
}

TEST(ComparisonPage, LabelsAPathByItsEnd) {
  const auto label_of = [](const std::string& name) {
    const json rows{row(name, 20, 1e6, 1), row("other", 30, 2e6, 1)};
    return embedded(comparison_page({{"rows", rows}}), "charts")["bytes-0"]["points"][0]["label"].get<std::string>();
  };
  EXPECT_EQ(label_of("/runs/ab/block-of-a-50"), "/runs/ab/block-of-a-50");
  EXPECT_EQ(label_of("/home/someone/runs/april/block-50/"), "…/runs/april/block-50");
  EXPECT_EQ(label_of("/home/someone/runs/apriles/block-50"), "…/apriles/block-50");
  EXPECT_EQ(label_of("/home/a-block-with-a-name-of-its-own"), "…/a-block-with-a-name-of-its-own");
  EXPECT_EQ(label_of("/a-block-with-a-name-of-its-own"), "/a-block-with-a-name-of-its-own");
  EXPECT_EQ(label_of("a-block-with-a-name-of-its-own"), "a-block-with-a-name-of-its-own");
  // page.js shortens the others, at the same length.
  EXPECT_TRUE(contains(comparison_page(sample()), " data-longest-label=\"22\""));
  EXPECT_TRUE(contains(std::string(asset::kPageJs), "dataset.longestLabel"));
}

TEST(ComparisonPage, EscapesHostileText) {
  const std::string attack = "</script><img src=x onerror=\"pwned=1\">'<!--<script>{{css}}";
  json comparison = sample();
  for (json& one : comparison["rows"]) {
    for (const char* key : {"name", "method", "text", "questions", "records", "kind"}) one[key] = attack;
    one["accuracy"] = 0.5;
    one["tasks"] = {{attack, {{"acc", 0.5}}}};
  }
  comparison["tool_version"] = comparison["machine"]["cpu"] = comparison["compute"] = attack;
  const std::string page = without_assets(comparison_page(comparison));
  EXPECT_FALSE(contains(page, "<img"));
  EXPECT_FALSE(contains(page, "<!--"));
  EXPECT_EQ(occurrences(page, "<script"), 4);
  EXPECT_EQ(unbalanced(page), "");
  EXPECT_EQ(embedded(page, "records"), comparison);
}

TEST(ComparisonPage, SurvivesWhatIsMissingOrOfAnotherType) {
  const json others = {json(), "text", -1e300, json::array(), json::object(), std::numeric_limits<double>::quiet_NaN()};
  json base = sample();
  base["rows"][0] = with_accuracy(base["rows"][0], 0.5);
  for (const json& other : others) {
    EXPECT_EQ(unbalanced(without_assets(comparison_page(other))), "");
    EXPECT_EQ(unbalanced(without_assets(comparison_page({{"rows", other}, {"machine", other}}))), "");
    for (const auto& [key, _] : base["rows"][0].items()) {
      json spoilt = base;
      for (json& one : spoilt["rows"]) one[key] = other;
      mark_fronts(spoilt["rows"]);
      EXPECT_EQ(unbalanced(without_assets(comparison_page(spoilt))), "") << key;
      EXPECT_FALSE(comparison_table(spoilt["rows"]).empty());
    }
    json run = sample_run();
    for (const auto& [key, _] : run.items()) {
      json spoilt = run;
      spoilt[key] = other;
      EXPECT_NO_THROW(rows_of_run(spoilt, "x")) << key;
    }
  }
  EXPECT_TRUE(contains(visible_text(comparison_page(json())), "Neither perplexity nor accuracy was measured."));
}

}  // namespace
}  // namespace brick::report
