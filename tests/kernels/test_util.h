// Inputs, outputs and the one measure of error of the kernel tests.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "brick/base/cpu.h"
#include "brick/base/rng.h"
#include "brick/tensor/view.h"
#include "kernels/reference.h"

namespace brick::kernels {

// A float32 matrix with a gap after each row, so that a kernel which ignores the stride or writes too far is
// seen.
class Grid {
 public:
  Grid(int64_t row_count, int64_t col_count, float fill = std::numeric_limits<float>::quiet_NaN())
      : rows_(row_count),
        cols_(col_count),
        memory_(static_cast<size_t>(std::max<int64_t>(row_count * (col_count + kGap), 1)), kSentinel) {
    for (int64_t r = 0; r < rows_; ++r) std::fill_n(view().row(r), cols_, fill);
  }

  static Grid random(int64_t rows, int64_t cols, uint64_t stream, double deviation = 1.0) {
    Grid out(rows, cols);
    Rng rng(51, stream);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < cols; ++c) out(r, c) = static_cast<float>(deviation * rng.normal());
    return out;
  }

  tensor::MatView view() { return {memory_.data(), rows_, cols_, cols_ + kGap}; }
  tensor::ConstMatView view() const { return {memory_.data(), rows_, cols_, cols_ + kGap}; }
  float& operator()(int64_t r, int64_t c) { return view()(r, c); }
  float operator()(int64_t r, int64_t c) const { return view()(r, c); }
  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  const std::vector<float>& memory() const { return memory_; }

  ref::Array<double> exact() const {
    ref::Array<double> out(rows_, cols_);
    for (int64_t r = 0; r < rows_; ++r)
      for (int64_t c = 0; c < cols_; ++c) out(r, c) = (*this)(r, c);
    return out;
  }

  bool gaps_intact() const {
    for (int64_t r = 0; r < rows_; ++r)
      for (int64_t c = cols_; c < cols_ + kGap; ++c)
        if (memory_[static_cast<size_t>(r * (cols_ + kGap) + c)] != kSentinel) return false;
    return true;
  }

 private:
  static constexpr int64_t kGap = 3;
  static constexpr float kSentinel = 1234.5f;
  int64_t rows_, cols_;
  std::vector<float> memory_;
};

// The largest difference, in units of the largest value wanted or of `unit` if that is more; infinite where a
// number is missing or something was written between the rows.
inline double worst_error(const Grid& got, const ref::Array<double>& want, double unit = 0.0) {
  if (got.rows() != want.rows || got.cols() != want.cols || !got.gaps_intact())
    return std::numeric_limits<double>::infinity();
  double difference = 0, largest = unit;
  for (int64_t r = 0; r < want.rows; ++r)
    for (int64_t c = 0; c < want.cols; ++c) {
      if (!std::isfinite(got(r, c))) return std::numeric_limits<double>::infinity();
      difference = std::max(difference, std::fabs(got(r, c) - want(r, c)));
      largest = std::max(largest, std::fabs(want(r, c)));
    }
  return largest > 0 ? difference / largest : difference;
}

// Whether this CPU has it, whatever BRICK_ISA says.
inline bool has_avx2() {
  const std::vector<Isa> isas = available_isas();
  return std::find(isas.begin(), isas.end(), Isa::kAvx2) != isas.end();
}

// The worst error of each comparison of this process; printed when the program ends.
inline std::map<std::string, std::pair<double, double>>& worst_errors() {
  static std::map<std::string, std::pair<double, double>> errors;
  return errors;
}

// Passes if `error` is within `tolerance`; `what` names the comparison in the table at the end.
inline void expect_within(const std::string& what, double error, double tolerance) {
  auto& [worst, allowed] = worst_errors()[what];
  worst = std::max(worst, error);
  allowed = tolerance;
  EXPECT_LE(error, tolerance) << what;
}

inline ref::Array<double> random_direction(int64_t rows, int64_t cols, uint64_t stream) {
  return Grid::random(rows, cols, stream).exact();
}

// How far the slope along `direction` that `gradient` promises is from `slope`, in units of the gradient's
// norm.
inline double slope_error(const ref::Array<double>& gradient, const ref::Array<double>& direction, double slope) {
  return std::fabs(ref::inner(gradient, direction) - slope) / std::sqrt(ref::inner(gradient, gradient));
}

}  // namespace brick::kernels
