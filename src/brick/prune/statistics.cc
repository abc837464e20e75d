#include "brick/prune/statistics.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "brick/base/checked.h"
#include "brick/base/parallel.h"
#include "brick/kernels/linear.h"
#include "brick/kernels/vector_ops.h"

namespace brick::prune {
namespace {

using tensor::ConstMatView;
using tensor::MatView;

constexpr int64_t kSampleRows = 256;
// Rows of X^T X a product: few, to compute little below its diagonal, but enough to be worth packing X for.
constexpr int64_t kFewestGramRows = 192, kMostGramRows = 384;
constexpr int64_t kSquareRows = 128;    // rows of X that are summed in float32
constexpr int64_t kSquareColumns = 64;  // least columns a thread

int64_t gram_rows(int64_t width) { return std::min(std::clamp(width / 4, kFewestGramRows, kMostGramRows), width); }

}  // namespace

int64_t InputStatistics::dead_columns() const { return std::count(sum_squares.begin(), sum_squares.end(), 0.0); }

std::vector<float> InputStatistics::column_norms() const {
  std::vector<float> norms;
  for (const double square : sum_squares) norms.push_back(static_cast<float>(std::sqrt(square)));
  return norms;
}

double InputStatistics::ridge(double damping) const {
  constexpr double kLeastDamping = 1e-6;
  const double trace = std::accumulate(sum_squares.begin(), sum_squares.end(), 0.0);
  return trace > 0 ? std::max(damping, kLeastDamping) * trace / static_cast<double>(width()) : 1.0;
}

StatisticsBuilder::StatisticsBuilder(Needs needs, int64_t width, int64_t tokens, kernels::Compute compute)
    : needs_(needs), context_(compute), sample_step_(std::max<int64_t>(1, (tokens + kSampleRows - 1) / kSampleRows)) {
  sums_.sum_squares.resize(static_cast<size_t>(width));
  sums_.sums.resize(static_cast<size_t>(width));
  sums_.sample = tensor::matrix((tokens + sample_step_ - 1) / sample_step_, width);
  if (needs_ == Needs::kHessian) {
    sums_.gram.resize(static_cast<size_t>(checked_mul(width, width, "matrix of input products")));
    scratch_ = tensor::matrix(gram_rows(width), width);
  } else {
    scratch_ = tensor::matrix(2, width);
  }
}

void StatisticsBuilder::add(ConstMatView x) {
  BRICK_ASSERT(x.cols == sums_.width());
  add_sample(x);
  add_sums(x);
  if (needs_ == Needs::kHessian)
    add_products(x);
  else
    add_squares(x);
  sums_.tokens += x.rows;
}

void StatisticsBuilder::add_sample(ConstMatView x) {
  for (int64_t t = sampled_ * sample_step_ - sums_.tokens; t < x.rows; t += sample_step_)
    std::memcpy(sums_.sample.mat().row(sampled_++), x.row(t), static_cast<size_t>(x.cols) * sizeof(float));
}

void StatisticsBuilder::add_sums(ConstMatView x) {
  float* sums = scratch_.mat().row(0);
  parallel_ranges(x.cols, kSquareColumns, [&](int64_t begin, int64_t end) {
    for (int64_t first = 0; first < x.rows; first += kSquareRows) {
      std::fill(sums + begin, sums + end, 0.0f);
      for (int64_t t = first; t < std::min(first + kSquareRows, x.rows); ++t)
        kernels::axpy(1.0f, x.row(t) + begin, sums + begin, end - begin);
      for (int64_t c = begin; c < end; ++c) sums_.sums[static_cast<size_t>(c)] += static_cast<double>(sums[c]);
    }
  });
}

void StatisticsBuilder::add_squares(ConstMatView x) {
  float* squares = scratch_.mat().row(0);
  float* sums = scratch_.mat().row(1);
  parallel_ranges(x.cols, kSquareColumns, [&](int64_t begin, int64_t end) {
    const int64_t count = end - begin;
    for (int64_t first = 0; first < x.rows; first += kSquareRows) {
      std::fill(sums + begin, sums + end, 0.0f);
      for (int64_t t = first; t < std::min(first + kSquareRows, x.rows); ++t) {
        kernels::multiply(x.row(t) + begin, x.row(t) + begin, squares + begin, count);
        kernels::axpy(1.0f, squares + begin, sums + begin, count);
      }
      for (int64_t c = begin; c < end; ++c) sums_.sum_squares[static_cast<size_t>(c)] += static_cast<double>(sums[c]);
    }
  });
}

void StatisticsBuilder::add_products(ConstMatView x) {
  const int64_t width = x.cols, rows = gram_rows(width);
  for (int64_t begin = 0; begin < width; begin += rows) {
    const int64_t end = std::min(begin + rows, width);
    const MatView part(scratch_.f32(), end - begin, width - begin);
    kernels::weight_gradient(context_, x.col_range(begin, end), x.col_range(begin, width), part);
    parallel_ranges(part.rows, 1, [&](int64_t first, int64_t last) {
      for (int64_t r = first; r < last; ++r) {
        double* sum = sums_.gram.data() + (begin + r) * width + begin;
        for (int64_t c = r; c < part.cols; ++c) sum[c] += static_cast<double>(part(r, c));
      }
    });
  }
  for (int64_t c = 0; c < width; ++c)
    sums_.sum_squares[static_cast<size_t>(c)] = sums_.gram[static_cast<size_t>(c * width + c)];
}

InputStatistics StatisticsBuilder::take() { return std::move(sums_); }

}  // namespace brick::prune
