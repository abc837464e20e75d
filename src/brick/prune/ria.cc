// RIA (Zhang et al. 2024, "Plug-and-Play: An Efficient Post-training Pruning Method for Large Language Models", eq. 4):
// S_ij = (|W_ij| / sum_k |W_ik| + |W_ij| / sum_k |W_kj|) ||X_j||_2^a with the paper's a = 1/2: a weight counts by its
// share of its row and of its column, so that no channel loses everything. The threshold is the whole matrix's, as in
// the authors' code (at 32bb115), and drops what equals it too; n:m takes the lowest of each group.
// Not here: the authors' permutation of channels for n:m.
#include <cmath>
#include <vector>

#include "brick/base/error.h"
#include "brick/base/parallel.h"
#include "brick/prune/registry.h"
#include "brick/prune/selection.h"

namespace brick::prune {
namespace {

constexpr int64_t kRowGrain = 16;

double share(double part, double whole) { return whole > 0 ? part / whole : 0.0; }

}  // namespace

MatrixOutcome prune_ria(const MatrixProblem& problem) {
  check_groups(problem);
  BRICK_ASSERT(problem.inputs != nullptr && problem.inputs->width() == problem.weight.cols);
  const tensor::ConstMatView weight = problem.weight;
  const int64_t rows = weight.rows, cols = weight.cols;
  std::vector<double> row_sums(static_cast<size_t>(rows)), column_sums(static_cast<size_t>(cols));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      row_sums[static_cast<size_t>(r)] += std::fabs(static_cast<double>(weight(r, c)));
      column_sums[static_cast<size_t>(c)] += std::fabs(static_cast<double>(weight(r, c)));
    }
  }
  std::vector<double> norms(static_cast<size_t>(cols));  // ||X_j||^(1/2)
  for (size_t c = 0; c < norms.size(); ++c) norms[c] = std::pow(problem.inputs->sum_squares[c], 0.25);

  std::vector<float> scores(static_cast<size_t>(rows * cols));
  parallel_ranges(rows, kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      for (int64_t c = 0; c < cols; ++c) {
        const double size = std::fabs(static_cast<double>(weight(r, c)));
        scores[static_cast<size_t>(r * cols + c)] = static_cast<float>(
            (share(size, row_sums[static_cast<size_t>(r)]) + share(size, column_sums[static_cast<size_t>(c)])) *
            norms[static_cast<size_t>(c)]);
      }
    }
  });

  return {keep_highest(scores, rows, cols, problem.pattern, share_of(rows * cols, problem.sparsity) + 1), false, {}};
}

}  // namespace brick::prune
