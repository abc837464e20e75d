// What the rules that average factors share: fedit, zero-pad, hete-h0.
#pragma once

#include "brick/federate/rules.h"

namespace brick::federate {

// A = sum_k w_k A_k, B = sum_k w_k (c_k / c) B_k, smaller ranks padded with zeros to the largest client's;
// sums in double, c of result_config.
model::Adapter average_factors(const model::Adapter* global, std::span<const ClientUpdate> updates);

bool equal_ranks(const model::Adapter* global, std::span<const ClientUpdate> updates);

}  // namespace brick::federate
