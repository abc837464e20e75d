#include "brick/federate/check_config.h"

#include <cmath>

#include "brick/base/error.h"

namespace brick::federate {
namespace {

constexpr int64_t kLargestRank = 4096;

}  // namespace

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
  if (config.em_iterations < 0)
    fail(ErrorCode::kInvalidInput, "aggregate: em_iterations is {}; 0 or more makes sense", config.em_iterations);
  if (!(config.anchor >= 0 && std::isfinite(config.anchor)))
    fail(ErrorCode::kInvalidInput, "aggregate: anchor is {}; it is a weight of at least 0", config.anchor);
}

}  // namespace brick::federate
