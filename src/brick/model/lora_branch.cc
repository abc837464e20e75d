#include "brick/model/lora_branch.h"

#include <algorithm>
#include <cmath>

#include "brick/base/parallel.h"
#include "brick/kernels/gemm.h"
#include "brick/kernels/linear.h"
#include "brick/kernels/vector_ops.h"

namespace brick::model {
namespace {

using kernels::Context;
using kernels::gemm;
using kernels::Trans;
using tensor::ConstMatView;
using tensor::MatView;

constexpr int64_t kRowGrain = 16;

// Multiplies the kept entries of out = x / (1 - p), the others are 0. Entry (t, i) always meets the same random number,
// so the backward repeats the forward's choice.
void apply_dropout(const Branch& branch, ConstMatView x, MatView out, bool accumulate) {
  const auto threshold = static_cast<uint64_t>(branch.dropout * 0x1p32);
  const float keep_scale = static_cast<float>(1.0 / (1.0 - branch.dropout));
  parallel_ranges(x.rows, kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      for (int64_t i = 0; i < x.cols; i += 4) {
        const auto random =
            philox(branch.dropout_seed, branch.dropout_stream, static_cast<uint64_t>(t * ((x.cols + 3) / 4) + i / 4));
        for (int64_t j = i; j < std::min(i + 4, x.cols); ++j) {
          const float kept = random[static_cast<size_t>(j - i)] >= threshold ? x(t, j) * keep_scale : 0.0f;
          out(t, j) = accumulate ? out(t, j) + kept : kept;
        }
      }
  });
}

// drop(x), or x itself where nothing is dropped.
ConstMatView branch_input(Context& context, const Branch& branch, ConstMatView x) {
  if (branch.dropout <= 0) return x;
  const MatView dropped(context.scratch(Context::kBranch, x.rows * x.cols), x.rows, x.cols);
  apply_dropout(branch, x, dropped, false);
  return dropped;
}

void keep_masked(tensor::MaskView mask, int64_t first_row, MatView values) {
  parallel_ranges(values.rows, kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const uint64_t* words = mask.row(first_row + r);
      float* row = values.row(r);
      for (int64_t c = 0; c < values.cols; ++c)
        if ((words[c / 64] >> (c % 64) & 1u) == 0) row[c] = 0.0f;
    }
  });
}

template <class Body>
void for_each_piece(const tensor::Matrix& weight, Body&& body) {
  const int64_t step = kernels::rows_a_piece(weight);
  for (int64_t begin = 0; begin < weight.rows(); begin += step) body(begin, std::min(begin + step, weight.rows()));
}

// Rows [begin, end) of W + c M * (B A).
MatView effective_rows(Context& context, const tensor::Matrix& weight, const Branch& branch, int64_t begin, int64_t end) {
  const int64_t cols = weight.cols(), piece = kernels::rows_a_piece(weight) * cols;
  float* memory = context.scratch(Context::kWeights, 2 * piece);
  const MatView out(memory, end - begin, cols), delta(memory + piece, end - begin, cols);
  kernels::expand_rows(weight, begin, end, out.data);
  delta_rows(weight, branch, begin, end, delta);
  parallel_ranges(out.rows, kRowGrain,
                  [&](int64_t first, int64_t last) { kernels::axpy(1.0f, delta.row(first), out.row(first), (last - first) * cols); });
  return out;
}

// Products with the masked delta are float32 whatever the context's arithmetic: rounding W + delta to bfloat16 would
// lose small deltas.
void project_masked(Context& context, const tensor::Matrix& weight, const Branch& branch, ConstMatView x, float beta,
                    MatView y) {
  if (branch.dropout <= 0) {
    for_each_piece(weight, [&](int64_t begin, int64_t end) {
      gemm(Trans::kNo, Trans::kYes, 1.0f, x, effective_rows(context, weight, branch, begin, end), beta,
           y.col_range(begin, end));
    });
    return;
  }
  kernels::linear(context, weight, x, beta, y);
  const ConstMatView dropped = branch_input(context, branch, x);
  for_each_piece(weight, [&](int64_t begin, int64_t end) {
    const MatView delta(context.scratch(Context::kWeights, kernels::rows_a_piece(weight) * weight.cols()), end - begin,
                        weight.cols());
    delta_rows(weight, branch, begin, end, delta);
    gemm(Trans::kNo, Trans::kYes, 1.0f, dropped, delta, 1.0f, y.col_range(begin, end));
  });
}

// With G = dy^T drop(x), masked: dB = c (M * G) A^T, dA = c B^T (M * G).
void masked_parameter_gradient(Context& context, const tensor::Matrix& weight, const Branch& branch, ConstMatView x,
                               ConstMatView dy, LoraPair& gradient) {
  const ConstMatView input = branch_input(context, branch, x);
  for_each_piece(weight, [&](int64_t begin, int64_t end) {
    const MatView g(context.scratch(Context::kWeights, kernels::rows_a_piece(weight) * weight.cols()), end - begin,
                    weight.cols());
    gemm(Trans::kYes, Trans::kNo, 1.0f, dy.col_range(begin, end), input, 0.0f, g);
    keep_masked(weight.sparse_view().mask, begin, g);
    gemm(Trans::kNo, Trans::kYes, branch.scale, g, branch.pair->a.mat(), 1.0f, gradient.b.mat().row_range(begin, end));
    gemm(Trans::kYes, Trans::kNo, branch.scale, branch.pair->b.mat().row_range(begin, end), g, 1.0f, gradient.a.mat());
  });
}

void masked_input_gradient(Context& context, const tensor::Matrix& weight, const Branch& branch, ConstMatView dy,
                           float beta, MatView dx) {
  if (branch.dropout <= 0) {
    for_each_piece(weight, [&](int64_t begin, int64_t end) {
      gemm(Trans::kNo, Trans::kNo, 1.0f, dy.col_range(begin, end), effective_rows(context, weight, branch, begin, end),
           begin == 0 ? beta : 1.0f, dx);
    });
    return;
  }
  kernels::linear_backward(context, weight, dy, beta, dx);
  const MatView through(context.scratch(Context::kBranch, dx.rows * dx.cols), dx.rows, dx.cols);
  for_each_piece(weight, [&](int64_t begin, int64_t end) {
    const MatView delta(context.scratch(Context::kWeights, kernels::rows_a_piece(weight) * weight.cols()), end - begin,
                        weight.cols());
    delta_rows(weight, branch, begin, end, delta);
    gemm(Trans::kNo, Trans::kNo, 1.0f, dy.col_range(begin, end), delta, begin == 0 ? 0.0f : 1.0f, through);
  });
  apply_dropout(branch, through, dx, true);
}

}  // namespace

void delta_rows(const tensor::Matrix& weight, const Branch& branch, int64_t begin, int64_t end, MatView out) {
  gemm(Trans::kNo, Trans::kNo, branch.scale, branch.pair->b.mat().row_range(begin, end), branch.pair->a.mat(), 0.0f, out);
  if (branch.masked && weight.is_sparse()) keep_masked(weight.sparse_view().mask, begin, out);
}

void project(Context& context, const tensor::Matrix& weight, const Branch& branch, ConstMatView x, float beta, MatView y,
             MatView hidden) {
  if (branch.pair == nullptr) return kernels::linear(context, weight, x, beta, y);
  if (branch.masked && weight.is_sparse()) return project_masked(context, weight, branch, x, beta, y);
  kernels::linear(context, weight, x, beta, y);
  gemm(Trans::kNo, Trans::kYes, 1.0f, branch_input(context, branch, x), branch.pair->a.mat(), 0.0f, hidden);
  gemm(Trans::kNo, Trans::kYes, branch.scale, hidden, branch.pair->b.mat(), 1.0f, y);
}

void project_backward(Context& context, const tensor::Matrix& weight, const Branch& branch, ConstMatView x,
                      ConstMatView hidden, ConstMatView dy, float beta, MatView dx, LoraPair* gradient) {
  if (branch.pair != nullptr && branch.masked && weight.is_sparse()) {
    if (gradient != nullptr) masked_parameter_gradient(context, weight, branch, x, dy, *gradient);
    if (dx.data != nullptr) masked_input_gradient(context, weight, branch, dy, beta, dx);
    return;
  }
  if (dx.data != nullptr) kernels::linear_backward(context, weight, dy, beta, dx);
  if (branch.pair == nullptr) return;

  const ConstMatView a = branch.pair->a.mat(), b = branch.pair->b.mat();
  const int64_t rank = a.rows, hidden_floats = x.rows * rank;
  const bool dropping = branch.dropout > 0;
  // dh [T, r] lies behind the dropped input in the same scratch.
  float* memory = context.scratch(Context::kBranch, hidden_floats + (dropping ? x.rows * x.cols : 0));
  const MatView d_hidden(memory + (dropping ? x.rows * x.cols : 0), x.rows, rank);
  gemm(Trans::kNo, Trans::kNo, branch.scale, dy, b, 0.0f, d_hidden);
  if (gradient != nullptr) {
    gemm(Trans::kYes, Trans::kNo, branch.scale, dy, hidden, 1.0f, gradient->b.mat());
    ConstMatView input = x;
    if (dropping) {
      const MatView dropped(memory, x.rows, x.cols);
      apply_dropout(branch, x, dropped, false);
      input = dropped;
    }
    gemm(Trans::kYes, Trans::kNo, 1.0f, d_hidden, input, 1.0f, gradient->a.mat());
  }
  if (dx.data == nullptr) return;
  if (!dropping) return gemm(Trans::kNo, Trans::kNo, 1.0f, d_hidden, a, 1.0f, dx);
  const MatView through(memory, x.rows, x.cols);
  gemm(Trans::kNo, Trans::kNo, 1.0f, d_hidden, a, 0.0f, through);
  apply_dropout(branch, through, dx, true);
}

}  // namespace brick::model
