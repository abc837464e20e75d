// Structured blocks in a federation: placement, H0-axis and the rules' invariants for mixed clients.
#include <gtest/gtest.h>

#include <algorithm>

#include "brick/base/error.h"
#include "brick/federate/check_update.h"
#include "federate/mixed.h"
#include "federate/objective.h"

namespace brick::federate {
namespace {

constexpr double kRounding = 3e-6;  // as in rules_test.cc
constexpr size_t kStructured = 2, kOther = 3, kBoth = 4, kNarrow = 5;

// The adapter that the rules see.
Adapter placed(const ClientUpdate& update) {
  Adapter out;
  out.config = update.config();
  out.layers.resize(static_cast<size_t>(update.layers()));
  for_each_target(update,
                  [&](int64_t layer, Proj proj, int64_t, int64_t) { out.at(layer, proj) = update.pair(layer, proj); });
  return out;
}

TEST(Placement, PutsWhatWasTakenWhereItWas) {
  const MixedFederation mixed(0.0);
  for (size_t k : {kStructured, kOther, kBoth, kNarrow}) {
    Adapter part = mixed.f.global->clone();
    model::for_each_pair(part, [&](int64_t layer, Proj proj, model::LoraPair& pair) {
      pair = mixed.placement(k).part(pair, layer, proj);
    });
    EXPECT_TRUE(same_bits(placed(mixed.f.updates[k]), part));
    EXPECT_GT(difference(part, *mixed.f.global), 0.1);
  }
  // tiny_cut(): no heads 0 and 1, no even neurons; no second layer.
  const Adapter back = placed(mixed.f.updates[kStructured]);
  const auto b = [&](const Adapter& adapter, int64_t layer, Proj proj, int64_t row) {
    return adapter.at(layer, proj).b.mat()(row, 0);
  };
  const auto a = [&](const Adapter& adapter, int64_t layer, Proj proj, int64_t col) {
    return adapter.at(layer, proj).a.mat()(0, col);
  };
  EXPECT_EQ(b(back, 0, Proj::kQ, 15), 0.0f);
  EXPECT_EQ(b(back, 0, Proj::kQ, 16), b(*mixed.f.global, 0, Proj::kQ, 16));
  EXPECT_EQ(a(back, 0, Proj::kO, 15), 0.0f);
  EXPECT_EQ(a(back, 0, Proj::kO, 16), a(*mixed.f.global, 0, Proj::kO, 16));
  EXPECT_EQ(b(back, 0, Proj::kV, 7), 0.0f);
  EXPECT_EQ(b(back, 0, Proj::kUp, 2), 0.0f);
  EXPECT_EQ(b(back, 0, Proj::kUp, 3), b(*mixed.f.global, 0, Proj::kUp, 3));
  EXPECT_EQ(a(back, 0, Proj::kDown, 3), a(*mixed.f.global, 0, Proj::kDown, 3));
  EXPECT_EQ(a(back, 1, Proj::kQ, 3), 0.0f);
  // tiny_narrow_cut(): the same without channels 0, 4, 8, …
  const Adapter narrow = placed(mixed.f.updates[kNarrow]);
  EXPECT_EQ(b(narrow, 0, Proj::kQ, 16), b(*mixed.f.global, 0, Proj::kQ, 16));
  EXPECT_EQ(a(narrow, 0, Proj::kQ, 4), 0.0f);
  EXPECT_EQ(a(narrow, 0, Proj::kQ, 5), a(*mixed.f.global, 0, Proj::kQ, 5));
  EXPECT_EQ(b(narrow, 2, Proj::kDown, 8), 0.0f);
  EXPECT_EQ(b(narrow, 2, Proj::kDown, 9), b(*mixed.f.global, 2, Proj::kDown, 9));
}

TEST(Placement, MasksKeepKeptRowsTimesKeptColumns) {
  const MixedFederation mixed(0.0);
  const std::vector<int64_t> own{0, -1, 1};
  for (size_t k : {kStructured, kBoth, kNarrow})
    for (int64_t layer = 0; layer < 3; ++layer)
      for (Proj proj : model::kProjs) {
        const MatrixShape shape = *mixed.f.updates[k].target(layer, proj);
        const auto& mask = mixed.f.updates[k].masks[static_cast<size_t>(layer)][static_cast<size_t>(proj)];
        const int64_t o = own[static_cast<size_t>(layer)];
        const model::Cut& cut = *mixed.block(k).block.cut;
        const auto place = [&](const std::optional<std::vector<int32_t>>& kept, int64_t i) -> int64_t {
          if (!kept) return i;
          const auto found = std::find(kept->begin(), kept->end(), i);
          return found == kept->end() ? -1 : found - kept->begin();
        };
        int64_t count = 0;
        for (int64_t r = 0; r < shape.rows; ++r)
          for (int64_t c = 0; c < shape.cols; ++c) {
            bool expected = o >= 0;
            if (expected) {
              const model::LayerCut& kept = cut.layers[static_cast<size_t>(o)];
              const int64_t row = place(kept_rows(cut, kept, proj), r), col = place(kept_cols(cut, kept, proj), c);
              const tensor::Matrix& weight = mixed.block(k).layers[static_cast<size_t>(o)][proj];
              expected = row >= 0 && col >= 0 && (!weight.is_sparse() || weight.sparse_view().mask.kept(row, col));
            }
            count += expected ? 1 : 0;
            ASSERT_EQ(!mask || mask->kept(r, c), expected) << layer << " " << name(proj) << " " << r << " " << c;
          }
        if (mask) {
          EXPECT_EQ(mask->count(), count);
        }
      }
}

TEST(Placement, RefusesBlocksOfOtherModels) {
  const model::Model block = model::slice(model::tiny_model({.layers = 3}), model::tiny_cut(), "f32");
  EXPECT_THROW(Placement(block, model::tiny_model({.layers = 2})), Error);
  EXPECT_THROW(Placement(block, model::tiny_model({.layers = 3, .ffn = 32})), Error);
  const model::Model smaller = model::tiny_model({.layers = 3, .hidden = 24});
  EXPECT_THROW(Placement(smaller, model::tiny_model({.layers = 3})), Error);
  // Channels of another stream.
  EXPECT_THROW(Placement(model::slice(smaller, channel_cut(smaller, {0, 1}), "f32"), model::tiny_model({.layers = 3})),
               Error);
  EXPECT_THROW(Placement(model::slice(block, channel_cut(block, {0, 1}), "f32"), smaller), Error);
  const Placement own(block, block);  // a federation of that block
  EXPECT_FALSE(own.structured());
  EXPECT_THROW(Placement(model::tiny_model({.layers = 3}), block), Error);
  EXPECT_THROW(Placement(model::slice(model::tiny_model({.layers = 3}), other_cut(), "f32"), block), Error);
}

TEST(MixedRules, UnchangedClientsChangeNothing) {
  for (bool unequal : {false, true}) {
    const MixedFederation mixed(0.0, unequal);
    for (const std::string& rule : structured_rules())
      EXPECT_LT(difference(mixed.f.run(rule), *mixed.f.global), kRounding) << rule << unequal;
  }
  const MixedFederation mixed(0.0);
  for (const char* rule : {"hete-h0", "hete-h0-axis"}) EXPECT_TRUE(same_bits(mixed.f.run(rule), *mixed.f.global));
  EXPECT_TRUE(same_bits(mixed.f.run("hete-h0", {.coverage = true}), *mixed.f.global));
}

// The same product in other factors: nothing cancels bit by bit.
TEST(MixedRules, TheSameProductInOtherFactorsChangesNothing) {
  MixedFederation mixed(0.0);
  for (Adapter& adapter : mixed.f.adapters) adapter = canonical(adapter);
  for (const char* rule : {"flexlora", "hete-h1", "hete-h2", "hete-tau"})
    EXPECT_LT(difference(mixed.f.run(rule), *mixed.f.global), kRounding) << rule;
}

TEST(MixedRules, NegativeControlOnePerturbedWeightShows) {
  for (size_t k : {kStructured, kBoth}) {
    MixedFederation mixed(0.0);
    mixed.f.adapters[k].at(1, Proj::kO).a.f32()[3] += 1.0f;
    for (const std::string& rule : structured_rules())
      EXPECT_GT(difference(mixed.f.run(rule), *mixed.f.global), 10 * kRounding) << rule;
  }
}

// What a client was sent is the block's part; the whole counts as a change of what it lacks.
TEST(MixedRules, NegativeControlTheWholeIsNotWhatWasSent) {
  MixedFederation mixed(0.0);
  std::deque<Adapter> whole;
  for (ClientUpdate& update : mixed.f.updates) {
    if (update.placement == nullptr) continue;
    update.adapter = &whole.emplace_back(placed(update));
    update.placement = nullptr;
  }
  for (const char* rule : {"flexlora", "hete-tau"})
    EXPECT_GT(difference(mixed.f.run(rule), *mixed.f.global), 1e-2) << rule;
}

TEST(MixedRules, OrderOfClientsChangesNoBit) {
  const MixedFederation mixed(0.03);
  for (const std::string& rule : structured_rules()) {
    const Adapter g = mixed.f.run(rule);
    std::vector<ClientUpdate> reversed(mixed.f.updates.rbegin(), mixed.f.updates.rend());
    AggregateConfig config;
    config.rule = rule;
    EXPECT_TRUE(same_bits(aggregate(&*mixed.f.global, reversed, config, 5), g)) << rule;
  }
}

TEST(MixedRules, TwoClientsOfHalfTheRecordsAreOne) {
  const MixedFederation mixed(0.03);
  for (size_t k : {kStructured, kBoth}) {
    std::vector<ClientUpdate> split = mixed.f.updates;
    split[k].records /= 2;
    split.push_back(split[k]);
    split.back().name += "b";
    for (const std::string& rule : structured_rules()) {
      AggregateConfig config;
      config.rule = rule;
      const Adapter one = mixed.f.run(rule), two = aggregate(&*mixed.f.global, split, config, 5);
      EXPECT_LT(difference(two, one), kRounding) << rule;
      split.back().records *= 2;
      EXPECT_GT(difference(aggregate(&*mixed.f.global, split, config, 5), one), 10 * kRounding) << rule;
      split.back().records /= 2;
    }
  }
}

// A structured client is a masked one whose factors are zero where its block lacks something.
TEST(MixedRules, AStructuredClientIsAMaskedOneWithZeros) {
  for (bool unequal : {false, true}) {
    const MixedFederation mixed(0.03, unequal);
    std::deque<Adapter> adapters, sent;
    std::deque<BlockMasks> masks;
    std::vector<ClientUpdate> updates = mixed.f.updates;
    for (size_t k : {kStructured, kOther, kBoth, kNarrow}) {
      ClientUpdate& update = updates[k];
      Adapter& part = sent.emplace_back(update.sent->clone());
      BlockMasks& own = masks.emplace_back();
      own.masks.resize(3);
      model::for_each_pair(part, [&](int64_t layer, Proj proj, model::LoraPair& pair) {
        pair = mixed.placement(k).part(pair, layer, proj);
        const auto l = static_cast<size_t>(layer), p = static_cast<size_t>(proj);
        const MatrixShape shape = *update.target(layer, proj);
        own.masks[l][p] = tensor::Mask(shape.rows, shape.cols);
        for (int64_t r = 0; r < shape.rows; ++r)
          for (int64_t c = 0; c < shape.cols; ++c)
            own.masks[l][p].set(r, c, !update.masks[l][p] || update.masks[l][p]->kept(r, c));
      });
      update.adapter = &adapters.emplace_back(placed(mixed.f.updates[k]));
      update.sent = &part;
      update.placement = nullptr;
      update.masks = own.views();
    }
    for (const char* rule : {"flexlora", "hete-h1", "hete-h2", "hete-tau"}) {
      AggregateConfig config;
      config.rule = rule;
      EXPECT_TRUE(same_bits(aggregate(&*mixed.f.global, updates, config, 5), mixed.f.run(rule))) << rule;
    }
  }
}

TEST(MixedRules, WhatNobodyHasStaysAsItWas) {
  MixedFederation mixed(0.03);
  mixed.f.updates = {mixed.f.updates[kStructured], mixed.f.updates[kBoth]};
  for (const std::string& rule : structured_rules()) {
    const Adapter g = mixed.f.run(rule);
    EXPECT_GT(difference(g, *mixed.f.global), 1e-2) << rule;
    for (Proj proj : model::kProjs) {  // neither has the second layer
      const auto after = product(g, 1, proj), before = product(*mixed.f.global, 1, proj);
      for (size_t i = 0; i < after.size(); ++i) ASSERT_NEAR(after[i], before[i], 1e-6) << rule;
    }
  }
  // In factors bit by bit; before the SVD entry by entry.
  const Adapter axis = mixed.f.run("hete-h0-axis"), h1 = mixed.f.run("hete-h1", {.rank = 32});
  const auto after = product(h1, 0, Proj::kUp), before = product(*mixed.f.global, 0, Proj::kUp);
  for (int64_t r = 0; r < 64; r += 2) {  // even neurons are gone
    for (int64_t i = 0; i < 4; ++i)
      EXPECT_EQ(axis.at(0, Proj::kUp).b.mat()(r, i), mixed.f.global->at(0, Proj::kUp).b.mat()(r, i));
    for (int64_t c = 0; c < 32; ++c)
      EXPECT_NEAR(after[static_cast<size_t>(r * 32 + c)], before[static_cast<size_t>(r * 32 + c)], 1e-6);
  }
}

TEST(MixedRules, BlocksThatHaveEverythingGiveThePlainRules) {
  MixedFederation mixed(0.03);
  Federation plain;
  plain.global = mixed.f.global->clone();
  mixed.f.updates.clear();
  for (int k = 0; k < 3; ++k) {
    ClientUpdate& update =
        mixed.add("k" + std::to_string(k), model::slice(mixed.parent, whole_cut(mixed.parent), "f32"), 0.03);
    ASSERT_NE(update.placement, nullptr);
    plain.add(update.name, update.adapter->clone(), 0.0, update.records);
  }
  EXPECT_LT(difference(mixed.f.run("hete-h0"), plain.run("fedit")), kRounding);
  EXPECT_LT(difference(mixed.f.run("hete-h0-axis"), plain.run("fedit")), kRounding);
  for (const char* rule : {"flexlora", "hete-h1", "hete-h2", "hete-tau"})
    EXPECT_TRUE(same_bits(mixed.f.run(rule), plain.run("flexlora"))) << rule;
  // Negative control: one neuron less.
  model::Cut cut = whole_cut(mixed.parent);
  cut.layers[1].neurons.pop_back();
  const ClientUpdate& less = mixed.add("less", model::slice(mixed.parent, cut, "f32"), 0.03);
  plain.add(less.name, placed(less), 0.0, less.records);
  EXPECT_GT(difference(mixed.f.run("hete-h0-axis"), plain.run("fedit")), 10 * kRounding);
  EXPECT_GT(difference(mixed.f.run("hete-h1"), plain.run("flexlora")), 10 * kRounding);
}

TEST(MixedRules, RankAndConfigurationAreTheGlobalAdapters) {
  const MixedFederation mixed(0.03);
  for (const std::string& rule : structured_rules())
    for (const Adapter* global : {mixed.f.global_or_null(), static_cast<const Adapter*>(nullptr)}) {
      std::vector<ClientUpdate> updates = mixed.f.updates;
      for (ClientUpdate& update : updates)
        if (global == nullptr) update.sent = nullptr;
      AggregateConfig config;
      config.rule = rule;
      const Adapter g = aggregate(global, updates, config, 5);
      EXPECT_EQ(g.config.rank, 4);
      EXPECT_TRUE(g.config.cut_hash.empty()) << rule;
      check_fits(g, mixed.parent);
    }
}

TEST(MixedRules, ObjectiveNeverRisesFromStepToStep) {
  const MixedFederation mixed(0.1);
  double last = std::numeric_limits<double>::infinity();
  for (int64_t steps = 0; steps < 6; ++steps) {
    const Adapter g = mixed.f.run("hete-tau", {.tau = 0.1, .em_iterations = steps});
    const double cost = masked_objective(mixed.f.global_or_null(), mixed.f.updates, {.tau = 0.1}, g);
    EXPECT_LE(cost, last * (1 + 1e-6)) << steps;
    last = cost;
  }
}

TEST(MixedRules, AveragesOfWholeFactorsRefuseStructuredClients) {
  const MixedFederation mixed(0.03);
  for (const char* rule : {"fedit", "zero-pad"}) {
    try {
      mixed.f.run(rule);
      FAIL() << rule;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kMismatch);
      EXPECT_NE(std::string(error.what()).find("structured"), std::string::npos) << error.what();
    }
  }
}

// The formula of H0-axis, written out.
TEST(HeteH0Axis, AveragesEachRowAndColumnOverThoseThatHaveIt) {
  const MixedFederation mixed(0.03);
  const Adapter g = mixed.f.run("hete-h0-axis");
  const std::vector<double> weights = client_weights(mixed.f.updates);
  for (int64_t layer = 0; layer < 3; ++layer)
    for (Proj proj : model::kProjs) {
      const model::LoraPair &before = mixed.f.global->at(layer, proj), &after = g.at(layer, proj);
      const MatrixShape shape{before.b.shape()[0], before.a.shape()[1]};
      // Client k's share of line `i`, of rows or of columns.
      const auto share = [&](size_t k, int64_t i, bool is_row) {
        const ClientUpdate& update = mixed.f.updates[k];
        const auto kept = [&](int64_t r, int64_t c) {
          if (update.masks.empty()) return true;
          const auto& mask = update.masks[static_cast<size_t>(layer)][static_cast<size_t>(proj)];
          return !mask || mask->kept(r, c);
        };
        int64_t count = 0, across = 0;
        for (int64_t j = 0; j < (is_row ? shape.cols : shape.rows); ++j) {
          count += (is_row ? kept(i, j) : kept(j, i)) ? 1 : 0;
          across += update.placement == nullptr ? 1
                    : is_row                    ? (update.placement->has_col(layer, proj, j) ? 1 : 0)
                                                : (update.placement->has_row(layer, proj, j) ? 1 : 0);
        }
        return across == 0 ? 0.0 : static_cast<double>(count) / static_cast<double>(across);
      };
      const auto expect = [&](const tensor::Tensor& from, const tensor::Tensor& to, bool is_b, int64_t r, int64_t c) {
        double moved = 0, covered = 0;
        for (size_t k = 0; k < mixed.f.updates.size(); ++k) {
          const model::LoraPair pair = mixed.f.updates[k].pair(layer, proj);
          const double x = (is_b ? pair.b : pair.a).mat()(r, c);
          const double w = weights[k] * share(k, is_b ? r : c, is_b);
          moved += w * (x - from.mat()(r, c));
          covered += w;
        }
        ASSERT_NEAR(to.mat()(r, c), from.mat()(r, c) + (covered > 0 ? moved / covered : 0), 1e-6) << name(proj);
      };
      for (int64_t i = 0; i < shape.rows; i += 5) expect(before.b, after.b, true, i, i % 4);
      for (int64_t i = 0; i < shape.cols; i += 5) expect(before.a, after.a, false, i % 4, i);
    }
}

class CheckStructured : public testing::Test {
 protected:
  MixedFederation mixed_{0.01};
  Reference reference_ = reference_of(mixed_.parent, &*mixed_.f.global);

  std::string reason(size_t k = kStructured) { return reject_reason(mixed_.f.updates[k], reference_).value_or(""); }
  void expect(const std::string& part, size_t k = kStructured) {
    EXPECT_NE(reason(k).find(part), std::string::npos) << "'" << reason(k) << "'";
  }
  Adapter& adapter() { return mixed_.f.adapters[kStructured]; }
};

TEST_F(CheckStructured, GoodOnesPassWithTheNormOfTheirOwnChange) {
  const Review all = review(mixed_.f.updates, reference_);
  EXPECT_EQ(all.accepted.size(), 6u);
  ClientUpdate own;  // in the block's coordinates
  own.adapter = &adapter();
  const Adapter sent = model::restricted(*mixed_.f.global, mixed_.block(kStructured));
  own.sent = &sent;
  EXPECT_NEAR(all.norms[kStructured], update_norm(own), 1e-9);
  EXPECT_GT(all.norms[kStructured], 0);
}

TEST_F(CheckStructured, AnotherCut) {
  adapter().config.cut_hash = "another";
  expect("another structured block");
  adapter().config.cut_hash.clear();  // a PEFT adapter that does not say
  EXPECT_EQ(reason(), "");
  mixed_.f.adapters[0].config.cut_hash = mixed_.placement(kStructured).cut_hash();
  expect("(cut ", 0);
  expect("instead of none", 0);
}

TEST_F(CheckStructured, ShapesAreTheBlocks) {
  const model::LoraPair& up = mixed_.f.global->at(0, Proj::kUp);
  adapter().at(0, Proj::kUp) = {up.a.clone(), up.b.clone()};  // the parent's
  expect("model.layers.0.mlp.up_proj.lora_B.weight is f32 [64, 4], expected f32 [32, 4]");
  adapter() = mixed_.f.global->clone();
  expect("its adapter has 3 layers, the block 2");
  adapter() = zero_adapter(4, 8, {}, 2);
  expect("is missing");
}

TEST_F(CheckStructured, ABlockOfAnotherDepth) {
  reference_.weights.pop_back();
  reference_.targets.pop_back();
  expect("its block was cut from 3 layers, the model has 2");
}

}  // namespace
}  // namespace brick::federate
