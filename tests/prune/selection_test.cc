#include "brick/prune/selection.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <tuple>

#include "brick/base/error.h"
#include "brick/prune/registry.h"
#include "brick/prune/structured.h"
#include "problems.h"

namespace brick::prune {
namespace {

template <class Call>
std::string message_of(Call&& call, ErrorCode code) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

TEST(Pattern, ReadsAndPrints) {
  EXPECT_TRUE(parse_pattern("unstructured").unstructured());
  EXPECT_EQ(parse_pattern("2:4"), (Pattern{2, 4}));
  EXPECT_EQ(name(parse_pattern("4:8")), "4:8");
  EXPECT_EQ(name(Pattern{}), "unstructured");
  EXPECT_DOUBLE_EQ(parse_pattern("1:4").sparsity(), 0.25);
}

TEST(Pattern, RefusesNonsense) {
  for (const char* text :
       {"", "2", "2:", ":4", "4:4", "0:4", "5:4", "-1:4", "2:4x", " 2:4", "2:128", "99999999999999999999:4"})
    EXPECT_NE(message_of([&] { parse_pattern(text); }, ErrorCode::kInvalidInput).find("n:m"), std::string::npos)
        << text;
}

TEST(KthSmallest, AgreesWithSorting) {
  Rng rng(3);
  std::vector<float> scores;
  for (int i = 0; i < 3000; ++i)
    scores.push_back(static_cast<float>(std::fabs(rng.normal()) * std::exp(8 * rng.normal())));
  for (int i = 0; i < 300; ++i) scores.push_back(scores[static_cast<size_t>(i)]);
  scores.insert(scores.end(), {0.0f, -0.0f, 1e-42f, std::numeric_limits<float>::infinity()});
  std::vector<float> sorted = scores;
  std::sort(sorted.begin(), sorted.end());
  for (const size_t k :
       {size_t{0}, size_t{1}, size_t{2}, size_t{100}, sorted.size() / 2, sorted.size() - 2, sorted.size() - 1})
    EXPECT_EQ(kth_smallest(scores, static_cast<int64_t>(k)), sorted[k]) << k;
}

TEST(DropLowest, TiesGoToTheLowerIndex) {
  tensor::Mask mask = all_kept(1, 6);
  drop_lowest(std::vector<float>{2, 1, 1, 3, 1, 1}, 3, 0, mask);
  EXPECT_EQ(row_of(mask, 0), "100101");
  drop_lowest(std::vector<float>{2, 1, 1, 3, 1, 1}, 0, 0, mask);
  EXPECT_EQ(row_of(mask, 0), "100101");
}

TEST(DropUpTo, AnyColumnsOfARow) {
  Rng rng(4);
  std::vector<float> scores(150);
  for (float& score : scores) score = static_cast<float>(rng.below(5));
  for (const auto& [first, count] : {std::pair{0, 150}, {0, 64}, {16, 16}, {60, 8}, {63, 66}, {149, 1}}) {
    tensor::Mask mask = all_kept(2, 150);
    drop_up_to(std::span<const float>(scores).subspan(static_cast<size_t>(first), static_cast<size_t>(count)), 2.0f, 1,
               first, mask);
    for (int64_t c = 0; c < 150; ++c) {
      EXPECT_TRUE(mask.kept(0, c));
      EXPECT_EQ(mask.kept(1, c), c < first || c >= first + count || scores[static_cast<size_t>(c)] > 2.0f);
    }
  }
}

TEST(DropLowest, GroupsAreCutOneByOne) {
  tensor::Mask mask = all_kept(1, 8);
  drop_lowest_of_groups(std::vector<float>{9, 8, 7, 6, 1, 1, 1, 1}, {2, 4}, 0, mask);
  EXPECT_EQ(row_of(mask, 0), "11000011");
}

TEST(KeepHighest, WhatEqualsTheLastThatGoesGoesToo) {
  const std::vector<float> scores{3, 1, 2, 2, 5, 2};
  for (const auto& [dropped, first, second] : {std::tuple{0, "111", "111"}, {1, "101", "111"}, {2, "100", "010"}}) {
    const tensor::Mask mask = keep_highest(scores, 2, 3, {}, dropped);
    EXPECT_EQ(row_of(mask, 0), first) << dropped;
    EXPECT_EQ(row_of(mask, 1), second) << dropped;
  }
  EXPECT_EQ(row_of(keep_highest(scores, 2, 3, {1, 3}, 0), 0), "101");
}

TEST(AllKept, LeavesThePaddingZero) {
  const tensor::Mask mask = all_kept(3, 70);
  EXPECT_EQ(mask.view().count(), 210);
  EXPECT_EQ(mask.view().row(1)[1], 0x3fu);
  EXPECT_EQ(all_kept(2, 64).view().count(), 128);
}

TEST(ShareOf, CountsAsPythonDoes) {
  EXPECT_EQ(share_of(576, 0.75), 432);
  EXPECT_EQ(share_of(7, 0.5), 3);
  EXPECT_EQ(share_of(100, 0.29), 28);  // int(100 * 0.29) == 28 in Python
}

TEST(Registry, ReadsCompositeNames) {
  const Recipe all = parse_recipe("owl+sparsegpt+reconstruct");
  EXPECT_TRUE(all.owl && all.reconstruct);
  EXPECT_EQ(all.method->name, "sparsegpt");
  EXPECT_EQ(all.needs(), Needs::kHessian);
  const Recipe repaired = parse_recipe("magnitude+reconstruct");
  EXPECT_FALSE(repaired.owl);
  EXPECT_TRUE(repaired.needs_calibration());
  EXPECT_FALSE(repaired.keeps_values());
  EXPECT_TRUE(parse_recipe("owl+wanda").keeps_values());
  EXPECT_TRUE(parse_recipe("owl+magnitude").needs_calibration());
  const Recipe mixed = parse_recipe("llm-pruner+owl+wanda+++reconstruct");
  EXPECT_TRUE(mixed.mixed() && mixed.owl && mixed.reconstruct);
  EXPECT_EQ(mixed.structured->name, "llm-pruner");
  EXPECT_EQ(mixed.method->name, "wanda++");
  EXPECT_FALSE(parse_recipe("flap").mixed());
  EXPECT_FALSE(all.mixed());
  for (const char* wrong : {"", "owl+", "+reconstruct", "owl+reconstruct", "wanda+owl", "reconstruct+wanda",
                            "owl+owl+wanda", "wanda+reconstruct+reconstruct", "wanda+", "Wanda", "flap+", "flapwanda",
                            "flap+flap", "owl+flap", "flap+reconstruct", "owl+flap+wanda", "wanda+flap"})
    message_of([&] { parse_recipe(wrong); }, ErrorCode::kUnsupported);
}

TEST(Registry, NamesItsMethodsAndRefusesOthers) {
  EXPECT_FALSE(parse_recipe("magnitude").needs_calibration());
  EXPECT_TRUE(parse_recipe("wanda").needs_calibration());
  EXPECT_TRUE(parse_recipe("wanda").keeps_values());
  EXPECT_FALSE(parse_recipe("sparsegpt").keeps_values());
  const std::string message = message_of([] { parse_recipe("lps"); }, ErrorCode::kUnsupported);
  for (const Method& method : methods()) {
    EXPECT_NE(message.find(method.name), std::string::npos);
    EXPECT_FALSE(method.description.empty());
  }
}

}  // namespace
}  // namespace brick::prune
