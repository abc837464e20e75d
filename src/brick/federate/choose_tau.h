// tau by validation: no single value wins everywhere (tests/federate/toy_test.cc).
#pragma once

#include <array>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "brick/model/adapter.h"

namespace brick::federate {

inline constexpr std::array kTauCandidates{0.0, 0.1, 0.3, 0.6, 1.0};

struct TauChoice {
  double tau = 0;
  std::vector<std::pair<double, double>> losses;  // of each candidate, in their order
  model::Adapter adapter;                         // aggregated with tau
};

// Aggregates with each candidate, keeps the one of the lowest validation loss, the first among equals.
// Candidates whose loss is not finite are passed over; Error(kNumeric) if that is all of them.
TauChoice choose_tau(std::span<const double> candidates,
                     const std::function<model::Adapter(double tau)>& aggregate_with,
                     const std::function<double(const model::Adapter&)>& validation_loss);

}  // namespace brick::federate
