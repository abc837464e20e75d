// The entry-wise target of the rules in weight space.
#pragma once

#include "brick/federate/contribution.h"

namespace brick::federate {

struct Trust {
  double tau = 0;     // M~_k = M_k + tau (1 - M_k)
  double anchor = 0;  // w_0
};

// With coverage c = sum_k w_k M_k and C = sum_k w_k M~_k + w_0 (1 - c) = c + (tau + w_0)(1 - c):
//
//   T = (w_0 (1 - c) P_g + sum_k w_k M~_k P_k) / C = P_g + (sum_k w_k M~_k D_k) / C,    T = P_g where C = 0
//
// which minimises sum_k w_k M~_k (x - P_k)^2 + w_0 (1 - c)(x - P_g)^2 in each entry: C weighs that entry in
// the low-rank fit. hete-h2's anchor is weighed with the share of clients that lack the entry
// (our choice), so that without masks it vanishes and hete-h2 is flexlora. t and weight (C) are
// [rows, cols]. Clients of one mask are summed before it is applied. False where every client returned what it
// was sent.
bool masked_mean(const MatrixRound& round, const Trust& trust, tensor::MatView t, tensor::MatView weight);

}  // namespace brick::federate
