// What hete-h2 and hete-tau minimise, straight from its definition.
#pragma once

#include "brick/federate/masked_mean.h"

namespace brick::federate {

// sum_k w_k ||M~_k^(1/2) (X - P_k)||^2 + w_0 ||(1 - c)^(1/2) (X - P_g)||^2 over all matrices, X = c B A of
// `x`, in double. For tests and diagnosis: forms every P_k, a row at a time.
double masked_objective(const model::Adapter* global, std::span<const ClientUpdate> updates, const Trust& trust,
                        const model::Adapter& x);

}  // namespace brick::federate
