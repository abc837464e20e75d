#include "brick/model/lora_branch.h"

#include <algorithm>
#include <cmath>

#include "brick/base/parallel.h"
#include "brick/kernels/gemm.h"
#include "brick/kernels/kernel_table.h"
#include "brick/kernels/linear.h"
#include "brick/kernels/masked_lora.h"
#include "brick/kernels/sparse_product.h"
#include "brick/kernels/thin_product.h"
#include "brick/kernels/vector_ops.h"

namespace brick::model {
namespace {

using kernels::Context;
using kernels::gemm;
using kernels::RowSource;
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

const uint64_t* mask_row(const tensor::Matrix& weight, const Branch& branch, int64_t r) {
  return branch.masked && weight.is_sparse() ? weight.sparse_view().mask.row(r) : nullptr;
}

void add_delta(const tensor::Matrix& weight, const Branch& branch, int64_t r, float* out) {
  kernels::add_delta_row(mask_row(weight, branch, r), branch.scale, branch.pair->b.mat().row(r), branch.pair->a.mat(),
                         out);
}

// c M * (B A), and W + c M * (B A).
RowSource delta(const tensor::Matrix& weight, const Branch& branch) {
  return {weight.rows(), weight.cols(),
          [&](int64_t r, float* out) {
            std::fill_n(out, weight.cols(), 0.0f);
            add_delta(weight, branch, r, out);
          },
          weight.sparse_view().mask};
}
RowSource with_delta(const tensor::Matrix& weight, const Branch& branch) {
  return {weight.rows(), weight.cols(), [&](int64_t r, float* out) { effective_row(weight, branch, r, out); },
          weight.is_sparse() ? std::optional(weight.sparse_view().mask) : std::nullopt, true};
}

// One product with W + delta, in float32. Not where only the delta meets dropped inputs, and in bfloat16 only where few
// weights are kept: rounding the sum would lose small deltas.
bool adds_first(const Context& context, const tensor::Matrix& weight, const Branch& branch, int64_t tokens) {
  return branch.dropout <= 0 &&
         (context.compute() == kernels::Compute::kF32 ||
          kernels::sparse_product_wins(weight.sparse_view().mask, tokens, kernels::Compute::kF32));
}

void project_masked(Context& context, const tensor::Matrix& weight, const Branch& branch, ConstMatView x, float beta,
                    MatView y) {
  if (adds_first(context, weight, branch, x.rows))
    return kernels::linear(context, with_delta(weight, branch), x, beta, y);
  kernels::linear(context, weight, x, beta, y);
  kernels::linear(context, delta(weight, branch), branch_input(context, branch, x), 1.0f, y);
}

// With G = dy^T drop(x), masked: dB = c (M * G) A^T, dA = c B^T (M * G). Of G only what M keeps is computed, from lists
// that give dx = dy (W + delta) + beta dx, too, where `dx` is not null...
void sampled_gradient(Context& context, const tensor::Matrix& weight, const Branch& branch, ConstMatView input,
                      ConstMatView dy, float beta, MatView dx, LoraPair& gradient) {
  const ConstMatView a = branch.pair->a.mat(), b = branch.pair->b.mat();
  const int64_t step = kernels::rows_a_piece(weight), cols = weight.cols(), tokens = dy.rows;
  const int64_t input_floats = kernels::block_floats(tokens, cols);
  float* blocks =
      context.scratch(Context::kInput, input_floats + kernels::block_floats(tokens, std::min(step, weight.rows())));
  const kernels::TokenBlocks x = kernels::block_tokens(input, blocks);
  for (int64_t begin = 0; begin < weight.rows(); begin += step) {
    const int64_t end = std::min(begin + step, weight.rows());
    kernels::KeptRows rows{weight.sparse_view().mask, begin, end};
    if (dx.data != nullptr) rows.write = [&](int64_t r, float* out) { effective_row(weight, branch, r, out); };
    const int64_t list_floats = kernels::list_floats(rows), count = kernels::list_count(rows);
    float* memory =
        context.scratch(Context::kWeights, list_floats + count + kernels::masked_gradient_floats(a.rows, end - begin));
    const kernels::KeptLists lists = kernels::list_by_column(rows, memory);
    const kernels::TokenBlocks piece = kernels::block_tokens(dy.col_range(begin, end), blocks + input_floats);
    float* g = memory + list_floats;
    if (dx.data != nullptr)
      kernels::sparse_and_sampled_product(lists, x, piece, begin == 0 ? beta : 1.0f, dx, g);
    else
      kernels::sampled_product(lists, x, piece, g);
    kernels::masked_gradient(lists, g, branch.scale, b.row_range(begin, end), a, gradient.b.mat().row_range(begin, end),
                             gradient.a.mat(), g + count);
  }
}

// ... or all of it.
void whole_gradient(Context& context, const tensor::Matrix& weight, const Branch& branch, ConstMatView input,
                    ConstMatView dy, LoraPair& gradient) {
  const ConstMatView a = branch.pair->a.mat(), b = branch.pair->b.mat();
  const int64_t step = kernels::rows_a_piece(weight), cols = weight.cols(), a_floats = a.rows * cols;
  for (int64_t begin = 0; begin < weight.rows(); begin += step) {
    const int64_t end = std::min(begin + step, weight.rows());
    float* memory = context.scratch(Context::kThin, step * cols + threads() * a_floats);
    const MatView g(memory, end - begin, cols);
    kernels::weight_gradient(context, dy.col_range(begin, end), input, g);
    // Each thread sums its own dA; they are added in a fixed order.
    float* da = memory + step * cols;
    std::fill_n(da, threads() * a_floats, 0.0f);
    parallel_ranges(g.rows, kRowGrain, [&](int64_t first, int64_t last) {
      const MatView own(da + omp_get_thread_num() * a_floats, a.rows, cols);
      for (int64_t r = first; r < last; ++r)
        kernels::masked_row_backward(mask_row(weight, branch, begin + r), branch.scale, b.row(begin + r), a, g.row(r),
                                     gradient.b.mat().row(begin + r), own);
    });
    for (int t = 0; t < threads(); ++t) kernels::axpy(1.0f, da + t * a_floats, gradient.a.f32(), a_floats);
  }
}

void masked_input_gradient(Context& context, const tensor::Matrix& weight, const Branch& branch, ConstMatView dy,
                           float beta, MatView dx) {
  if (adds_first(context, weight, branch, dy.rows))
    return kernels::linear_backward(context, with_delta(weight, branch), dy, beta, dx);
  kernels::linear_backward(context, weight, dy, beta, dx);
  if (branch.dropout <= 0) return kernels::linear_backward(context, delta(weight, branch), dy, 1.0f, dx);
  const MatView through(context.scratch(Context::kBranch, dx.rows * dx.cols), dx.rows, dx.cols);
  kernels::linear_backward(context, delta(weight, branch), dy, 0.0f, through);
  apply_dropout(branch, through, dx, true);
}

void masked_backward(Context& context, const tensor::Matrix& weight, const Branch& branch, ConstMatView x,
                     ConstMatView dy, float beta, MatView dx, LoraPair* gradient) {
  const tensor::MaskView mask = weight.sparse_view().mask;
  if (gradient != nullptr) {
    const ConstMatView input = branch_input(context, branch, x);
    if (!kernels::sampled_product_wins(mask, dy.rows, context.compute())) {
      whole_gradient(context, weight, branch, input, dy, *gradient);
    } else if (adds_first(context, weight, branch, dy.rows) &&
               kernels::sparse_product_wins(mask, dy.rows, kernels::Compute::kF32)) {
      return sampled_gradient(context, weight, branch, input, dy, beta, dx, *gradient);
    } else {
      sampled_gradient(context, weight, branch, input, dy, beta, {}, *gradient);
    }
  }
  if (dx.data != nullptr) masked_input_gradient(context, weight, branch, dy, beta, dx);
}

// Whether W + delta is made for a product over `inner` columns or rows of W, rather than two thin products added to its
// result: in float32, where making it is no more work than those. bfloat16 would lose small deltas.
bool merges(const Context& context, const tensor::Matrix& weight, const Branch& branch, int64_t tokens, int64_t inner) {
  return context.compute() == kernels::Compute::kF32 && branch.dropout <= 0 && !weight.is_sparse() &&
         2 * tokens >= inner;
}

// With h = drop(x) A^T and dh = c dy B: dB += c dy^T h, dA += dh^T drop(x). Returns dh [T, r], valid until the next
// call; without `gradient` nothing else is computed.
MatView parameter_gradient(Context& context, const Branch& branch, ConstMatView x, ConstMatView dy,
                           LoraPair* gradient) {
  const ConstMatView a = branch.pair->a.mat(), b = branch.pair->b.mat();
  const ConstMatView input = gradient != nullptr ? branch_input(context, branch, x) : x;
  const int64_t rank = a.rows, wide = kernels::thin_width(rank), rows = dy.rows, in = a.cols, out = b.rows;
  float* memory = context.scratch(Context::kThin, wide * (2 * rows + 2 * in + 2 * out));
  const auto take = [&](int64_t count) {
    const MatView view(memory, count, wide);
    memory += count * wide;
    return view;
  };
  const MatView h = take(rows), dh = take(rows), a_t = take(in), wide_b = take(out);
  const MatView sums(memory, wide, out + in);
  for (int64_t i = 0; i < in; ++i)
    for (int64_t r = 0; r < wide; ++r) a_t(i, r) = r < rank ? a(r, i) : 0.0f;
  for (int64_t o = 0; o < out; ++o)
    for (int64_t r = 0; r < wide; ++r) wide_b(o, r) = r < rank ? b(o, r) : 0.0f;
  parallel_ranges(rows, kRowGrain, [&](int64_t begin, int64_t end) {
    kernels::thin_product(branch.scale, dy.row_range(begin, end), wide_b, dh.row_range(begin, end));
    if (gradient != nullptr)
      kernels::thin_product(branch.scale, input.row_range(begin, end), a_t, h.row_range(begin, end));
  });
  const MatView narrow_dh(dh.data, rows, rank, wide);
  if (gradient == nullptr) return narrow_dh;
  // Each thread sums columns of [dB^T dA] of its own over all tokens.
  parallel_ranges(out + in, kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t r = 0; r < wide; ++r) std::fill(sums.row(r) + begin, sums.row(r) + end, 0.0f);
    const int64_t split = std::clamp(out, begin, end);
    kernels::thin_outer_product(h, dy.col_range(begin, split), sums.col_range(begin, split));
    kernels::thin_outer_product(dh, input.col_range(split - out, end - out), sums.col_range(split, end));
    for (int64_t o = begin; o < split; ++o)
      for (int64_t r = 0; r < rank; ++r) gradient->b.mat()(o, r) += sums(r, o);
    for (int64_t r = 0; r < rank && split < end; ++r)
      kernels::axpy(1.0f, sums.row(r) + split, gradient->a.mat().row(r) + split - out, end - split);
  });
  return narrow_dh;
}

}  // namespace

void effective_row(const tensor::Matrix& weight, const Branch& branch, int64_t r, float* out) {
  kernels::expand_row(weight, r, out);
  add_delta(weight, branch, r, out);
}

void project(Context& context, const tensor::Matrix& weight, const Branch& branch, ConstMatView x, float beta,
             MatView y) {
  if (branch.pair == nullptr) return kernels::linear(context, weight, x, beta, y);
  if (branch.masked && weight.is_sparse()) return project_masked(context, weight, branch, x, beta, y);
  if (merges(context, weight, branch, x.rows, weight.cols()))
    return kernels::linear(context, with_delta(weight, branch), x, beta, y);
  kernels::linear(context, weight, x, beta, y);
  const ConstMatView input = branch_input(context, branch, x), a = branch.pair->a.mat(), b = branch.pair->b.mat();
  const MatView hidden(context.scratch(Context::kThin, x.rows * a.rows), x.rows, a.rows);
  parallel_ranges(x.rows, kRowGrain, [&](int64_t begin, int64_t end) {
    const MatView own = hidden.row_range(begin, end);
    gemm(Trans::kNo, Trans::kYes, 1.0f, input.row_range(begin, end), a, 0.0f, own);
    gemm(Trans::kNo, Trans::kYes, branch.scale, own, b, 1.0f, y.row_range(begin, end));
  });
}

void project_backward(Context& context, const tensor::Matrix& weight, const Branch& branch, ConstMatView x,
                      ConstMatView dy, float beta, MatView dx, LoraPair* gradient) {
  if (branch.pair != nullptr && branch.masked && weight.is_sparse())
    return masked_backward(context, weight, branch, x, dy, beta, dx, gradient);
  if (branch.pair == nullptr) {
    if (dx.data != nullptr) kernels::linear_backward(context, weight, dy, beta, dx);
    return;
  }
  const ConstMatView a = branch.pair->a.mat();
  const bool merged = merges(context, weight, branch, dy.rows, weight.rows());
  const bool thin = dx.data != nullptr && !merged;
  const MatView d_hidden =
      gradient != nullptr || thin ? parameter_gradient(context, branch, x, dy, gradient) : MatView();
  if (dx.data == nullptr) return;
  if (merged) return kernels::linear_backward(context, with_delta(weight, branch), dy, beta, dx);
  kernels::linear_backward(context, weight, dy, beta, dx);
  if (branch.dropout <= 0) return gemm(Trans::kNo, Trans::kNo, 1.0f, d_hidden, a, 1.0f, dx);
  const MatView dropped(context.scratch(Context::kBranch, dx.rows * dx.cols), dx.rows, dx.cols);
  gemm(Trans::kNo, Trans::kNo, 1.0f, d_hidden, a, 0.0f, dropped);
  apply_dropout(branch, dropped, dx, true);
}

}  // namespace brick::model
