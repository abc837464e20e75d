// Least squares on a fixed support. Internal to prune/.
#pragma once

#include <cstdint>

#include "brick/tensor/mask.h"
#include "brick/tensor/view.h"

namespace brick::prune {

struct RefitProblem {
  tensor::ConstMatView hessian;  // H [in, in], symmetric positive definite
  tensor::ConstMatView cross;    // C [out, in]
  tensor::MaskView mask;         // [out, in]
  int64_t iterations = 0;        // at most
};

// Lowers f(W) = tr(W H W^T) / 2 - tr(C W^T) over the kept weights, from the W at hand, by conjugate gradients on every
// row at once with diag(H) as the preconditioner (as ALPS ends, Meng et al. 2024, algorithm 2, which has none; each
// step is one product with H). With H = X^T X and C = T^T X this is ||X W^T - T||^2. Dropped entries of W must be 0. f
// never rises but by rounding.
void refit(const RefitProblem& problem, tensor::MatView weight);

}  // namespace brick::prune
