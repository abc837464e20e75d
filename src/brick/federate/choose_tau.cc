#include "brick/federate/choose_tau.h"

#include <cmath>
#include <limits>

#include "brick/base/error.h"

namespace brick::federate {

TauChoice choose_tau(std::span<const double> candidates,
                     const std::function<model::Adapter(double tau)>& aggregate_with,
                     const std::function<double(const model::Adapter&)>& validation_loss) {
  TauChoice choice;
  double best = std::numeric_limits<double>::infinity();
  for (double tau : candidates) {
    model::Adapter adapter = aggregate_with(tau);
    const double loss = validation_loss(adapter);
    choice.losses.emplace_back(tau, loss);
    if (!std::isfinite(loss) || loss >= best) continue;
    best = loss;
    choice.tau = tau;
    choice.adapter = std::move(adapter);
  }
  if (!std::isfinite(best))
    fail(ErrorCode::kNumeric, "no candidate for tau ({} tried) has a finite validation loss", candidates.size());
  return choice;
}

}  // namespace brick::federate
