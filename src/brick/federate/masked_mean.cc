#include "brick/federate/masked_mean.h"

#include <algorithm>

#include "brick/base/parallel.h"
#include "brick/kernels/gemm.h"

namespace brick::federate {
namespace {

using kernels::Trans;
using tensor::ConstMatView;
using tensor::MatView;

constexpr int64_t kChunk = 64;  // rows at a time: a few hundred kB a buffer

void product_rows(const Factor& factor, int64_t begin, int64_t end, MatView out) {
  kernels::gemm(Trans::kNo, Trans::kNo, static_cast<float>(factor.scale), factor.b.row_range(begin, end), factor.a,
                0.0f, out);
}

// covered += w M, sum += w M~ d; one row. `d` null: zero.
void add_row(const Contribution& client, int64_t row, float tau, const float* d, int64_t cols, float* covered,
             float* sum) {
  const float w = static_cast<float>(client.weight);
  if (!client.mask) {
    for (int64_t c = 0; c < cols; ++c) covered[c] += w;
    if (d != nullptr)
      for (int64_t c = 0; c < cols; ++c) sum[c] += w * d[c];
    return;
  }
  const uint64_t* words = client.mask->row(row);
  const float off = tau * w, weights[2] = {off, w};
  for (int64_t c0 = 0; c0 < cols; c0 += 64) {
    uint64_t bits = words[c0 / 64];
    const int64_t end = std::min(cols, c0 + 64);
    for (int64_t c = c0; c < end; ++c, bits >>= 1) {
      const uint64_t kept = bits & 1u;
      covered[c] += kept != 0 ? w : 0.0f;
      if (d != nullptr) sum[c] += weights[kept] * d[c];
    }
  }
}

// t = P_g + sum / C; covered becomes C.
void finish(float rest, const float* sum, int64_t count, float* covered, float* t) {
  for (int64_t i = 0; i < count; ++i) {
    const float c = covered[i] + rest * std::max(0.0f, 1.0f - covered[i]);
    covered[i] = c;
    t[i] += c > 0.0f ? sum[i] / c : 0.0f;
  }
}

}  // namespace

void masked_mean(const MatrixRound& round, const Trust& trust, MatView t, MatView weight) {
  const int64_t cols = round.cols, piece = kChunk * cols;
  const float tau = static_cast<float>(trust.tau), rest = static_cast<float>(trust.tau + trust.anchor);
  const int64_t pieces = std::clamp<int64_t>(round.rows / kChunk, 1, threads());
  tensor::Tensor buffers = tensor::matrix(pieces, 4 * piece);
  parallel_for(pieces, [&](int64_t p) {
    float* trained = buffers.mat().row(p);
    float *sent = trained + piece, *sum = sent + piece, *covered = sum + piece;
    for (int64_t begin = round.rows * p / pieces, last = round.rows * (p + 1) / pieces; begin < last; begin += kChunk) {
      const int64_t end = std::min(begin + kChunk, last), count = (end - begin) * cols;
      std::fill_n(sum, count, 0.0f);
      std::fill_n(covered, count, 0.0f);
      for (const Contribution& client : round.clients) {
        if (!client.unchanged) {
          product_rows(client.trained, begin, end, {trained, end - begin, cols});
          if (client.sent) {
            product_rows(*client.sent, begin, end, {sent, end - begin, cols});
            for (int64_t i = 0; i < count; ++i) trained[i] -= sent[i];
          }
        }
        for (int64_t r = begin; r < end; ++r) {
          const int64_t at = (r - begin) * cols;
          add_row(client, r, tau, client.unchanged ? nullptr : trained + at, cols, covered + at, sum + at);
        }
      }
      const MatView out = t.row_range(begin, end);
      if (round.global)
        product_rows(*round.global, begin, end, out);
      else
        std::fill_n(out.data, count, 0.0f);
      finish(rest, sum, count, covered, out.data);
      if (weight.data != nullptr) std::copy_n(covered, count, weight.row(begin));
    }
  });
}

}  // namespace brick::federate
