// Small random pruning problems and slow references, for the tests of prune/.
#pragma once

#include <cmath>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "brick/base/rng.h"
#include "brick/prune/registry.h"
#include "brick/prune/statistics.h"

namespace brick::prune {

inline tensor::Tensor matrix_of(int64_t rows, int64_t cols, const std::vector<float>& values) {
  tensor::Tensor out = tensor::matrix(rows, cols);
  std::memcpy(out.f32(), values.data(), values.size() * sizeof(float));
  return out;
}

inline tensor::Tensor random_matrix(int64_t rows, int64_t cols, uint64_t seed) {
  Rng rng(seed);
  tensor::Tensor out = tensor::matrix(rows, cols);
  for (int64_t i = 0; i < rows * cols; ++i) out.f32()[i] = static_cast<float>(rng.normal());
  return out;
}

// Rows whose neighbouring columns go together and whose columns differ in size.
inline tensor::Tensor correlated_inputs(int64_t rows, int64_t cols, uint64_t seed) {
  tensor::Tensor out = random_matrix(rows, cols, seed);
  const tensor::MatView x = out.mat();
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 1; c < cols; ++c) x(r, c) = 0.8f * x(r, c - 1) + 0.6f * x(r, c);
    for (int64_t c = 0; c < cols; ++c) x(r, c) *= 0.5f + static_cast<float>(c * 7 % 5) / 2.0f;
  }
  return out;
}

inline InputStatistics statistics_of(tensor::ConstMatView x, Needs needs) {
  StatisticsBuilder builder(needs, x.cols, x.rows);
  builder.add(x);
  return builder.take();
}

// Inputs with a given X^T X and one token, so that H = 2 gram.
inline InputStatistics statistics_from_gram(std::vector<double> gram) {
  InputStatistics out;
  out.tokens = 1;
  const auto width = static_cast<size_t>(std::lround(std::sqrt(static_cast<double>(gram.size()))));
  for (size_t c = 0; c < width; ++c) out.sum_squares.push_back(gram[c * width + c]);
  out.sums.resize(width);
  out.gram = std::move(gram);
  return out;
}

inline InputStatistics copy_of(const InputStatistics& inputs) {
  InputStatistics out;
  out.tokens = inputs.tokens;
  out.sum_squares = inputs.sum_squares;
  out.sums = inputs.sums;
  out.gram = inputs.gram;
  return out;
}

struct Pruned {
  tensor::Tensor weight;  // zeros where the mask has them
  MatrixOutcome outcome;

  double sparsity() const {
    const tensor::MaskView mask = outcome.mask.view();
    return 1.0 - static_cast<double>(mask.count()) / static_cast<double>(mask.rows * mask.cols);
  }
};

inline Pruned run(const std::string& method_name, const tensor::Tensor& weight, const InputStatistics& known,
                  double sparsity, const std::string& pattern = "unstructured", const MethodOptions& options = {},
                  model::Proj proj = model::Proj::kQ) {
  const Method& method = *parse_recipe(method_name).method;
  InputStatistics inputs = copy_of(known);
  if (method.prepare != nullptr) method.prepare(inputs, options);
  Pruned out{weight.clone(), {}};
  MatrixProblem problem;
  problem.name = "w";
  problem.proj = proj;
  problem.weight = out.weight.mat();
  problem.inputs = &inputs;
  problem.sparsity = sparsity;
  problem.pattern = parse_pattern(pattern);
  problem.options = options;
  out.outcome = method.prune(problem);
  for (int64_t r = 0; r < problem.weight.rows; ++r)
    for (int64_t c = 0; c < problem.weight.cols; ++c)
      if (!out.outcome.mask.kept(r, c)) problem.weight(r, c) = 0.0f;
  return out;
}

// "1101" for a row's mask.
inline std::string row_of(const tensor::Mask& mask, int64_t r) {
  std::string out;
  for (int64_t c = 0; c < mask.cols(); ++c) out += mask.kept(r, c) ? '1' : '0';
  return out;
}

inline int64_t differing(const tensor::Mask& a, const tensor::Mask& b) {
  int64_t count = 0;
  for (int64_t r = 0; r < a.rows(); ++r)
    for (int64_t c = 0; c < a.cols(); ++c) count += a.kept(r, c) != b.kept(r, c) ? 1 : 0;
  return count;
}

// ||X (W - W')^T||^2 in double.
inline double squared_output_error(tensor::ConstMatView x, tensor::ConstMatView before, tensor::ConstMatView after) {
  double total = 0;
  for (int64_t t = 0; t < x.rows; ++t) {
    for (int64_t r = 0; r < before.rows; ++r) {
      double sum = 0;
      for (int64_t c = 0; c < x.cols; ++c)
        sum += static_cast<double>(x(t, c)) * (static_cast<double>(before(r, c)) - static_cast<double>(after(r, c)));
      total += sum * sum;
    }
  }
  return total;
}

// Inverse by Gauss-Jordan with pivots; row-major [n, n].
inline std::vector<double> inverse_of(std::vector<double> a, size_t n) {
  std::vector<double> inverse(n * n);
  for (size_t i = 0; i < n; ++i) inverse[i * n + i] = 1;
  for (size_t k = 0; k < n; ++k) {
    size_t pivot = k;
    for (size_t i = k + 1; i < n; ++i)
      if (std::fabs(a[i * n + k]) > std::fabs(a[pivot * n + k])) pivot = i;
    for (size_t j = 0; j < n; ++j) {
      std::swap(a[k * n + j], a[pivot * n + j]);
      std::swap(inverse[k * n + j], inverse[pivot * n + j]);
    }
    const double scale = 1 / a[k * n + k];
    for (size_t j = 0; j < n; ++j) {
      a[k * n + j] *= scale;
      inverse[k * n + j] *= scale;
    }
    for (size_t i = 0; i < n; ++i) {
      if (i == k) continue;
      const double factor = a[i * n + k];
      for (size_t j = 0; j < n; ++j) {
        a[i * n + j] -= factor * a[k * n + j];
        inverse[i * n + j] -= factor * inverse[k * n + j];
      }
    }
  }
  return inverse;
}

}  // namespace brick::prune
