// The factor that SparseGPT works with.
#pragma once

#include "brick/prune/statistics.h"

namespace brick::prune {

// U = chol_upper(H^-1) of H = (2 / tokens) X^T X with dead columns (H_jj = 0) given H_jj = 1, plus
// `damping` mean(diag H) I (Frantar & Alistarh 2023, code at 147d215). In double; where H is not positive
// definite, again with ten times the damping, kDampingTries times in all. Our way: with H = R R^T, R upper
// triangular, U = R^-1, so one factorisation and one triangular inverse replace two factorisations and an
// inverse. `inputs` loses its gram, in whose memory the factorisation works: of a wide layer it is the largest thing
// held.
InverseFactor factor_inverse(InputStatistics& inputs, double damping);

// (h + shift I)^-1 in float32, from a Cholesky factorisation in double; h [n, n] symmetric. Error(kNumeric) where the
// sum is not positive definite.
tensor::Tensor shifted_inverse(tensor::ConstMatView h, double shift);

constexpr int kDampingTries = 3;
constexpr double kLeastRetryDamping = 0.01;  // the first one after a try without damping

}  // namespace brick::prune
