// The weighted low-rank fit of hete-h2 and hete-tau.
#pragma once

#include "brick/federate/contribution.h"
#include "brick/federate/masked_mean.h"

namespace brick::federate {

// min over X of rank r of sum_k w_k ||M~_k^(1/2) (X - P_k)||^2 + w_0 ||(1 - c)^(1/2) (X - P_g)||^2, by the EM
// of Srebro and Jaakkola (2003, "Weighted low-rank approximations", section 4):
//
//   Om = C / max C;   X <- SVD_r(Om T + (1 - Om) X),   from X = SVD_r(T)
//
// Each SVD_r is one step of subspace iteration whose basis holds the last X's rows, so the objective never
// rises (a generalised EM); small matrices are decomposed directly. The filled matrix is made a few rows at a
// time.
LowRank masked_fit(const MatrixRound& round, const Trust& trust, int64_t rank, int64_t iterations, uint64_t seed);

}  // namespace brick::federate
