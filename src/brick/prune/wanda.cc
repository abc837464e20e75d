#include <cmath>
#include <vector>

#include "brick/base/error.h"
#include "brick/prune/registry.h"
#include "brick/prune/selection.h"

namespace brick::prune {

MatrixOutcome prune_wanda(const MatrixProblem& problem) {
  check_groups(problem);
  BRICK_ASSERT(problem.inputs != nullptr && problem.inputs->width() == problem.weight.cols);
  const tensor::ConstMatView weight = problem.weight;
  const std::vector<float> norms = problem.inputs->column_norms();
  const auto score_row = [&](int64_t r, std::span<float> scores) {
    for (size_t c = 0; c < scores.size(); ++c) scores[c] = std::fabs(weight.row(r)[c]) * norms[c];
  };
  return {keep_highest_of_rows(weight.rows, weight.cols, problem.pattern, problem.sparsity, score_row), false, {}};
}

}  // namespace brick::prune
