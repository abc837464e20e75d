#include "brick/federate/rules.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "brick/base/error.h"

namespace brick::federate {
namespace {

constexpr int64_t kLargestRank = 4096;

constexpr std::array kRules{
    Rule{"fedit", "average of A and of B (FedIT)", fedit, true, false},
    Rule{"zero-pad", "fedit of factors padded with zeros to the largest rank", zero_pad, false, false},
    Rule{"flexlora", "SVD of the average of BA (FlexLoRA)", flexlora, false, true},
    Rule{"hete-h0", "HeteAgg in adapter space: updates masked by magnitude to the block's density", hete_h0, false,
         true},
    Rule{"hete-h0-axis", "HeteAgg in adapter space: rows of B and columns of A averaged over the blocks that have them",
         hete_h0_axis, false, true},
    Rule{"hete-h1", "HeteAgg in weight space: entry-wise average over the blocks that keep a weight, then SVD", hete_h1,
         false, true},
    Rule{"hete-h2", "HeteAgg as a masked low-rank fit, anchored where blocks lack a weight", hete_h2, false, true},
    Rule{"hete-tau", "the masked low-rank fit with trust tau in removed weights", hete_tau, false, true},
};

}  // namespace

std::span<const Rule> all_rules() { return kRules; }

const Rule* find_rule(std::string_view name) {
  const auto found = std::find_if(kRules.begin(), kRules.end(), [&](const Rule& rule) { return rule.name == name; });
  return found == kRules.end() ? nullptr : &*found;
}

void check_config(const AggregateConfig& config) {
  if (find_rule(config.rule) == nullptr) {
    std::string names;
    for (const Rule& known : all_rules()) names.append(names.empty() ? "" : " ").append(known.name);
    fail(ErrorCode::kInvalidInput, "aggregate: no rule is called '{}'; there are: {}", config.rule, names);
  }
  if (config.rank < 0 || config.rank > kLargestRank)
    fail(ErrorCode::kInvalidInput, "aggregate: rank is {}; 0 to {} make sense", config.rank, kLargestRank);
  if (!(config.tau >= 0 && config.tau <= 1))
    fail(ErrorCode::kInvalidInput, "aggregate: tau is {}; it lies between 0 and 1", config.tau);
  if (config.em_iterations < 0 || config.em_iterations > 1'000'000)
    fail(ErrorCode::kInvalidInput, "aggregate: em_iterations is {}; 0 to 1000000 makes sense", config.em_iterations);
  if (!(config.anchor >= 0 && std::isfinite(config.anchor)))
    fail(ErrorCode::kInvalidInput, "aggregate: anchor is {}; it is a weight of at least 0", config.anchor);
}

model::Adapter aggregate(const model::Adapter* global, std::span<const ClientUpdate> updates,
                         const AggregateConfig& config, uint64_t seed) {
  check_config(config);
  const Rule* rule = find_rule(config.rule);
  if (updates.empty()) fail(ErrorCode::kInvalidInput, "aggregate: no client's update to aggregate");
  if (rule->needs_equal_ranks) {
    const ClientUpdate& first = updates[0];
    for (const ClientUpdate& update : updates)
      if (update.config().rank != first.config().rank)
        fail(ErrorCode::kMismatch,
             "{} averages factors of one rank, but client '{}' has rank {} and '{}' {}; use zero-pad, "
             "flexlora "
             "or a hete rule",
             rule->name, update.name, update.config().rank, first.name, first.config().rank);
  }
  if (!rule->takes_structured)
    for (const ClientUpdate& update : updates)
      if (update.placement != nullptr)
        fail(ErrorCode::kMismatch,
             "{} averages factors of one shape, but client '{}' has a structured block; use flexlora or a hete rule",
             rule->name, update.name);
  std::vector<ClientUpdate> ordered(updates.begin(), updates.end());
  std::stable_sort(ordered.begin(), ordered.end(),
                   [](const ClientUpdate& a, const ClientUpdate& b) { return a.name < b.name; });
  return rule->run(global, ordered, config, seed);
}

}  // namespace brick::federate
