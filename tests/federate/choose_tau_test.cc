#include "brick/federate/choose_tau.h"

#include <gtest/gtest.h>

#include <cmath>

#include "brick/base/error.h"
#include "federate/rounds.h"

namespace brick::federate {
namespace {

TEST(ChooseTau, TakesTheLowestLossAndItsAdapter) {
  const Federation f = four_clients(0.05, true);
  const auto with = [&](double tau) { return f.run("hete-tau", {.tau = tau}); };
  const Adapter wanted = with(0.3);
  const TauChoice choice =
      choose_tau(kTauCandidates, with, [&](const Adapter& adapter) { return difference(adapter, wanted); });
  EXPECT_EQ(choice.tau, 0.3);
  EXPECT_TRUE(same_bits(choice.adapter, wanted));
  ASSERT_EQ(choice.losses.size(), kTauCandidates.size());
  EXPECT_EQ(choice.losses[2].second, 0.0);
}

TEST(ChooseTau, PassesOverLossesThatAreNotFinite) {
  int calls = 0;
  const auto with = [](double tau) { return zero_adapter(1, tau); };
  const TauChoice choice = choose_tau(kTauCandidates, with, [&](const Adapter&) { return calls++ == 0 ? NAN : 1.0; });
  EXPECT_EQ(choice.tau, 0.1);
  EXPECT_THROW(choose_tau(kTauCandidates, with, [](const Adapter&) { return NAN; }), Error);
}

}  // namespace
}  // namespace brick::federate
