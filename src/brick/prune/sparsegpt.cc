#include <algorithm>
#include <cstring>
#include <vector>

#include "brick/base/error.h"
#include "brick/base/parallel.h"
#include "brick/kernels/gemm.h"
#include "brick/kernels/vector_ops.h"
#include "brick/prune/inverse_factor.h"
#include "brick/prune/registry.h"
#include "brick/prune/selection.h"

namespace brick::prune {
namespace {

using kernels::Trans;
using tensor::ConstMatView;
using tensor::MatView;

constexpr int64_t kRowGrain = 8;

// Columns [begin, end) of the weight and the block of U on the diagonal.
struct ColumnBlock {
  int64_t begin, end;
  MatView weight;       // [out, size]
  ConstMatView factor;  // [size, size]

  int64_t size() const { return end - begin; }
};

float score(float weight, float diagonal) { return weight * weight / (diagonal * diagonal); }

void choose_by_threshold(const ColumnBlock& block, double sparsity, tensor::Mask& mask) {
  const int64_t rows = block.weight.rows, size = block.size();
  std::vector<float> scores(static_cast<size_t>(rows * size));
  parallel_ranges(rows, kRowGrain, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r)
      for (int64_t j = 0; j < size; ++j)
        scores[static_cast<size_t>(r * size + j)] = score(block.weight(r, j), block.factor(j, j));
  });
  const float threshold = kth_smallest(scores, share_of(rows * size, sparsity));
  parallel_ranges(rows, kRowGrain, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r)
      drop_up_to(std::span<const float>(scores).subspan(static_cast<size_t>(r * size), static_cast<size_t>(size)),
                 threshold, r, block.begin, mask);
  });
}

// n:m groups are chosen as the solver reaches them, after the corrections of the columns before.
void choose_group(const ColumnBlock& block, const Pattern& pattern, int64_t r, int64_t j, tensor::Mask& mask) {
  float scores[64];
  for (int64_t i = 0; i < pattern.group; ++i) scores[i] = score(block.weight(r, j + i), block.factor(j + i, j + i));
  const uint64_t dropped = lowest_of_group(scores, pattern);
  for (int64_t i = 0; i < pattern.group; ++i)
    if ((dropped >> i & 1u) != 0) mask.set(r, block.begin + j + i, false);
}

// Column by column: w_j -> 0 costs err = w_j / U_jj, and the columns behind it in the block lose err U_j,:.
void solve_rows(const ColumnBlock& block, const Pattern& pattern, MatView errors, tensor::Mask& mask) {
  const int64_t size = block.size();
  parallel_ranges(block.weight.rows, kRowGrain, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      float *w = block.weight.row(r), *error = errors.row(r);
      std::memset(error, 0, static_cast<size_t>(size) * sizeof(float));
      for (int64_t j = 0; j < size; ++j) {
        if (!pattern.unstructured() && j % pattern.group == 0) choose_group(block, pattern, r, j, mask);
        if (mask.kept(r, block.begin + j)) continue;
        error[j] = w[j] / block.factor(j, j);
        w[j] = 0.0f;
        if (error[j] != 0.0f) kernels::axpy(-error[j], block.factor.row(j) + j + 1, w + j + 1, size - j - 1);
      }
    }
  });
}

void clear_dead_columns(const InputStatistics& inputs, MatView weight) {
  for (int64_t c = 0; c < weight.cols; ++c) {
    if (inputs.sum_squares[static_cast<size_t>(c)] != 0.0) continue;
    for (int64_t r = 0; r < weight.rows; ++r) weight(r, c) = 0.0f;
  }
}

MatrixOutcome fall_back(const MatrixProblem& problem) {
  MatrixOutcome out = prune_wanda(problem);
  out.fell_back = true;
  out.note = fmt::format(
      "{}: the Hessian of its inputs is not positive definite even with damping {:g}: pruned by Wanda "
      "instead; more "
      "calibration text may help",
      problem.name, problem.inputs->factor.damping);
  return out;
}

}  // namespace

void prepare_sparsegpt(InputStatistics& inputs, const MethodOptions& options) {
  inputs.factor = factor_inverse(inputs, options.damping);
}

MatrixOutcome prune_sparsegpt(const MatrixProblem& problem) {
  check_groups(problem);
  BRICK_ASSERT(problem.inputs != nullptr && problem.inputs->width() == problem.weight.cols);
  const InverseFactor& factor = problem.inputs->factor;
  if (!factor.found()) return fall_back(problem);
  const MatView weight = problem.weight;
  const ConstMatView upper = factor.upper.mat();
  clear_dead_columns(*problem.inputs, weight);

  MatrixOutcome out{all_kept(weight.rows, weight.cols), false, {}};
  const int64_t step = std::min(problem.options.block_columns, weight.cols);
  tensor::Tensor error_memory = tensor::matrix(weight.rows, step);
  for (int64_t begin = 0; begin < weight.cols; begin += step) {
    const int64_t end = std::min(begin + step, weight.cols);
    const ColumnBlock block{begin, end, weight.col_range(begin, end),
                            upper.block(begin, end - begin, begin, end - begin)};
    if (problem.pattern.unstructured()) choose_by_threshold(block, problem.sparsity, out.mask);
    const MatView errors(error_memory.f32(), weight.rows, block.size());
    solve_rows(block, problem.pattern, errors, out.mask);
    kernels::gemm(Trans::kNo, Trans::kNo, -1.0f, errors, upper.block(begin, block.size(), end, weight.cols - end), 1.0f,
                  weight.col_range(end, weight.cols));
  }
  return out;
}

}  // namespace brick::prune
