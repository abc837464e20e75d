// Scalar definitions of every op, for T = double (the forward) and T = std::complex<double> (the gradient by
// complex step). Written from the formulas of the headers, not from the kernels.
#pragma once

#include <cmath>
#include <complex>
#include <cstdint>
#include <span>
#include <vector>

#include "brick/kernels/attention.h"

namespace brick::kernels::ref {

using Complex = std::complex<double>;

template <class T>
struct Array {
  int64_t rows = 0, cols = 0;
  std::vector<T> values;

  Array() = default;
  Array(int64_t row_count, int64_t col_count)
      : rows(row_count), cols(col_count), values(static_cast<size_t>(row_count * col_count)) {}
  template <class U>
  explicit Array(const Array<U>& other)
      : rows(other.rows), cols(other.cols), values(other.values.begin(), other.values.end()) {}

  T& operator()(int64_t r, int64_t c) { return values[static_cast<size_t>(r * cols + c)]; }
  const T& operator()(int64_t r, int64_t c) const { return values[static_cast<size_t>(r * cols + c)]; }
};

inline double real_part(double x) { return x; }
inline double real_part(const Complex& x) { return x.real(); }

// y_i = w_i x_i (mean_j x_j^2 + eps)^(-1/2); w [1, D].
template <class T>
Array<T> rms_norm(const Array<T>& x, const Array<double>& w, double eps) {
  Array<T> y(x.rows, x.cols);
  for (int64_t t = 0; t < x.rows; ++t) {
    T squares = 0;
    for (int64_t i = 0; i < x.cols; ++i) squares += x(t, i) * x(t, i);
    const T inverse = 1.0 / std::sqrt(squares / static_cast<double>(x.cols) + eps);
    for (int64_t i = 0; i < x.cols; ++i) y(t, i) = w(0, i) * x(t, i) * inverse;
  }
  return y;
}

// Dimension i of a head turns with i + head_dim / 2; the angle is rounded to float32, as the header says.
template <class T>
Array<T> rope(const Array<T>& x, std::span<const int32_t> positions, std::span<const float> inverse_frequency) {
  const auto half = static_cast<int64_t>(inverse_frequency.size());
  Array<T> y = x;
  for (int64_t t = 0; t < x.rows; ++t)
    for (int64_t head = 0; head < x.cols; head += 2 * half)
      for (int64_t i = 0; i < half; ++i) {
        const float angle = static_cast<float>(positions[t]) * inverse_frequency[i];
        const double c = std::cos(double{angle}), s = std::sin(double{angle});
        y(t, head + i) = x(t, head + i) * c - x(t, head + half + i) * s;
        y(t, head + half + i) = x(t, head + half + i) * c + x(t, head + i) * s;
      }
  return y;
}

template <class T>
Array<T> swiglu(const Array<T>& gate, const Array<T>& up) {
  Array<T> y(gate.rows, gate.cols);
  for (size_t i = 0; i < y.values.size(); ++i) {
    const T g = gate.values[i];
    // The same function for either sign of g, in the form whose exponential cannot overflow.
    const T s = real_part(g) < 0 ? std::exp(g) / (1.0 + std::exp(g)) : 1.0 / (1.0 + std::exp(-g));
    y.values[i] = g * s * up.values[i];
  }
  return y;
}

// [T, 1]
template <class T>
Array<T> cross_entropy(const Array<T>& logits, std::span<const int32_t> targets) {
  Array<T> losses(logits.rows, 1);
  for (int64_t t = 0; t < logits.rows; ++t) {
    double top = real_part(logits(t, 0));
    for (int64_t v = 0; v < logits.cols; ++v) top = std::max(top, real_part(logits(t, v)));
    T sum = 0;
    for (int64_t v = 0; v < logits.cols; ++v) sum += std::exp(logits(t, v) - top);
    losses(t, 0) = std::log(sum) + top - logits(t, targets[t]);
  }
  return losses;
}

template <class T>
struct AttentionResult {
  Array<T> o, log_sum_exp;
};

template <class T>
AttentionResult<T> attention(const AttentionShape& shape, std::span<const AttentionSpan> spans, const Array<T>& q,
                             const Array<T>& k, const Array<T>& v) {
  const int64_t d = shape.head_dim, group = shape.heads / shape.kv_heads;
  AttentionResult<T> out{Array<T>(q.rows, q.cols), Array<T>(q.rows, shape.heads)};
  std::vector<T> score;
  for (const AttentionSpan& span : spans)
    for (int64_t i = 0; i < span.queries; ++i)
      for (int64_t h = 0; h < shape.heads; ++h) {
        const int64_t row = span.query_begin + i, q0 = h * d, k0 = h / group * d;
        const int64_t visible = span.keys - (span.queries - 1 - i);
        score.assign(static_cast<size_t>(visible), T{0});
        double top = -1e300;
        for (int64_t j = 0; j < visible; ++j) {
          T& s = score[static_cast<size_t>(j)];
          for (int64_t c = 0; c < d; ++c) s += q(row, q0 + c) * k(span.key_begin + j, k0 + c);
          s /= std::sqrt(static_cast<double>(d));
          top = std::max(top, real_part(s));
        }
        T sum = 0;
        for (T& s : score) sum += s = std::exp(s - top);
        for (int64_t j = 0; j < visible; ++j)
          for (int64_t c = 0; c < d; ++c)
            out.o(row, q0 + c) += score[static_cast<size_t>(j)] / sum * v(span.key_begin + j, k0 + c);
        out.log_sum_exp(row, h) = std::log(sum) + top;
      }
  return out;
}

// y = x w^T; w [out, in]
template <class T>
Array<T> linear(const Array<T>& x, const Array<double>& w) {
  Array<T> y(x.rows, w.rows);
  for (int64_t t = 0; t < x.rows; ++t)
    for (int64_t o = 0; o < w.rows; ++o) {
      T sum = 0;
      for (int64_t i = 0; i < w.cols; ++i) sum += x(t, i) * w(o, i);
      y(t, o) = sum;
    }
  return y;
}

// dx = dy w: the gradient of `linear`, which linear_test.cc checks against the complex step.
inline Array<double> linear_backward(const Array<double>& dy, const Array<double>& w) {
  Array<double> dx(dy.rows, w.cols);
  for (int64_t t = 0; t < dy.rows; ++t)
    for (int64_t o = 0; o < w.rows; ++o)
      for (int64_t i = 0; i < w.cols; ++i) dx(t, i) += dy(t, o) * w(o, i);
  return dx;
}

// sum dy * y
template <class T>
T inner(const Array<double>& dy, const Array<T>& y) {
  T sum = 0;
  for (size_t i = 0; i < dy.values.size(); ++i) sum += dy.values[i] * y.values[i];
  return sum;
}

// Im f(x + i h v) / h is the slope of f along v up to h^2, and no difference is taken, so h can be tiny.
constexpr double kComplexStep = 1e-40;

// d loss / dx, one element at a time. `loss` takes an Array<Complex>.
template <class Loss>
Array<double> gradient(const Array<double>& x, Loss&& loss) {
  Array<double> out(x.rows, x.cols);
  Array<Complex> stepped(x);
  for (size_t i = 0; i < x.values.size(); ++i) {
    stepped.values[i] = {x.values[i], kComplexStep};
    out.values[i] = loss(stepped).imag() / kComplexStep;
    stepped.values[i] = x.values[i];
  }
  return out;
}

// The slope of loss at x along `direction`: for cases too large to step every element.
template <class Loss>
double slope(const Array<double>& x, const Array<double>& direction, Loss&& loss) {
  Array<Complex> stepped(x);
  for (size_t i = 0; i < x.values.size(); ++i) stepped.values[i] = {x.values[i], kComplexStep * direction.values[i]};
  return loss(stepped).imag() / kComplexStep;
}

}  // namespace brick::kernels::ref
