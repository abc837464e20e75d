// What must hold of every rule, for equal ranks.
#include "brick/federate/rules.h"

#include <gtest/gtest.h>

#include <Eigen/Dense>
#include <algorithm>

#include "brick/base/error.h"
#include "brick/base/parallel.h"
#include "brick/federate/redistribute.h"
#include "federate/objective.h"
#include "federate/rounds.h"

namespace brick::federate {
namespace {

// Sums and factors in float32; decompositions in double.
constexpr double kRounding = 3e-6;
// Subspace iteration stops at a residual of 1e-3, where the product is this close to the best one's.
constexpr double kIterated = 2e-3;

const std::vector<std::string> kAllRules{"fedit",        "zero-pad", "flexlora", "hete-h0",
                                         "hete-h0-axis", "hete-h1",  "hete-h2",  "hete-tau"};

TEST(Rules, RegistryHasEveryNameOnce) {
  ASSERT_EQ(all_rules().size(), kAllRules.size());
  for (const std::string& name : kAllRules) {
    const Rule* rule = find_rule(name);
    ASSERT_NE(rule, nullptr) << name;
    EXPECT_EQ(rule->name, name);
    EXPECT_EQ(rule->needs_equal_ranks, name == "fedit");
    EXPECT_EQ(rule->takes_structured, name != "fedit" && name != "zero-pad");
  }
  EXPECT_EQ(find_rule("hete"), nullptr);
}

TEST(Rules, UnknownRuleNamesTheKnownOnes) {
  const Federation f = four_clients(0.02, true);
  try {
    f.run("fedavg");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("hete-tau"), std::string::npos);
  }
}

TEST(Rules, ConfigurationOutOfRangeIsRefused) {
  const Federation f = four_clients(0.02, true);
  EXPECT_THROW(f.run("hete-tau", {.tau = 1.5}), Error);
  EXPECT_THROW(f.run("hete-tau", {.tau = NAN}), Error);
  EXPECT_THROW(f.run("hete-h2", {.anchor = -1}), Error);
  EXPECT_THROW(f.run("hete-h2", {.em_iterations = -1}), Error);
  EXPECT_THROW(f.run("flexlora", {.rank = -1}), Error);
  EXPECT_THROW(f.run("flexlora", {.rank = 4097}), Error);
  EXPECT_THROW(aggregate(f.global_or_null(), {}, {}, 0), Error);
  Federation many = four_clients(0.02, true);
  for (ClientUpdate& update : many.updates) update.records = 1e308;
  EXPECT_THROW(many.run("hete-tau"), Error);
  EXPECT_THROW(many.run("fedit"), Error);
}

TEST(Rules, ResultIsUnmaskedAndKeepsTheScale) {
  Federation f = four_clients(0.02, true);
  f.global->config.base_fingerprint = "base";
  f.adapters[1].config.masked = true;
  f.adapters[1].config.mask_hash = "mask";
  for (const std::string& rule : kAllRules)
    for (int64_t rank : {0, 5, 12}) {
      const Adapter g = f.run(rule, {.rank = rank});
      EXPECT_EQ(g.config.rank, rank == 0 ? 8 : rank) << rule;
      EXPECT_EQ(g.config.scale(), f.global->config.scale()) << rule;
      EXPECT_EQ(g.config.base_fingerprint, "base");
      EXPECT_FALSE(g.config.masked);
      EXPECT_TRUE(g.config.mask_hash.empty());
      model::for_each_pair(g, [&](int64_t, Proj, const model::LoraPair& pair) {
        EXPECT_EQ(pair.a.shape()[0], g.config.rank);
        EXPECT_EQ(pair.b.shape()[1], g.config.rank);
      });
    }
}

TEST(Rules, UnchangedClientsChangeNothing) {
  const Federation f = four_clients(0.0, true);
  for (const std::string& rule : kAllRules) EXPECT_LT(difference(f.run(rule), *f.global), kRounding) << rule;
  for (bool coverage : {false, true}) EXPECT_TRUE(same_bits(f.run("hete-h0", {.coverage = coverage}), *f.global));
}

// The same product in other factors: nothing cancels bit by bit, so the masked sums themselves are exercised.
TEST(Rules, TheSameProductInOtherFactorsChangesNothing) {
  Federation f = four_clients(0.0, true);
  for (Adapter& adapter : f.adapters) {
    adapter = canonical(adapter);
    adapter.config.alpha *= 2;
    model::for_each_pair(adapter, [](int64_t, Proj, model::LoraPair& pair) {
      for (int64_t i = 0; i < pair.b.size(); ++i) pair.b.f32()[i] *= 0.5f;
    });
  }
  for (const char* rule : {"flexlora", "hete-h1", "hete-h2", "hete-tau"})
    EXPECT_LT(difference(f.run(rule), *f.global), kRounding) << rule;
}

TEST(Rules, NegativeControlOnePerturbedWeightShows) {
  Federation f = four_clients(0.0, true);
  f.adapters[0].at(1, Proj::kQ).b.f32()[3] += 0.1f;
  for (const std::string& rule : kAllRules) EXPECT_GT(difference(f.run(rule), *f.global), 10 * kRounding) << rule;
}

TEST(Rules, OrderOfClientsChangesNoBit) {
  Federation f = four_clients(0.03, true);
  for (const std::string& rule : kAllRules) {
    const Adapter g = f.run(rule);
    Federation other = four_clients(0.03, true);
    std::reverse(other.updates.begin(), other.updates.end());
    EXPECT_TRUE(same_bits(other.run(rule), g)) << rule;
  }
}

TEST(Rules, TwoClientsOfHalfTheRecordsAreOne) {
  const Federation whole = four_clients(0.03, true);
  Federation split = four_clients(0.03, true);
  ClientUpdate half = split.updates[2];
  half.records /= 2;
  split.updates[2] = half;
  half.name += "b";
  split.updates.push_back(half);
  for (const std::string& rule : kAllRules) EXPECT_LT(difference(split.run(rule), whole.run(rule)), kIterated) << rule;
  split.updates.back().records *= 2;
  for (const std::string& rule : kAllRules)
    EXPECT_GT(difference(split.run(rule), whole.run(rule)), 2 * kIterated) << rule;
}

TEST(Rules, WithoutMasksTheMaskedRulesAreTheirPlainOnes) {
  for (bool full_masks : {false, true}) {
    Federation f = four_clients(0.03, false);
    if (full_masks)
      for (ClientUpdate& update : f.updates) {
        f.masks.push_back(random_masks(0.0, 1));
        update.masks = f.masks.back().views();
      }
    EXPECT_LT(difference(f.run("hete-h0"), f.run("fedit")), kRounding);
    EXPECT_LT(difference(f.run("hete-h0", {.coverage = true}), f.run("fedit")), kRounding);
    EXPECT_LT(difference(f.run("hete-h0-axis"), f.run("fedit")), kRounding);
    EXPECT_TRUE(same_bits(f.run("zero-pad"), f.run("fedit")));
    for (const char* rule : {"hete-h1", "hete-h2", "hete-tau"})
      EXPECT_TRUE(same_bits(f.run(rule), f.run("flexlora"))) << rule;
  }
}

TEST(Rules, NegativeControlOneMaskBitShows) {
  Federation f = four_clients(0.03, false);
  f.masks.push_back(random_masks(0.0, 1));
  f.masks.back().masks[0][static_cast<size_t>(Proj::kQ)].set(5, 6, false);
  f.updates[3].masks = f.masks.back().views();
  for (const char* rule : {"hete-h1", "hete-h2", "hete-tau"}) {
    EXPECT_FALSE(same_bits(f.run(rule), f.run("flexlora"))) << rule;
    EXPECT_LT(difference(f.run(rule), f.run("flexlora")), 1e-2) << rule;
  }
  EXPECT_FALSE(same_bits(f.run("hete-h0"), f.run("fedit")));
}

TEST(Rules, TauJoinsTheMaskedFitToFlexLora) {
  const Federation f = four_clients(0.03, true);
  EXPECT_TRUE(same_bits(f.run("hete-tau", {.tau = 0}), f.run("hete-h2", {.anchor = 0})));
  EXPECT_TRUE(same_bits(f.run("hete-tau", {.tau = 1}), f.run("flexlora")));
  EXPECT_LT(difference(f.run("hete-tau", {.tau = 0.9999}), f.run("flexlora")), kIterated);
  EXPECT_GT(difference(f.run("hete-tau", {.tau = 0.3}), f.run("flexlora")), 2 * kIterated);
  EXPECT_LT(difference(f.run("hete-tau", {.tau = 0, .em_iterations = 0}), f.run("hete-h1")), kIterated);
}

TEST(Rules, OneDenseClientIsReturnedExactly) {
  Federation f;
  f.global = random_adapter(8, 16, 1);
  f.add("only", random_adapter(8, 16, 2), 0.0, 3);
  for (const std::string& rule : kAllRules) EXPECT_LT(difference(f.run(rule), f.adapters[0]), kRounding) << rule;
  f.global.reset();
  for (const std::string& rule : kAllRules) EXPECT_LT(difference(f.run(rule), f.adapters[0]), kRounding) << rule;
}

TEST(Rules, EntriesThatNobodyKeepsStayAsTheyWere) {
  Federation f = four_clients(0.03, true);
  BlockMasks none = random_masks(1.0, 1);
  for (ClientUpdate& update : f.updates) update.masks = none.views();
  for (const char* rule : {"hete-h0", "hete-h0-axis", "hete-h1", "hete-h2"})
    EXPECT_LT(difference(f.run(rule), *f.global), kRounding) << rule;
  EXPECT_LT(difference(f.run("hete-tau", {.tau = 0}), *f.global), kRounding);
  EXPECT_LT(difference(f.run("hete-h0", {.coverage = true}), *f.global), kRounding);
}

// Each client's own scale: half the factors at twice the alpha are the same client.
TEST(Rules, EachClientsOwnScaleCounts) {
  const Federation f = four_clients(0.03, true);
  Federation scaled = four_clients(0.03, true);
  scaled.adapters[1].config.alpha *= 4;
  model::for_each_pair(scaled.adapters[1], [](int64_t, Proj, model::LoraPair& pair) {
    for (int64_t i = 0; i < pair.b.size(); ++i) pair.b.f32()[i] *= 0.25f;
  });
  for (const std::string& rule : kAllRules) EXPECT_TRUE(same_bits(scaled.run(rule), f.run(rule))) << rule;
}

TEST(Rules, ObjectiveNeverRisesFromStepToStep) {
  const Federation f = four_clients(0.1, true);
  for (const Trust& trust : {Trust{.tau = 0, .anchor = 0.01}, Trust{.tau = 0, .anchor = 0}, Trust{.tau = 0.1}}) {
    double first = 0, last = std::numeric_limits<double>::infinity();
    for (int64_t steps = 0; steps < 8; ++steps) {
      AggregateConfig config{.tau = trust.tau, .em_iterations = steps, .anchor = trust.anchor};
      const Adapter g = f.run(trust.tau > 0 ? "hete-tau" : "hete-h2", config);
      const double cost = masked_objective(f.global_or_null(), f.updates, trust, g);
      EXPECT_LE(cost, last * (1 + 1e-6)) << steps;
      if (steps == 0) first = cost;
      last = cost;
    }
    EXPECT_LT(last, 0.999 * first);
  }
}

// Another algorithm on the same objective, of clients that were sent the global adapter: alternating weighted least
// squares in double, a row at a time.
class AlternatingFit {
 public:
  AlternatingFit(const Federation& f, const Trust& trust, Proj proj, int64_t rows, int64_t cols)
      : weight_(Eigen::MatrixXd::Zero(rows, cols)), target_(weight_) {
    const std::vector<double> weights = client_weights(f.updates);
    const MatrixRound round = matrix_round(f.global_or_null(), f.updates, weights, 0, proj, {rows, cols});
    const Eigen::MatrixXd start = of(*round.global);
    Eigen::MatrixXd missing = Eigen::MatrixXd::Ones(rows, cols);
    for (const Contribution& client : round.clients) {
      const model::LoraPair trained = client.update->pair(0, proj);
      const Eigen::MatrixXd said = of(factor_of(trained, client.update->config().scale()));
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < cols; ++c) {
          const bool kept = !client.mask || client.mask->kept(r, c);
          const double w = client.weight * (kept ? 1.0 : trust.tau);
          missing(r, c) -= kept ? client.weight : 0.0;
          weight_(r, c) += w;
          target_(r, c) += w * said(r, c);
        }
    }
    weight_ += trust.anchor * missing;
    target_ = (target_ + trust.anchor * missing.cwiseProduct(start)).cwiseQuotient(weight_);
  }

  double cost(const Eigen::MatrixXd& x) const { return weight_.cwiseProduct((x - target_).cwiseAbs2()).sum(); }

  double least_cost(int64_t rank, int sweeps) const {
    const Eigen::JacobiSVD<Eigen::MatrixXd> svd(target_, Eigen::ComputeThinU | Eigen::ComputeThinV);
    Eigen::MatrixXd right = svd.matrixV().leftCols(rank), left(target_.rows(), rank);
    for (int sweep = 0; sweep < sweeps; ++sweep) {
      solve(weight_, target_, right, left);
      solve(weight_.transpose(), target_.transpose(), left, right);
    }
    return cost(left * right.transpose());
  }

  static Eigen::MatrixXd of(const Factor& factor) {
    Eigen::MatrixXd out(factor.b.rows, factor.a.cols);
    for (int64_t r = 0; r < out.rows(); ++r)
      for (int64_t c = 0; c < out.cols(); ++c) out(r, c) = entry(factor, r, c);
    return out;
  }

 private:
  static void solve(const Eigen::MatrixXd& weight, const Eigen::MatrixXd& target, const Eigen::MatrixXd& fixed,
                    Eigen::MatrixXd& out) {
    for (int64_t r = 0; r < target.rows(); ++r) {
      const Eigen::MatrixXd weighted = weight.row(r).asDiagonal() * fixed;
      out.row(r) = (fixed.transpose() * weighted).ldlt().solve(weighted.transpose() * target.row(r).transpose());
    }
  }

  Eigen::MatrixXd weight_, target_;
};

TEST(Rules, MaskedFitIsAsGoodAsAlternatingLeastSquares) {
  constexpr int64_t kSteps = 300;
  constexpr int kSweeps = 100;
  constexpr double kSlack = 1e-3;  // both come near their limit, slowly
  const Federation f = four_clients(0.1, true);
  const Target target = targets()[0];
  for (const Trust& trust : {Trust{.tau = 0, .anchor = 0.01}, Trust{.tau = 0.1, .anchor = 0}}) {
    const AlternatingFit other(f, trust, target.proj, target.rows, target.cols);
    const auto cost = [&](int64_t steps) {
      const AggregateConfig config{.tau = trust.tau, .em_iterations = steps, .anchor = trust.anchor};
      const Adapter g = f.run(trust.tau > 0 ? "hete-tau" : "hete-h2", config);
      return other.cost(AlternatingFit::of(factor_of(g.at(0, target.proj), g.config.scale())));
    };
    const double least = other.least_cost(f.global->config.rank, kSweeps);
    EXPECT_LE(cost(kSteps), (1 + kSlack) * least);
    EXPECT_GT(cost(0), (1 + 10 * kSlack) * least);  // negative control: without the fit's steps
  }
}

// Pieces of rows on several threads, on a matrix large enough for them.
TEST(Rules, ThreadsAgree) {
  const std::vector<Target> large{{Proj::kGate, 1100, 1000}};
  Federation f;
  f.global = random_adapter(8, 16, 1, large);
  for (int k = 0; k < 3; ++k)
    f.add(std::to_string(k), disturbed(*f.global, 0.03, 10 + static_cast<uint64_t>(k)), 0.25 * k);
  const int before = threads();
  for (const char* rule : {"flexlora", "hete-h1", "hete-h2", "hete-tau"}) {
    set_threads(1);
    const Adapter one = f.run(rule, {.em_iterations = 3});
    set_threads(3);
    const Adapter three = f.run(rule, {.em_iterations = 3}), again = f.run(rule, {.em_iterations = 3});
    EXPECT_LT(difference(three, one), 1e-4) << rule;
    EXPECT_TRUE(same_bits(three, again)) << rule;
  }
  set_threads(before);
}

// The formula of H1, written out.
TEST(HeteH1, IsTheEntryWiseAverageWhereTheRankSuffices) {
  const std::vector<Target> small{{Proj::kV, 12, 10}};
  Federation f;
  f.global = random_adapter(3, 6, 1, small);
  f.add("a", random_adapter(3, 6, 2, small), 0.5, 1);
  f.add("b", random_adapter(3, 6, 3, small), 0.4, 3);
  const Adapter g = f.run("hete-h1", {.rank = 10});
  const auto p0 = product(*f.global, 0, Proj::kV), pa = product(f.adapters[0], 0, Proj::kV),
             pb = product(f.adapters[1], 0, Proj::kV), result = product(g, 0, Proj::kV);
  const auto keeps = [&](size_t client, size_t i) {
    return f.masks[client].masks[0][static_cast<size_t>(Proj::kV)].kept(static_cast<int64_t>(i / 10),
                                                                        static_cast<int64_t>(i % 10));
  };
  for (size_t i = 0; i < p0.size(); ++i) {
    const double wa = keeps(0, i) ? 0.25 : 0, wb = keeps(1, i) ? 0.75 : 0;
    const double expected = wa + wb == 0 ? p0[i] : p0[i] + (wa * (pa[i] - p0[i]) + wb * (pb[i] - p0[i])) / (wa + wb);
    EXPECT_NEAR(result[i], expected, 1e-6);
  }
}

// Own-magnitude top-k of the whole update, and its density.
TEST(HeteH0, TakesTheLargestChangesOnly) {
  const std::vector<Target> small{{Proj::kV, 12, 10}};
  Federation f;
  f.global = random_adapter(2, 4, 1, small);
  Adapter trained = f.global->clone();
  for (int64_t i = 0; i < 20; ++i) trained.at(0, Proj::kV).a.f32()[i] += static_cast<float>(i) * 0.01f;
  f.add("a", std::move(trained), 0.0);
  // 2 layers x (20 + 24) factors; 120 of 240 weights kept, so the 44 largest changes: all 19.
  f.masks.push_back(random_masks(0.0, 1, small));
  tensor::Mask& mask = f.masks.back().masks[0][static_cast<size_t>(Proj::kV)];
  mask = tensor::Mask(12, 10);
  f.updates[0].masks = f.masks.back().views();
  EXPECT_TRUE(same_bits(f.run("hete-h0"), f.adapters[0]));
  // 9 of 240: floor(9 / 240 * 88) = 3 changes.
  tensor::Mask& second = f.masks.back().masks[1][static_cast<size_t>(Proj::kV)];
  second = tensor::Mask(12, 10);
  for (int64_t c = 0; c < 9; ++c) second.set(0, c, true);
  f.updates[0].masks = f.masks.back().views();
  const Adapter g = f.run("hete-h0");
  int changed = 0;
  for (int64_t i = 0; i < 20; ++i) changed += g.at(0, Proj::kV).a.f32()[i] != f.global->at(0, Proj::kV).a.f32()[i];
  EXPECT_EQ(changed, 3);
  EXPECT_EQ(g.at(0, Proj::kV).a.f32()[19], f.adapters[0].at(0, Proj::kV).a.f32()[19]);
}

TEST(HeteH0, CoverageDividesByTheWeightOfThoseThatHaveTheEntry) {
  const std::vector<Target> small{{Proj::kV, 12, 10}};
  Federation f;
  f.global = random_adapter(2, 4, 1, small);
  for (int k = 0; k < 2; ++k) {
    Adapter trained = f.global->clone();
    trained.at(0, Proj::kV).a.f32()[k] += 1.0f;
    f.add(k == 0 ? "a" : "b", std::move(trained), 0.0);
    f.masks.push_back(random_masks(0.0, 1, small));
    for (auto& layer : f.masks.back().masks) layer[static_cast<size_t>(Proj::kV)] = tensor::Mask(12, 10);
    for (int64_t c = 0; c < 4; ++c) f.masks.back().masks[0][static_cast<size_t>(Proj::kV)].set(0, c, true);
    f.updates.back().masks = f.masks.back().views();  // 4 of 240: one change
  }
  const float before = f.global->at(0, Proj::kV).a.f32()[0];
  EXPECT_FLOAT_EQ(f.run("hete-h0").at(0, Proj::kV).a.f32()[0], before + 0.5f);
  EXPECT_FLOAT_EQ(f.run("hete-h0", {.coverage = true}).at(0, Proj::kV).a.f32()[0], before + 1.0f);
}

}  // namespace
}  // namespace brick::federate
