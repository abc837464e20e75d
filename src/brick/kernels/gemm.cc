#include "brick/kernels/gemm.h"

#include <oneapi/dnnl/dnnl.h>

#include <algorithm>

#include "brick/kernels/vector_ops.h"

namespace brick::kernels {

using tensor::ConstMatView;
using tensor::MatView;

namespace {

// c = beta c: what a product over no terms leaves, which oneDNN refuses to compute.
void keep_only(float beta, MatView c) noexcept {
  for (int64_t r = 0; r < c.rows; ++r)
    if (beta == 0.0f)
      std::fill_n(c.row(r), c.cols, 0.0f);
    else
      scale(beta, c.row(r), c.cols);
}

}  // namespace

void gemm(Trans trans_a, Trans trans_b, float alpha, ConstMatView a, ConstMatView b, float beta, MatView c) noexcept {
  const int64_t k = trans_a == Trans::kYes ? a.rows : a.cols;
  if (c.rows == 0 || c.cols == 0) return;
  if (k == 0) return keep_only(beta, c);
  dnnl_sgemm(trans_a == Trans::kYes ? 'T' : 'N', trans_b == Trans::kYes ? 'T' : 'N', c.rows, c.cols, k, alpha, a.data,
             a.stride, b.data, b.stride, beta, c.data, c.stride);
}

}  // namespace brick::kernels
