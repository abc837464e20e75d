#include <gtest/gtest.h>

#include "brick/base/error.h"
#include "brick/federate/redistribute.h"
#include "brick/federate/rules.h"
#include "federate/rounds.h"

namespace brick::federate {
namespace {

constexpr double kRounding = 3e-6;

// Clients of ranks 2, 4, 8 and 12 that were sent truncations of a global adapter of rank 8.
Federation four_ranks(double deviation, bool sparse) {
  Federation f;
  f.global = random_adapter(8, 16, 1);
  const std::vector<int64_t> ranks{2, 4, 8, 12};
  for (Adapter& sent : redistribute(*f.global, ranks)) f.sent.push_back(std::move(sent));
  for (size_t k = 0; k < ranks.size(); ++k)
    f.add("client" + std::to_string(k), disturbed(f.sent[k], deviation, 20 + k),
          sparse ? 0.25 * static_cast<double>(k) : 0, 5)
        .sent = &f.sent[k];
  return f;
}

TEST(UnequalRanks, FeditNamesTheClient) {
  try {
    four_ranks(0.01, false).run("fedit");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kMismatch);
    EXPECT_NE(std::string(error.what()).find("client1"), std::string::npos) << error.what();
  }
}

TEST(UnequalRanks, UnchangedClientsChangeNothing) {
  for (bool sparse : {false, true}) {
    const Federation f = four_ranks(0.0, sparse);
    for (const char* rule : {"flexlora", "hete-h0", "hete-h1", "hete-h2", "hete-tau"}) {
      const Adapter g = f.run(rule);
      EXPECT_LT(difference(g, *f.global), kRounding) << rule;
      EXPECT_EQ(g.config.rank, 12);
    }
  }
}

TEST(UnequalRanks, NegativeControlForgettingWhatWasSentShows) {
  Federation f = four_ranks(0.0, false);
  const Adapter nothing = zero_adapter(2, 4);
  f.updates[0].sent = &nothing;
  for (const char* rule : {"flexlora", "hete-h1", "hete-h2", "hete-tau"})
    EXPECT_GT(difference(f.run(rule), *f.global), 0.01) << rule;
}

// With room for every direction the result is P_g + sum w_k (P_k - P_g^(k)).
TEST(UnequalRanks, ContributionsAreDifferencesToWhatWasSent) {
  const Federation f = four_ranks(0.02, false);
  const Adapter g = f.run("flexlora", {.rank = 60});
  for (const Target& target : targets()) {
    const auto result = product(g, 1, target.proj);
    auto expected = product(*f.global, 1, target.proj);
    for (size_t k = 0; k < 4; ++k) {
      const auto trained = product(f.adapters[k], 1, target.proj), sent = product(f.sent[k], 1, target.proj);
      for (size_t i = 0; i < expected.size(); ++i) expected[i] += 0.25 * (trained[i] - sent[i]);
    }
    for (size_t i = 0; i < expected.size(); ++i) ASSERT_NEAR(result[i], expected[i], 1e-5);
  }
}

TEST(UnequalRanks, HeteH0AddsFactorUpdatesToTheCommonStart) {
  const Federation f = four_ranks(0.02, false);
  const Adapter g = f.run("hete-h0"), start = truncate(canonical(*f.global), 12);
  Adapter expected = start.clone();
  model::for_each_pair(expected, [&](int64_t layer, Proj proj, model::LoraPair& pair) {
    for (size_t k = 0; k < 4; ++k) {
      const model::LoraPair &trained = f.adapters[k].at(layer, proj), &sent = f.sent[k].at(layer, proj);
      for (int64_t i = 0; i < trained.a.shape()[0]; ++i) {
        for (int64_t c = 0; c < pair.a.shape()[1]; ++c)
          pair.a.mat()(i, c) += 0.25f * (trained.a.mat()(i, c) - sent.a.mat()(i, c));
        for (int64_t r = 0; r < pair.b.shape()[0]; ++r)
          pair.b.mat()(r, i) += 0.25f * (trained.b.mat()(r, i) - sent.b.mat()(r, i));
      }
    }
  });
  EXPECT_LT(difference(g, expected), kRounding);
}

// Free directions of the truncations come from their maker's seed, not from this round's.
TEST(UnequalRanks, HeteH0TakesFreeDirectionsAsTheyWereSent) {
  Federation f;
  f.global = random_adapter(8, 16, 1);
  model::for_each_pair(*f.global, [](int64_t, Proj, model::LoraPair& pair) {
    for (int64_t r = 0; r < pair.b.shape()[0]; ++r)
      for (int64_t i = 3; i < 8; ++i) pair.b.mat()(r, i) = pair.b.mat()(r, i % 3);
  });
  const std::vector<int64_t> ranks{2, 8, 10};
  const std::vector<Adapter> sent = redistribute(*f.global, ranks, 123);
  for (size_t k = 0; k < 3; ++k) f.add(std::to_string(k), sent[k].clone(), 0.25).sent = &sent[k];
  const Adapter g = f.run("hete-h0");
  EXPECT_TRUE(same_bits(g, sent[2]));
}

TEST(UnequalRanks, HeteH0RefusesFactorsInAnotherOrder) {
  Federation f = four_ranks(0.02, false);
  const Adapter own = f.global->clone();  // not in singular form, unlike what the others were sent
  f.updates[2].sent = &own;
  try {
    f.run("hete-h0");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("client"), std::string::npos);
  }
}

TEST(UnequalRanks, ZeroPadAveragesPaddedFactors) {
  Federation f;
  f.add("a", random_adapter(2, 4, 1), 0);
  f.add("b", random_adapter(4, 8, 2), 0);
  const Adapter g = f.run("zero-pad");
  EXPECT_EQ(g.config.rank, 4);
  Adapter expected = f.adapters[1].clone();
  model::for_each_pair(expected, [&](int64_t layer, Proj proj, model::LoraPair& pair) {
    const model::LoraPair& small = f.adapters[0].at(layer, proj);
    for (int64_t i = 0; i < 4; ++i) {
      for (int64_t c = 0; c < pair.a.shape()[1]; ++c)
        pair.a.mat()(i, c) = 0.5f * (pair.a.mat()(i, c) + (i < 2 ? small.a.mat()(i, c) : 0.0f));
      for (int64_t r = 0; r < pair.b.shape()[0]; ++r)
        pair.b.mat()(r, i) = 0.5f * (pair.b.mat()(r, i) + (i < 2 ? small.b.mat()(r, i) : 0.0f));
    }
  });
  EXPECT_LT(difference(g, expected), kRounding);
}

TEST(UnequalRanks, SeveralRoundsKeepTheFactorsAligned) {
  const std::vector<int64_t> ranks{2, 8};
  for (const char* rule : {"hete-h0", "zero-pad", "hete-tau"}) {
    Adapter global = random_adapter(8, 16, 1);
    for (uint64_t round = 0; round < 3; ++round) {
      const std::vector<Adapter> sent = redistribute(global, ranks);
      Federation f;
      f.global = global.clone();
      for (size_t k = 0; k < 2; ++k)
        f.add(std::to_string(k), disturbed(sent[k], 0.01, 10 * round + k), 0.0).sent = &sent[k];
      global = f.run(rule);
      EXPECT_EQ(global.config.rank, 8);
    }
  }
}

}  // namespace
}  // namespace brick::federate
