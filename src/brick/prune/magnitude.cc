#include "brick/prune/registry.h"
#include "brick/prune/selection.h"

namespace brick::prune {

MatrixOutcome prune_magnitude(const MatrixProblem& problem) {
  check_groups(problem);
  const tensor::ConstMatView weight = problem.weight;
  const int64_t dropped = share_of(weight.rows * weight.cols, problem.sparsity) + 1;
  return {keep_highest(magnitudes(weight), weight.rows, weight.cols, problem.pattern, dropped), false, {}};
}

}  // namespace brick::prune
