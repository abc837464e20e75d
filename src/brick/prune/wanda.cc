#include <cmath>
#include <vector>

#include "brick/base/error.h"
#include "brick/base/parallel.h"
#include "brick/prune/registry.h"
#include "brick/prune/selection.h"

namespace brick::prune {
namespace {

constexpr int64_t kRowGrain = 16;

}  // namespace

MatrixOutcome prune_wanda(const MatrixProblem& problem) {
  check_groups(problem);
  BRICK_ASSERT(problem.inputs != nullptr && problem.inputs->width() == problem.weight.cols);
  const tensor::ConstMatView weight = problem.weight;
  const int64_t cols = weight.cols, dropped = share_of(cols, problem.sparsity);
  std::vector<float> norms(static_cast<size_t>(cols));
  for (size_t c = 0; c < norms.size(); ++c) norms[c] = static_cast<float>(std::sqrt(problem.inputs->sum_squares[c]));

  MatrixOutcome out{all_kept(weight.rows, cols), false, {}};
  parallel_ranges(weight.rows, kRowGrain, [&](int64_t begin, int64_t end) {
    std::vector<float> scores(static_cast<size_t>(cols));
    for (int64_t r = begin; r < end; ++r) {
      for (size_t c = 0; c < scores.size(); ++c) scores[c] = std::fabs(weight.row(r)[c]) * norms[c];
      if (problem.pattern.unstructured())
        drop_lowest(scores, dropped, r, out.mask);
      else
        drop_lowest_of_groups(scores, problem.pattern, r, out.mask);
    }
  });
  return out;
}

}  // namespace brick::prune
