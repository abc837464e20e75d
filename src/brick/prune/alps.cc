// ALPS (Meng et al. 2024, "ALPS: Improved Optimization for Highly Sparse One-Shot Pruning"): ADMM for
//   min ||X W0^T - X W^T||^2, W having k non-zeros,
// then conjugate gradients on the support found. As the authors' code (at bbdad62): H = X^T X + damping mean(diag) I is
// scaled to a diagonal of ones, and
//   B = (W0 H - V + rho D) (H + rho I)^-1,  D = the k largest of B + V / rho,  V += rho (B - D);
// every third step rho grows by 1.3, 1.2 or 1.1 with how much the support moved in it.
// Ours: (H + rho I)^-1 by a Cholesky factorisation for each rho instead of one eigendecomposition, which takes longer
// than all of them; weights that tie at the threshold go together; conjugate gradients have a preconditioner.
#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "brick/base/error.h"
#include "brick/base/parallel.h"
#include "brick/kernels/gemm.h"
#include "brick/kernels/rows.h"
#include "brick/kernels/vector_ops.h"
#include "brick/prune/dense_layer.h"
#include "brick/prune/inverse_factor.h"
#include "brick/prune/refit.h"
#include "brick/prune/registry.h"
#include "brick/prune/selection.h"

namespace brick::prune {
namespace {

using kernels::Trans;
using tensor::ConstMatView;
using tensor::MatView;

constexpr int64_t kRowGrain = 16;
constexpr int64_t kMostSteps = 300, kRhoSteps = 3, kSettledSteps = 30, kRefitSteps = 10;
constexpr double kFirstRho = 0.1, kLargestRho = 1e6;
constexpr double kSettledShare = 3e-4;  // of k: less movement than this after kSettledSteps ends the search

// H with a diagonal of ones, and the square roots that it was divided by.
struct ScaledHessian {
  tensor::Tensor h;  // [in, in]
  std::vector<float> scale;
};

ScaledHessian scale_hessian(const InputStatistics& inputs, double damping) {
  const int64_t n = inputs.width();
  const double ridge = inputs.ridge(damping);
  std::vector<double> root(static_cast<size_t>(n));
  for (size_t c = 0; c < root.size(); ++c) root[c] = std::sqrt(inputs.sum_squares[c] + ridge);
  ScaledHessian out{tensor::matrix(n, n), {}};
  const MatView h = out.h.mat();
  parallel_ranges(n, kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      for (int64_t c = 0; c < n; ++c) {
        const double product = inputs.gram[static_cast<size_t>(std::min(r, c) * n + std::max(r, c))];
        h(r, c) =
            r == c ? 1.0f : static_cast<float>(product / (root[static_cast<size_t>(r)] * root[static_cast<size_t>(c)]));
      }
  });
  for (const double value : root) out.scale.push_back(static_cast<float>(value));
  return out;
}

// The mask of the largest |x|.
tensor::Mask largest(ConstMatView x, const MatrixProblem& problem) {
  const int64_t count = x.rows * x.cols;
  const int64_t dropped = count - std::llround((1.0 - problem.sparsity) * static_cast<double>(count));
  return keep_highest(magnitudes(x), x.rows, x.cols, problem.pattern, dropped);
}

int64_t moved(tensor::Mask& a, tensor::Mask& b) {
  int64_t count = 0;
  for (size_t i = 0; i < a.words().size(); ++i) count += std::popcount(a.words()[i] ^ b.words()[i]);
  return count;
}

class Admm {
 public:
  // b: W0 times the scale, [out, in]; becomes the last B.
  Admm(const MatrixProblem& problem, ConstMatView hessian, MatView b)
      : problem_(problem), hessian_(hessian), b_(b), start_(tensor::matrix(b.rows, b.cols)) {
    for (tensor::Tensor* memory : {&cross_, &d_, &v_, &right_}) *memory = tensor::matrix(b.rows, b.cols);
    kernels::copy_rows(b, start_.mat());
    kernels::gemm(Trans::kNo, Trans::kNo, 1.0f, b, hessian, 0.0f, cross_.mat());
  }

  // The support.
  tensor::Mask run() {
    restart();
    set_rho(kFirstRho);
    bool grown = false;
    for (int64_t step = 1; step <= kMostSteps; ++step) {
      iterate();
      if (step % kRhoSteps != 0) continue;
      const int64_t change = moved(support_, last_support_);
      const double share = static_cast<double>(change) / static_cast<double>(std::max<int64_t>(1, kept_));
      last_support_ = support_;
      if (change == 0 && grown) break;
      if (share > 0.005) {
        grown = true;
        set_rho(rho_ * (share > 0.1 ? 1.3 : 1.2));
      } else if (grown) {
        set_rho(rho_ * 1.1);
      } else {  // nothing moves: rho was too large from the start
        set_rho(rho_ / 5);
        if (change > 0) restart();
      }
      if (step > kSettledSteps && share < kSettledShare) break;
    }
    return largest(b_, problem_);
  }

  ConstMatView cross() const { return cross_.mat(); }

 private:
  void restart() {
    kernels::copy_rows(start_.mat(), b_);
    kernels::copy_rows(start_.mat(), d_.mat());
    support_ = largest(b_, problem_);
    clear_dropped(support_.view(), d_.mat());
    last_support_ = support_;
    kept_ = support_.view().count();
    std::fill_n(v_.f32(), v_.size(), 0.0f);
  }

  void set_rho(double rho) {
    rho_ = std::min(rho, kLargestRho);
    inverse_ = shifted_inverse(hessian_, rho_);
  }

  void iterate() {
    const MatView right = right_.mat(), d = d_.mat(), v = v_.mat(), y = cross_.mat();
    const auto rho = static_cast<float>(rho_);
    parallel_ranges(right.rows, kRowGrain, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r)
        for (int64_t c = 0; c < right.cols; ++c) right(r, c) = y(r, c) - v(r, c) + rho * d(r, c);
    });
    kernels::gemm(Trans::kNo, Trans::kNo, 1.0f, right, inverse_.mat(), 0.0f, b_);
    parallel_ranges(right.rows, kRowGrain, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r)
        for (int64_t c = 0; c < right.cols; ++c) d(r, c) = b_(r, c) + v(r, c) / rho;
    });
    support_ = largest(d, problem_);
    clear_dropped(support_.view(), d);
    parallel_ranges(right.rows, kRowGrain, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r)
        for (int64_t c = 0; c < right.cols; ++c) v(r, c) += rho * (b_(r, c) - d(r, c));
    });
  }

  const MatrixProblem& problem_;
  ConstMatView hessian_;
  MatView b_;
  tensor::Tensor start_, cross_, d_, v_, right_, inverse_;
  tensor::Mask support_, last_support_;
  int64_t kept_ = 0;
  double rho_ = 0;
};

}  // namespace

MatrixOutcome prune_alps(const MatrixProblem& problem) {
  check_groups(problem);
  BRICK_ASSERT(problem.inputs != nullptr && problem.inputs->width() == problem.weight.cols);
  const MatView weight = problem.weight;
  const ScaledHessian scaled = scale_hessian(*problem.inputs, problem.options.damping);
  for (int64_t r = 0; r < weight.rows; ++r)
    kernels::multiply(weight.row(r), scaled.scale.data(), weight.row(r), weight.cols);
  Admm admm(problem, scaled.h.mat(), weight);
  MatrixOutcome out{admm.run(), false, {}};
  clear_dropped(out.mask.view(), weight);
  refit({scaled.h.mat(), admm.cross(), out.mask.view(), kRefitSteps}, weight);
  for (int64_t r = 0; r < weight.rows; ++r)
    for (int64_t c = 0; c < weight.cols; ++c) weight(r, c) /= scaled.scale[static_cast<size_t>(c)];
  return out;
}

}  // namespace brick::prune
