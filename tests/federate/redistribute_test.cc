#include "brick/federate/redistribute.h"

#include <gtest/gtest.h>

#include "brick/base/error.h"
#include "brick/federate/factors.h"
#include "federate/rounds.h"

namespace brick::federate {
namespace {

constexpr double kRounding = 2e-6;

TEST(Redistribute, CanonicalAddsTheSameAndIsItsOwn) {
  const Adapter global = random_adapter(8, 16, 1), form = canonical(global);
  EXPECT_LT(difference(form, global), kRounding);
  EXPECT_FALSE(federate::same_bits(form, global));
  EXPECT_TRUE(federate::same_bits(canonical(form), form));
  EXPECT_EQ(form.config.alpha, global.config.alpha);
}

TEST(Redistribute, TruncationIsTheBestOfItsRankAndKeepsTheScale) {
  const Adapter global = random_adapter(8, 16, 1);
  for (int64_t rank : {1, 3, 7}) {
    const Adapter small = truncate(global, rank);
    EXPECT_EQ(small.config.rank, rank);
    EXPECT_EQ(small.config.scale(), global.config.scale());
    EXPECT_EQ(small.config.alpha, 2.0 * static_cast<double>(rank));
    const Factor factor = factor_of(global.at(0, Proj::kQ), global.config.scale());
    const LowRank best = thin_svd({&factor, 1}, 8);
    double rest = 0, error = 0;
    for (size_t i = static_cast<size_t>(rank); i < 8; ++i) rest += best.s[i] * best.s[i];
    const auto x = product(small, 0, Proj::kQ), y = product(global, 0, Proj::kQ);
    for (size_t i = 0; i < x.size(); ++i) error += (x[i] - y[i]) * (x[i] - y[i]);
    EXPECT_NEAR(std::sqrt(error), std::sqrt(rest), 1e-5 * best.s[0]);
  }
  EXPECT_TRUE(federate::same_bits(truncate(global, 8), global));
  EXPECT_THROW(truncate(global, 0), Error);
}

TEST(Redistribute, RsloraKeepsTheScaleToo) {
  Adapter global = random_adapter(8, 16, 1);
  global.config.rslora = true;
  for (int64_t rank : {2, 11}) EXPECT_FLOAT_EQ(truncate(global, rank).config.scale(), global.config.scale());
}

TEST(Redistribute, LargerRanksAddTheSameAndCanLearn) {
  const Adapter global = random_adapter(8, 16, 1), large = truncate(global, 12, 7);
  EXPECT_EQ(large.config.scale(), global.config.scale());
  EXPECT_EQ(difference(large, global), 0.0);
  model::for_each_pair(large, [&](int64_t, Proj, const model::LoraPair& pair) {
    for (int64_t i = 8; i < 12; ++i) {
      double a = 0;
      for (int64_t c = 0; c < pair.a.shape()[1]; ++c) a += std::abs(pair.a.mat()(i, c));
      EXPECT_GT(a, 0.0);
      for (int64_t r = 0; r < pair.b.shape()[0]; ++r) EXPECT_EQ(pair.b.mat()(r, i), 0.0f);
    }
  });
  EXPECT_TRUE(federate::same_bits(truncate(global, 12, 7), large));
  EXPECT_FALSE(federate::same_bits(truncate(global, 12, 8), large));
  // Further rows of a still larger rank leave these as they are.
  const Adapter larger = truncate(global, 16, 7);
  EXPECT_TRUE(std::equal(large.at(0, Proj::kQ).a.f32(), large.at(0, Proj::kQ).a.f32() + 12 * 80,
                         larger.at(0, Proj::kQ).a.f32()));
}

// A fresh adapter has B = 0; its random A is what the clients share.
TEST(Redistribute, AFreshAdapterKeepsItsFirstRows) {
  Adapter fresh = random_adapter(8, 16, 1);
  model::for_each_pair(fresh,
                       [](int64_t, Proj, model::LoraPair& pair) { std::fill_n(pair.b.f32(), pair.b.size(), 0.0f); });
  const Adapter small = truncate(fresh, 3);
  EXPECT_TRUE(
      std::equal(small.at(1, Proj::kQ).a.f32(), small.at(1, Proj::kQ).a.f32() + 3 * 80, fresh.at(1, Proj::kQ).a.f32()));
}

// Factors of rank 8 around a product of rank 3: the other directions must not be dead.
TEST(Redistribute, EmptyDirectionsAreFreedToLearn) {
  Adapter global = random_adapter(8, 16, 1);
  model::for_each_pair(global, [](int64_t, Proj, model::LoraPair& pair) {
    for (int64_t r = 0; r < pair.b.shape()[0]; ++r)
      for (int64_t i = 3; i < 8; ++i) pair.b.mat()(r, i) = pair.b.mat()(r, i % 3);
  });
  const Adapter form = canonical(global);
  EXPECT_LT(difference(form, global), kRounding);
  const model::LoraPair& pair = form.at(0, Proj::kQ);
  for (int64_t i = 3; i < 8; ++i) {
    EXPECT_NE(pair.a.mat()(i, 0), 0.0f);
    EXPECT_EQ(pair.b.mat()(0, i), 0.0f);
  }
  EXPECT_TRUE(federate::same_bits(canonical(form), form));
}

TEST(Redistribute, AllFactorsAreFirstRowsOfTheLargest) {
  const Adapter global = random_adapter(8, 16, 1);
  const std::vector<int64_t> ranks{2, 8, 5, 10};
  const std::vector<Adapter> sent = redistribute(global, ranks);
  for (size_t k = 0; k < ranks.size(); ++k) {
    EXPECT_EQ(sent[k].config.rank, ranks[k]);
    const tensor::Tensor &part = sent[k].at(0, Proj::kDown).a, &whole = sent[3].at(0, Proj::kDown).a;
    EXPECT_TRUE(std::equal(part.f32(), part.f32() + part.size(), whole.f32()));
  }
  const std::vector<int64_t> equal{8, 8};
  EXPECT_TRUE(federate::same_bits(redistribute(global, equal)[1], global));
}

}  // namespace
}  // namespace brick::federate
