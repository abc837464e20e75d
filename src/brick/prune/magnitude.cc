#include <cmath>
#include <vector>

#include "brick/base/parallel.h"
#include "brick/prune/registry.h"
#include "brick/prune/selection.h"

namespace brick::prune {
namespace {

constexpr int64_t kRowGrain = 16;

}  // namespace

MatrixOutcome prune_magnitude(const MatrixProblem& problem) {
  check_groups(problem);
  const tensor::ConstMatView weight = problem.weight;
  const int64_t rows = weight.rows, cols = weight.cols;
  std::vector<float> scores(static_cast<size_t>(rows * cols));
  parallel_ranges(rows, kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      for (int64_t c = 0; c < cols; ++c) scores[static_cast<size_t>(r * cols + c)] = std::fabs(weight(r, c));
  });
  return {keep_highest(scores, rows, cols, problem.pattern, problem.sparsity), false, {}};
}

}  // namespace brick::prune
