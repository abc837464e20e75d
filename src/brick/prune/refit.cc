#include "brick/prune/refit.h"

#include <vector>

#include "brick/base/error.h"
#include "brick/base/parallel.h"
#include "brick/kernels/gemm.h"
#include "brick/kernels/rows.h"
#include "brick/kernels/vector_ops.h"
#include "brick/prune/dense_layer.h"

namespace brick::prune {
namespace {

using kernels::Trans;
using tensor::ConstMatView;
using tensor::MatView;

constexpr int64_t kRowGrain = 8;
constexpr float kSolved = 1e-12f;  // of a row's first squared residual: below, float32 has no more to give

}  // namespace

void refit(const RefitProblem& problem, MatView weight) {
  const int64_t rows = weight.rows, cols = weight.cols;
  BRICK_ASSERT(problem.hessian.rows == cols && problem.cross.rows == rows);
  tensor::Tensor residual_memory = tensor::matrix(rows, cols), step_memory = tensor::matrix(rows, cols),
                 product_memory = tensor::matrix(rows, cols);
  const MatView residual = residual_memory.mat(), step = step_memory.mat(), product = product_memory.mat();
  std::vector<float> inverse_diagonal(static_cast<size_t>(cols));
  for (int64_t c = 0; c < cols; ++c) inverse_diagonal[static_cast<size_t>(c)] = 1.0f / problem.hessian(c, c);
  std::vector<float> first(static_cast<size_t>(rows)), last(static_cast<size_t>(rows));

  kernels::copy_rows(problem.cross, residual);
  kernels::gemm(Trans::kNo, Trans::kNo, -1.0f, weight, problem.hessian, 1.0f, residual);
  for (int64_t iteration = 0; iteration < problem.iterations; ++iteration) {
    parallel_ranges(rows, kRowGrain, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        float *res = residual.row(r), *z = product.row(r), *p = step.row(r);
        float &before = last[static_cast<size_t>(r)], &start = first[static_cast<size_t>(r)];
        clear_dropped(problem.mask, r, res);
        kernels::multiply(res, inverse_diagonal.data(), z, cols);
        const float now = kernels::dot(res, z, cols);
        if (iteration == 0) start = now;
        if (now <= kSolved * start) {
          before = 0.0f;
          continue;
        }
        kernels::scale(iteration > 0 ? now / before : 0.0f, p, cols);
        kernels::axpy(1.0f, z, p, cols);
        before = now;
      }
    });
    bool moving = false;
    for (const float left : last) moving = moving || left > 0.0f;
    if (!moving) return;
    kernels::gemm(Trans::kNo, Trans::kNo, 1.0f, step, problem.hessian, 0.0f, product);
    parallel_ranges(rows, kRowGrain, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const float curvature = kernels::dot(step.row(r), product.row(r), cols);
        if (last[static_cast<size_t>(r)] == 0.0f || !(curvature > 0.0f)) continue;
        const float length = last[static_cast<size_t>(r)] / curvature;
        kernels::axpy(length, step.row(r), weight.row(r), cols);
        kernels::axpy(-length, product.row(r), residual.row(r), cols);
      }
    });
  }
}

}  // namespace brick::prune
