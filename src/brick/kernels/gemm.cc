#include "brick/kernels/gemm.h"

#include <algorithm>
#include <oneapi/dnnl/dnnl.hpp>

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

void gemm_bf16(Trans trans_a, Trans trans_b, const uint16_t* a, const uint16_t* b, int64_t m, int64_t n, int64_t k,
               float beta, MatView c) {
  using dnnl::memory;
  if (m == 0 || n == 0) return;
  if (k == 0) return keep_only(beta, c);
  static dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  thread_local dnnl::stream stream(engine);
  const memory::desc a_desc({m, k}, memory::data_type::bf16,
                            trans_a == Trans::kYes ? memory::dims{1, m} : memory::dims{k, 1});
  const memory::desc b_desc({k, n}, memory::data_type::bf16,
                            trans_b == Trans::kYes ? memory::dims{1, k} : memory::dims{n, 1});
  const memory::desc c_desc({m, n}, memory::data_type::f32, memory::dims{c.stride, 1});
  dnnl::primitive_attr attributes;
  if (beta != 0.0f) {
    dnnl::post_ops sum;
    sum.append_sum(1.0f);
    attributes.set_post_ops(sum);
  }
  // oneDNN caches primitives by their description, so this costs microseconds after the first time.
  const dnnl::matmul product({{a_desc, b_desc, c_desc}, attributes, engine});
  memory a_memory(a_desc, engine, const_cast<uint16_t*>(a));
  memory b_memory(b_desc, engine, const_cast<uint16_t*>(b));
  memory c_memory(c_desc, engine, c.data);
  product.execute(stream, {{DNNL_ARG_SRC, a_memory}, {DNNL_ARG_WEIGHTS, b_memory}, {DNNL_ARG_DST, c_memory}});
  stream.wait();
}

}  // namespace brick::kernels
