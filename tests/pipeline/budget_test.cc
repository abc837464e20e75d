#include "brick/pipeline/budget.h"

#include <gtest/gtest.h>

#include <cmath>

#include "brick/data/windows.h"
#include "brick/model/save.h"
#include "brick/pipeline/artifacts.h"
#include "brick/prune/registry.h"
#include "brick/prune/structured.h"
#include "model/expect_error.h"
#include "model/tiny_model.h"

namespace brick::pipeline {
namespace {

using model::expect_error;

constexpr double kHalfHead = 24576;  // linear weights of half a key/value head with its query heads, in parent()

// Large enough for its weights to outweigh what a block's folder has beside them.
model::Model parent(tensor::DType dtype = tensor::DType::kF32) {
  return model::tiny_model({.layers = 2,
                            .hidden = 256,
                            .heads = 8,
                            .kv_heads = 4,
                            .head_dim = 32,
                            .ffn = 512,
                            .vocab = 128,
                            .context = 64,
                            .dtype = dtype,
                            .tokenizer = true});
}

prune::PruneConfig config_of(const std::string& method, double sparsity, const std::string& values = "bf16",
                             const std::string& pattern = "unstructured") {
  prune::PruneConfig config;
  config.method = method;
  config.sparsity = sparsity;
  config.values = values;
  config.pattern = pattern;
  return config;
}

// A structured method, without the protected layers that two layers do not allow, and in steps of a small model's size.
prune::PruneConfig cutting(const std::string& method, double sparsity, const std::string& values = "bf16") {
  prune::PruneConfig config = config_of(method, sparsity, values);
  config.protect_first = config.protect_last = 0;
  config.width_multiple = values == "q4" ? 32 : 4;
  return config;
}

model::Model pruned(const model::Model& model, const prune::PruneConfig& config) {
  std::vector<int32_t> ids;
  Rng rng(1, stream_id({0x75}));
  for (int i = 0; i < 16 * 64; ++i) ids.push_back(static_cast<int32_t>(rng.below(128)));
  kernels::Context context(kernels::Compute::kF32);
  return prune::prune(model, data::consecutive_windows(ids, 64, 16), config, context, silent_sink());
}

int64_t saved_bytes(const model::Model& block) {
  const TempFolder folder;
  model::save_block(block, folder.folder("block"));
  return bytes_on_disk(folder.path() / "block");
}

TEST(Target, IsReadInEachForm) {
  const auto is = [](const char* text, Target::Kind kind, double amount) {
    const Target target = parse_target(text);
    EXPECT_EQ(target.kind, kind) << text;
    EXPECT_DOUBLE_EQ(target.amount, amount) << text;
    EXPECT_EQ(target.text, text);
  };
  is("40 MB", Target::Kind::kBytes, 40e6);
  is("1.5GB", Target::Kind::kBytes, 1.5e9);
  is("500 kB", Target::Kind::kBytes, 500e3);
  is("2 MiB", Target::Kind::kBytes, 2097152);
  is("2x decode", Target::Kind::kDecode, 2);
  is("1.25 x decode", Target::Kind::kDecode, 1.25);
  is("60% parameters", Target::Kind::kParameters, 0.6);
  is(" 60 % parameters ", Target::Kind::kParameters, 0.6);
}

TEST(Target, OthersAreRefusedWithTheForms) {
  for (const char* text : {"", "40", "MB", "40 mb", "-1 MB", "0 MB", "nan MB", "inf MB", "2x", "2x train", "60%",
                           "60% bytes", "40 MB decode", "4 0 MB", "1e999 MB", "x decode"})
    expect_error(ErrorCode::kInvalidInput, "\"40 MB\", \"2x decode\" or \"60% parameters\"",
                 [&] { parse_target(text); });
}

// What prediction is for: known before minutes of pruning, true after them.
TEST(PredictedBytes, AreWithinOnePercentOfTheFolder) {
  constexpr double kPromised = 0.01;
  // Of weights: what a structured method may take too much where a head goes at last.
  const auto slack = [](const prune::PruneConfig& config) {
    return config.method == "flap" || config.global_ranking ? kHalfHead : 0;
  };
  for (const tensor::DType dtype : {tensor::DType::kF32, tensor::DType::kQ4_1}) {
    const model::Model model = parent(dtype);
    std::vector<prune::PruneConfig> configs;
    for (const prune::Method& method : prune::methods())
      for (const double sparsity : {0.0, 0.3, 0.5, 0.85}) {
        if ((method.name == "alps" || method.prune_layer != nullptr) && sparsity != 0.5) continue;  // takes long
        configs.push_back(config_of(std::string(method.name), sparsity));
        if (method.even_rows) configs.push_back(config_of(std::string(method.name), sparsity, "q4"));
        if (method.keeps_values) configs.push_back(config_of(std::string(method.name), sparsity, "keep"));
      }
    configs.push_back(config_of("owl+wanda", 0.5, "f32"));
    configs.push_back(config_of("magnitude", 0.5, "q4", "2:4"));
    configs.push_back(config_of("sparsegpt", 0.25, "bf16", "2:8"));
    for (const prune::StructuredMethod& method : prune::structured_methods())
      for (const double sparsity : {0.25, 0.5, 0.85}) {
        if (method.expect == nullptr) continue;
        configs.push_back(cutting(std::string(method.name), sparsity));
        if (sparsity == 0.5) configs.push_back(cutting(std::string(method.name), sparsity, "q4"));
      }
    configs.push_back(cutting("llm-pruner", 0.4));
    configs.back().global_ranking = true;
    configs.push_back(cutting("llm-pruner", 0.4));
    configs.back().mode = "layer";
    for (const prune::PruneConfig& config : configs) {
      const model::Model block = pruned(model, config);
      const auto bytes = static_cast<double>(saved_bytes(block));
      EXPECT_NEAR(static_cast<double>(predicted_bytes(model, config)), bytes, kPromised * bytes + 2 * slack(config))
          << config.method << " " << config.sparsity << " " << config.values << " " << config.pattern;
      const auto kept = static_cast<double>(block.nonzeros());
      EXPECT_NEAR(static_cast<double>(predicted_nonzeros(model, config)), kept, kPromised * kept + slack(config))
          << config.method;
    }
  }
}

// Negative control: one step of sparsity more than ten apart is beyond the tolerance.
TEST(PredictedBytes, FollowTheSparsity) {
  const model::Model model = parent();
  const auto at = [&](double sparsity) {
    return static_cast<double>(predicted_bytes(model, config_of("wanda", sparsity)));
  };
  EXPECT_GT(at(0.5), 1.01 * at(0.53));
  EXPECT_GT(at(0.0), at(0.25));
}

TEST(ChooseSparsity, IsTheLeastThatFits) {
  const model::Model model = parent();
  const auto size = static_cast<double>(predicted_bytes(model, config_of("wanda", 0.4)));
  const Target target{Target::Kind::kBytes, size, "so many"};
  const Choice choice = choose_sparsity(target, model, config_of("wanda", 0), true, nullptr);
  EXPECT_EQ(choice.values, "bf16");
  EXPECT_LE(choice.sparsity, 0.4);
  EXPECT_LE(static_cast<double>(choice.bytes), size);
  const auto before = predicted_bytes(model, config_of("wanda", choice.sparsity - 0.005));  // floor(256 s) has steps
  EXPECT_GT(static_cast<double>(before), size);
  EXPECT_NE(choice.reason.find("target so many: sparsity"), std::string::npos) << choice.reason;
}

TEST(ChooseSparsity, LeavesAModelThatFitsAlone) {
  const Choice choice = choose_sparsity(parse_target("1 GB"), parent(), config_of("wanda", 0), true, nullptr);
  EXPECT_EQ(choice.sparsity, 0);
  EXPECT_NE(choice.reason.find("the model as it is"), std::string::npos);
}

TEST(ChooseSparsity, TakesSmallerValuesOnlyWhereItHasTo) {
  const model::Model model = parent();
  const auto least = static_cast<double>(predicted_bytes(model, config_of("wanda", 0.95)));
  const auto with_q4 = static_cast<double>(predicted_bytes(model, config_of("wanda", 0.95, "q4")));
  ASSERT_LT(with_q4, least);
  const Target target{Target::Kind::kBytes, (least + with_q4) / 2, "between"};
  EXPECT_EQ(choose_sparsity(target, model, config_of("wanda", 0), true, nullptr).values, "q4");
  expect_error(ErrorCode::kInvalidInput, "the nearest is",
               [&] { choose_sparsity(target, model, config_of("wanda", 0), false, nullptr); });
}

TEST(ChooseSparsity, NamesTheNearestThatCanBeReached) {
  const model::Model model = parent();
  expect_error(ErrorCode::kInvalidInput, "with q4 values",
               [&] { choose_sparsity(parse_target("1 kB"), model, config_of("wanda", 0), true, nullptr); });
  expect_error(ErrorCode::kInvalidInput, "of the parameters, sparsity 0.95 with bf16 values",
               [&] { choose_sparsity(parse_target("1% parameters"), model, config_of("wanda", 0), true, nullptr); });
  expect_error(ErrorCode::kInvalidInput, "sparsity 0.5 with bf16", [&] {  // of 2:4 there is one sparsity only
    choose_sparsity(parse_target("30% parameters"), model, config_of("wanda", 0, "bf16", "2:4"), true, nullptr);
  });
}

TEST(ChooseSparsity, CutsStructuresToAShareOfTheParameters) {
  const model::Model model = parent();
  const Choice choice = choose_sparsity(parse_target("60% parameters"), model, cutting("flap", 0), true, nullptr);
  const model::Model block = pruned(model, cutting("flap", choice.sparsity));
  const auto left = static_cast<double>(block.parameters()), all = static_cast<double>(model.parameters());
  EXPECT_LE(left, 0.606 * all);
  EXPECT_GT(left, 0.59 * all - kHalfHead);
  EXPECT_NEAR(static_cast<double>(choice.nonzeros), left, 0.01 * left + kHalfHead);
  expect_error(ErrorCode::kInvalidInput, "out of reach by shortgpt; the nearest is",
               [&] { choose_sparsity(parse_target("20% parameters"), model, cutting("shortgpt", 0), true, nullptr); });
}

// The mask alone takes a bit a weight.
TEST(ChooseSparsity, NamesTheStructuredMethodWhereMasksAreTooLarge) {
  const model::Model model = parent();
  const auto size = static_cast<double>(predicted_bytes(model, cutting("flap", 0.94)));
  const Target target{Target::Kind::kBytes, size, "so many"};
  expect_error(ErrorCode::kInvalidInput, "; flap reaches it at sparsity 0.9",
               [&] { choose_sparsity(target, model, cutting("magnitude", 0), false, nullptr); });
  EXPECT_NO_THROW(choose_sparsity(target, model, cutting("flap", 0), false, nullptr));
}

TEST(ChooseSparsity, RefusesWhatCannotBePredicted) {
  const model::Model model = parent();
  expect_error(ErrorCode::kUnsupported, "slicegpt has no targets", [&] {
    choose_sparsity(parse_target("60% parameters"), model, config_of("slicegpt", 0), true, nullptr);
  });
  prune::PruneConfig channels = config_of("llm-pruner", 0);
  channels.mode = "channel";
  expect_error(ErrorCode::kUnsupported, "narrows the residual stream",
               [&] { choose_sparsity(parse_target("60% parameters"), model, channels, true, nullptr); });
  expect_error(ErrorCode::kUnsupported, "flap by --sparsity and its block by the target", [&] {
    choose_sparsity(parse_target("60% parameters"), model, config_of("flap+wanda", 0), true, nullptr);
  });
}

TEST(ChooseSparsity, CutsStructuresToASize) {
  const model::Model model = parent();
  for (const char* method : {"flap", "llm-pruner", "shortgpt"}) {
    const auto size = static_cast<double>(predicted_bytes(model, cutting(method, 0.5)));
    const Choice choice =
        choose_sparsity({Target::Kind::kBytes, size, "so many"}, model, cutting(method, 0), true, nullptr);
    EXPECT_LE(choice.sparsity, 0.5);
    EXPECT_LE(static_cast<double>(saved_bytes(pruned(model, cutting(method, choice.sparsity)))), 1.01 * size) << method;
  }
}

TEST(ChooseSparsity, NamesThePatternThatIsFastEnough) {
  const model::Model model = parent();
  DecodeProfile profile;
  profile.dense_tokens_per_second = 100;
  profile.points = {{"bf16", 0.25, 50},
                    {"bf16", 0.75, 150},
                    {"bf16", 0.5, 180, "2:4"},
                    {"bf16", 0.25, 120, "structured"},
                    {"bf16", 0.75, 400, "structured"}};
  const auto choose = [&](const char* target, const prune::PruneConfig& config) {
    return choose_sparsity(parse_target(target), model, config, false, &profile);
  };
  EXPECT_DOUBLE_EQ(*choose("1.7x decode", config_of("wanda", 0, "bf16", "2:4")).speedup, 1.8);
  // 1 / 120 (1 - t) + 1 / 400 t = 1 / 200, s = 0.25 + t / 2
  EXPECT_NEAR(choose("2x decode", cutting("flap", 0)).sparsity, 0.25 + (1 / 120.0 - 0.005) / (1 / 120.0 - 0.0025) / 2,
              1e-3);
  const auto refused = [&](const char* target, const prune::PruneConfig& config, const char* part) {
    expect_error(ErrorCode::kInvalidInput, part, [&] { choose(target, config); });
  };
  // Below 0.25 nothing was measured.
  EXPECT_NE(choose("1.1x decode", cutting("flap", 0)).reason.find("the least measured that reaches it"),
            std::string::npos);
  EXPECT_EQ(choose("2x decode", cutting("flap", 0)).reason.find("measured"), std::string::npos);
  refused("1.7x decode", config_of("wanda", 0),
          "; 2:4 blocks reach it at sparsity 0.5 with bf16 values: --pattern 2:4");
  refused("3x decode", config_of("wanda", 0), "; structured blocks reach it at sparsity 0.6");
  refused("3x decode", config_of("wanda", 0), "--method llm-pruner");
  refused("5x decode", config_of("wanda", 0), "sparsity 0.75 with bf16 values");
  profile.points.pop_back();
  profile.points.pop_back();
  refused("1.7x decode", cutting("flap", 0), "no structured blocks with bf16 values");
}

// Unstructured blocks reach s = 0.25 + t / 2 at 0.02 (1 - t) + t / 150 seconds a token.
DecodeProfile profile_with_groups() {
  DecodeProfile profile;
  profile.dense_tokens_per_second = 100;
  profile.points = {{"bf16", 0.25, 50}, {"bf16", 0.75, 150}, {"bf16", 0.5, 180, "2:4"}};
  return profile;
}

TEST(ChooseSparsity, TakesThePatternOfTheLeastSparsity) {
  const model::Model model = parent();
  DecodeProfile profile = profile_with_groups();
  const auto choose = [&](const char* target, const std::string& method = "wanda", bool values_free = false) {
    return choose_sparsity(parse_target(target), model, config_of(method, 0, "bf16", kAutoPattern), values_free,
                           &profile);
  };
  const auto says = [](const Choice& choice, const char* part) {
    EXPECT_NE(choice.reason.find(part), std::string::npos) << choice.reason;
  };
  const Choice groups = choose("1.2x decode");  // t = 0.875
  EXPECT_EQ(groups.pattern, "2:4");
  EXPECT_EQ(groups.sparsity, 0.5);
  says(groups, "2:4, sparsity 0.5 with bf16 values, 1.80 times");
  says(groups, "(unstructured: 0.688)");
  says(choose("1.7x decode"), "(unstructured: out of reach)");
  EXPECT_EQ(choose("1x decode").pattern, "unstructured");  // the model as it is
  EXPECT_EQ(choose("1x decode").sparsity, 0);
  expect_error(ErrorCode::kInvalidInput, "sparsity 0.75", [&] { choose("1.7x decode", "owl+wanda"); });
  expect_error(ErrorCode::kInvalidInput, "2:4, sparsity 0.5 with bf16", [&] { choose("2x decode"); });

  profile.points[1].sparsity = 0.35;
  const Choice free = choose("1.2x decode");
  EXPECT_EQ(free.pattern, "unstructured");
  EXPECT_LT(free.sparsity, 0.35);
  says(free, "(2:4: 0.5)");
  profile.points = {{"bf16", 0.5, 180}, {"bf16", 0.5, 180, "2:4"}, {"q4", 0.5, 300}, {"q4", 0.5, 290, "2:4"}};
  EXPECT_EQ(choose("1.7x decode").pattern, "unstructured");  // of the same sparsity
  EXPECT_EQ(choose("1.7x decode", "wanda", true).values, "bf16");
  EXPECT_EQ(choose("2.8x decode", "wanda", true).values, "q4");
}

TEST(ChooseSparsity, OfPatternsIsNoMoreThanOfEach) {
  const model::Model model = parent();
  const auto of_groups = static_cast<double>(predicted_bytes(model, config_of("magnitude", 0.5, "bf16", "2:4")));
  for (const Target& target :
       {Target{Target::Kind::kBytes, of_groups, "as 2:4"}, Target{Target::Kind::kBytes, 1.5 * of_groups, "more"},
        parse_target("60% parameters"), parse_target("90% parameters")}) {
    const auto choose = [&](const std::string& pattern) {
      return choose_sparsity(target, model, config_of("magnitude", 0, "bf16", pattern), false, nullptr);
    };
    const Choice any = choose(kAutoPattern), free = choose("unstructured"), groups = choose("2:4");
    EXPECT_EQ(any.sparsity, std::min(free.sparsity, groups.sparsity));
    EXPECT_EQ(any.bytes, (groups.sparsity < free.sparsity ? groups : free).bytes);
  }
}

TEST(ChooseSparsity, TakesNoPatternThatTheModelOrTheMethodHasNot) {
  const DecodeProfile profile = profile_with_groups();
  const model::Model odd = model::tiny_model({.ffn = 66});
  expect_error(ErrorCode::kInvalidInput, "unstructured, sparsity 0.75", [&] {
    choose_sparsity(parse_target("1.7x decode"), odd, config_of("wanda", 0, "bf16", kAutoPattern), false, &profile);
  });
  prune::PruneConfig config = cutting("flap", 0);
  config.pattern = kAutoPattern;
  expect_error(ErrorCode::kInvalidInput, "leave --pattern out",
               [&] { choose_sparsity(parse_target("60% parameters"), parent(), config, false, nullptr); });
}

TEST(ChooseSparsity, KeepsAShareOfTheParameters) {
  const model::Model model = parent();
  const Choice choice =
      choose_sparsity(parse_target("60% parameters"), model, config_of("magnitude", 0), true, nullptr);
  const double share = static_cast<double>(choice.nonzeros) / static_cast<double>(model.parameters());
  EXPECT_LE(share, 0.6);
  EXPECT_GT(share, 0.595);
  const model::Model block = pruned(model, config_of("magnitude", choice.sparsity));
  EXPECT_NEAR(static_cast<double>(block.nonzeros()) / static_cast<double>(model.parameters()), 0.6, 0.006);
}

TEST(ChooseSparsity, ReadsSpeedsFromTheProfile) {
  const model::Model model = parent();
  DecodeProfile profile;
  profile.dense_tokens_per_second = 100;
  profile.points = {{"bf16", 0.25, 50}, {"bf16", 0.75, 200}, {"q4", 0.25, 100}, {"q4", 0.75, 300}};
  const auto choose = [&](const char* target, bool values_free = true) {
    return choose_sparsity(parse_target(target), model, config_of("wanda", 0), values_free, &profile);
  };
  const Choice at_par = choose("1x decode");
  EXPECT_EQ(at_par.sparsity, 0);                // as it is
  const Choice faster = choose("1.5x decode");  // 0.02 (1 - t) + 0.005 t = 1 / 150, s = 0.25 + t / 2
  EXPECT_NEAR(faster.sparsity, 0.25 + (0.02 - 1 / 150.0) / 0.015 / 2, 1e-3);
  EXPECT_GE(*faster.speedup, 1.5);
  EXPECT_EQ(faster.values, "bf16");
  EXPECT_EQ(choose("2.5x decode").values, "q4");
  expect_error(ErrorCode::kInvalidInput, "3.00 times the model's decoding speed, sparsity 0.75 with q4 values",
               [&] { choose("4x decode"); });
  expect_error(ErrorCode::kInvalidInput, "2.00 times", [&] { choose("2.5x decode", false); });
  profile.points.clear();
  expect_error(ErrorCode::kInvalidInput, "no unstructured blocks with bf16 values", [&] { choose("1.5x decode"); });
}

}  // namespace
}  // namespace brick::pipeline
