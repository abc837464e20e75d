#include "brick/kernels/forward_kl.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "brick/base/parallel.h"
#include "brick/kernels/vector_ops.h"

namespace brick::kernels {
namespace {

constexpr float kNoLogit = -std::numeric_limits<float>::infinity();

// q log(q / p)
double divergence(double q, double log_p) { return q > 0 ? q * (std::log(q) - log_p) : 0.0; }

void top_of_row(float* row, int64_t n, int64_t k, int32_t* ids, float* best) {
  int64_t count = 0;
  for (int64_t v = 0; v < n; ++v) {
    if (count == k && !(row[v] > best[k - 1])) continue;
    int64_t at = count < k ? count++ : k - 1;
    for (; at > 0 && row[v] > best[at - 1]; --at) {
      best[at] = best[at - 1];
      ids[at] = ids[at - 1];
    }
    best[at] = row[v];
    ids[at] = static_cast<int32_t>(v);
  }
  const float top = best[0];
  for (int64_t i = 0; i < k; ++i) row[ids[i]] = kNoLogit;
  const double others = exp_sum(top, row, n);
  double sum = others;
  for (int64_t i = 0; i < k; ++i) sum += std::exp(double{best[i]} - top);
  const double log_sum = std::log(sum);
  for (int64_t i = 0; i < k; ++i) best[i] = static_cast<float>(double{best[i]} - top - log_sum);
  best[k] = static_cast<float>(std::log(others) - log_sum);
}

void backward_row(float* row, int64_t n, int32_t target, int64_t k, const int32_t* ids, const float* q, double share,
                  double weight, float* loss) {
  const float top = max_value(row, n);
  const double target_logit = row[target];
  std::array<double, kMostTopTokens> p;  // logits less the largest, then probabilities
  for (int64_t i = 0; i < k; ++i) {
    p[static_cast<size_t>(i)] = double{row[ids[i]]} - top;
    row[ids[i]] = kNoLogit;
  }
  // A sum of its own: as one minus the others it would lose all digits where it is small.
  const double others = std::max(exp_sum(top, row, n), std::numeric_limits<float>::min());
  double sum = k < n ? others : 0.0;
  for (int64_t i = 0; i < k; ++i) sum += std::exp(p[static_cast<size_t>(i)]);
  const double log_sum = std::log(sum);

  double kl = divergence(q[k], std::log(others) - log_sum);
  for (int64_t i = 0; i < k; ++i) kl += divergence(q[i], p[static_cast<size_t>(i)] - log_sum);
  *loss = static_cast<float>((1 - share) * (log_sum + (top - target_logit)) + share * kl);

  scale(static_cast<float>(weight * (1 / sum - share * q[k] / others)), row, n);
  for (int64_t i = 0; i < k; ++i)
    row[ids[i]] = static_cast<float>(weight * (std::exp(p[static_cast<size_t>(i)]) / sum - share * q[i]));
  row[target] -= static_cast<float>(weight * (1 - share));
}

}  // namespace

void top_tokens(tensor::MatView logits, int64_t k, int32_t* ids, float* log_probabilities) noexcept {
  parallel_ranges(logits.rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      top_of_row(logits.row(t), logits.cols, k, ids + t * k, log_probabilities + t * (k + 1));
  });
}

void forward_kl_backward(tensor::MatView logits, const int32_t* targets, const TopTokens& teacher, float share,
                         float weight, float* losses) noexcept {
  const int64_t k = teacher.k;
  parallel_ranges(logits.rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      backward_row(logits.row(t), logits.cols, targets[t], k, teacher.ids + t * k, teacher.probabilities + t * (k + 1),
                   share, weight, losses + t);
  });
}

}  // namespace brick::kernels
