// Parts of SliceGPT that can be looked at by themselves. Internal to prune/.
#pragma once

#include <span>
#include <vector>

#include "brick/prune/rotation.h"

namespace brick::prune {

// Mean z z^T over the tokens, [D, D] row-major and symmetric.
using Products = std::vector<double>;

// Q^T [width, D]: eigenvectors of the greatest eigenvalues of the products' sum, in falling order. Of all such matrices
// it keeps most of the sum over norms and tokens of ||Q^T z||^2.
tensor::Tensor principal_directions(std::span<const Products> products, int64_t width);

// What a norm's readers take from the directions Q^T [D', D] (rotation.h). Without `refit` sqrt(D / D') Q^T: what went
// counts as zero. With it R = sqrt(D / D') a (Q^T + X), where X predicts by least squares, from the directions that
// stay, what was to be read from those that went, and a^2 = tr(Q^T S Q) / tr(S) is the share of z that stays:
//   (Q^T S Q + r I) X = Q^T S (I - Q Q^T),  r = damping mean(diag(Q^T S Q)),
// S being the norm's products. Error(kNumeric) if the left side is not positive definite.
tensor::Tensor reader(const Products& products, tensor::ConstMatView stream, bool refit, double damping);

}  // namespace brick::prune
