#include "brick/federate/masked_fit.h"

#include <algorithm>

#include "brick/base/parallel.h"
#include "brick/kernels/gemm.h"

namespace brick::federate {
namespace {

using kernels::Trans;
using tensor::ConstMatView;
using tensor::MatView;

constexpr int64_t kChunk = 64;  // rows at a time
constexpr int64_t kOversample = 8;

// Y = Om T + (1 - Om) X = X + Om (T - X), X = us vt.
class FilledMap final : public LinearMap {
 public:
  FilledMap(ConstMatView t, ConstMatView omega, const LowRank& x)
      : t_(t),
        omega_(omega),
        us_(x.u.clone()),
        vt_(x.vt.mat()),
        pieces_(std::clamp<int64_t>(t.rows / kChunk, 1, threads())),
        buffers_(tensor::matrix(pieces_, kChunk * t.cols)) {
    for (int64_t r = 0; r < t.rows; ++r)
      for (int64_t i = 0; i < x.rank(); ++i) us_.mat()(r, i) *= static_cast<float>(x.s[static_cast<size_t>(i)]);
  }

  int64_t rows() const override { return t_.rows; }
  int64_t cols() const override { return t_.cols; }

  void times(ConstMatView q, MatView out) const override {
    for_chunks([&](int64_t, int64_t begin, int64_t end, ConstMatView y) {
      kernels::gemm(Trans::kNo, Trans::kNo, 1.0f, y, q, 0.0f, out.row_range(begin, end));
    });
  }

  void transposed_times(ConstMatView p, MatView out) const override {
    tensor::Tensor partial(tensor::DType::kF32, {pieces_, out.rows * out.cols});
    for_chunks([&](int64_t piece, int64_t begin, int64_t end, ConstMatView y) {
      kernels::gemm(Trans::kYes, Trans::kNo, 1.0f, y, p.row_range(begin, end), 1.0f,
                    {partial.mat().row(piece), out.rows, out.cols});
    });
    for (int64_t r = 0; r < out.rows; ++r)
      for (int64_t c = 0; c < out.cols; ++c) {
        out(r, c) = 0.0f;
        for (int64_t piece = 0; piece < pieces_; ++piece) out(r, c) += partial.mat()(piece, r * out.cols + c);
      }
  }

 private:
  template <class Body>
  void for_chunks(Body&& body) const {
    parallel_for(pieces_, [&](int64_t piece) {
      float* buffer = buffers_.mat().row(piece);
      const int64_t last = t_.rows * (piece + 1) / pieces_;
      for (int64_t begin = t_.rows * piece / pieces_; begin < last; begin += kChunk) {
        const int64_t end = std::min(begin + kChunk, last), count = (end - begin) * t_.cols;
        const MatView y{buffer, end - begin, t_.cols};
        kernels::gemm(Trans::kNo, Trans::kNo, 1.0f, us_.mat().row_range(begin, end), vt_, 0.0f, y);
        const float *t = t_.row(begin), *omega = omega_.row(begin);
        for (int64_t i = 0; i < count; ++i) buffer[i] += omega[i] * (t[i] - buffer[i]);
        body(piece, begin, end, y);
      }
    });
  }

  ConstMatView t_, omega_;
  tensor::Tensor us_;
  ConstMatView vt_;
  int64_t pieces_;
  mutable tensor::Tensor buffers_;  // one caller at a time
};

}  // namespace

LowRank masked_fit(const MatrixRound& round, const Trust& trust, int64_t rank, int64_t iterations, uint64_t seed) {
  if (round.all_dense() || trust.tau == 1.0) return average_svd(round, rank, seed);
  tensor::Tensor t = tensor::matrix(round.rows, round.cols), omega = tensor::matrix(round.rows, round.cols);
  if (!masked_mean(round, trust, t.mat(), omega.mat())) return average_svd(round, rank, seed);
  float *const begin = omega.f32(), *const end = begin + omega.size();
  const float largest = *std::max_element(begin, end);
  LowRank x = truncated_svd(t.mat(), rank, seed);
  if (largest <= 0.0f) return x;
  std::transform(begin, end, begin, [largest](float c) { return c / largest; });

  const bool direct = svd_is_direct(round.rows, round.cols, rank + kOversample);
  tensor::Tensor basis;
  if (!direct) basis = start_basis(x, round.cols, rank, kOversample, seed);
  for (int64_t i = 0; i < iterations; ++i) {
    const FilledMap filled(t.mat(), omega.mat(), x);
    x = direct ? truncated_svd(filled, rank, seed) : subspace_step(filled, rank, basis);
  }
  return x;
}

}  // namespace brick::federate
