// OWL (Yin et al. 2024, "Outlier Weighed Layerwise Sparsity"): layers whose weights have more outliers are pruned less.
// Internal to prune/.
#pragma once

#include <span>
#include <vector>

#include "brick/base/log.h"
#include "brick/kernels/context.h"
#include "brick/model/model.h"
#include "brick/prune/calibration.h"

namespace brick::prune {

// Per layer of the dense model the share of weights whose Wanda score |W_ij| ||X_j|| is above `outlier` times the mean
// score of the layer's linear weights (eq. 1; the authors take 5 at 70 %).
std::vector<double> outlier_shares(const model::Model& model, const Calibration& calibration, double outlier,
                                   kernels::Context& context, ProgressSink& sink);

// s_l = s - (D_l - mean(D)) with D the shares mapped to [0, 2 spread]: layers differ by at most 2 spread (the authors'
// lambda, 0.08). The mean weighs layers by their `sizes`, so that sum_l s_l size_l = s sum_l size_l. Our choice: where
// some s_l would leave [0, 1) the spread is lowered until none does.
std::vector<double> owl_sparsities(std::span<const double> shares, std::span<const int64_t> sizes, double sparsity,
                                   double spread);

}  // namespace brick::prune
