// DSnoT (Zhang et al. 2024, "Dynamic Sparse No Training"), from Wanda's mask, as the authors' code (at 297993f, flags
// at their defaults: the feed-forward matrices keep that mask): row by row, the dropped weights' mean output e =
// sum_dropped M_j, M_j = W_j mean(x_j), is brought towards 0 by trading places, at most 50 times and while |e| > 0.1
// with means taken times 2048, the tokens of the authors' windows. Back comes the dropped weight with the largest M_j /
// Var(x_j) in e's direction, out goes the kept one of the lowest Wanda score whose M_j is against it; n:m: the one of
// the lowest score in the same group, until e would change its sign. Ours: a row is done when no dropped weight in e's
// direction is left, and a group without a kept weight that has not moved is passed over. No weight changes, and every
// row (every group) loses as many as by Wanda.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "brick/base/error.h"
#include "brick/base/parallel.h"
#include "brick/prune/registry.h"
#include "brick/prune/selection.h"

namespace brick::prune {
namespace {

constexpr int64_t kRowGrain = 16;
constexpr int64_t kMostSwaps = 50;
constexpr double kSmallError = 0.1, kWindowTokens = 2048;

struct Columns {
  std::vector<double> norm, mean, variance;  // [in]; ||x||, mean(x) times kWindowTokens, Var(x)
};

Columns describe(const InputStatistics& inputs) {
  Columns out;
  const double tokens = static_cast<double>(std::max<int64_t>(inputs.tokens, 1));
  for (size_t c = 0; c < inputs.sum_squares.size(); ++c) {
    const double mean = inputs.sums[c] / tokens, square = inputs.sum_squares[c] / tokens;
    out.norm.push_back(std::sqrt(inputs.sum_squares[c]));
    out.mean.push_back(mean * kWindowTokens);
    out.variance.push_back(std::max(square - mean * mean, 1e-12 * square));
  }
  return out;
}

// Indices of a row in ascending order of key(c).
template <class Key>
std::vector<int64_t> sorted(std::vector<int64_t> columns, Key&& key) {
  std::stable_sort(columns.begin(), columns.end(), [&](int64_t a, int64_t b) { return key(a) < key(b); });
  return columns;
}

class Row {
 public:
  Row(const float* weight, const Columns& columns, const Pattern& pattern, int64_t row, tensor::Mask& mask)
      : weight_(weight), columns_(columns), pattern_(pattern), row_(row), mask_(mask) {}

  void trade() {
    std::vector<int64_t> dropped, kept;
    for (int64_t c = 0; c < mask_.cols(); ++c) (mask_.kept(row_, c) ? kept : dropped).push_back(c);
    double error = 0;
    for (const int64_t c : dropped) error += output(c);
    dropped = sorted(std::move(dropped), [&](int64_t c) {
      const double variance = columns_.variance[static_cast<size_t>(c)];
      return variance > 0 ? output(c) / variance : 0.0;
    });
    kept = sorted(std::move(kept), [&](int64_t c) { return score(c); });
    size_t most = dropped.size(), least = 0;  // next ones to come back, from either end
    std::vector<bool> moved(static_cast<size_t>(mask_.cols()));
    for (int64_t swap = 0; swap < kMostSwaps && std::fabs(error) > kSmallError && least < most; ++swap) {
      const int64_t back = error > 0 ? dropped[most - 1] : dropped[least];
      if (output(back) * error <= 0) return;  // the rest would make it worse
      const auto out = std::find_if(kept.begin(), kept.end(), [&](int64_t c) {
        if (moved[static_cast<size_t>(c)]) return false;
        return pattern_.unstructured() ? output(c) * error < 0 : c / pattern_.group == back / pattern_.group;
      });
      if (error > 0)
        --most;
      else
        ++least;
      if (out == kept.end()) continue;
      moved[static_cast<size_t>(*out)] = true;
      const double after = error + output(*out) - output(back);
      if (!pattern_.unstructured() && after * error <= 0) return;
      mask_.set(row_, back, true);
      mask_.set(row_, *out, false);
      error = after;
    }
  }

 private:
  double output(int64_t c) const { return static_cast<double>(weight_[c]) * columns_.mean[static_cast<size_t>(c)]; }
  double score(int64_t c) const {
    return std::fabs(static_cast<double>(weight_[c])) * columns_.norm[static_cast<size_t>(c)];
  }

  const float* weight_;
  const Columns& columns_;
  const Pattern& pattern_;
  int64_t row_;
  tensor::Mask& mask_;
};

bool is_skipped(const MatrixProblem& problem) {
  const bool is_mlp = problem.proj >= model::Proj::kGate;
  const std::string_view skip = problem.options.dsnot_skip;
  return skip == "mlp" ? is_mlp : skip == "attention" ? !is_mlp : false;
}

}  // namespace

MatrixOutcome prune_dsnot(const MatrixProblem& problem) {
  MatrixOutcome out = prune_wanda(problem);
  if (is_skipped(problem)) return out;
  const Columns columns = describe(*problem.inputs);
  parallel_ranges(problem.weight.rows, kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) Row(problem.weight.row(r), columns, problem.pattern, r, out.mask).trade();
  });
  return out;
}

}  // namespace brick::prune
