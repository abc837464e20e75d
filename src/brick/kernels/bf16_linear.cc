#include "brick/kernels/bf16_linear.h"

#include <algorithm>

#include "brick/base/parallel.h"
#include "brick/kernels/bf16_ops.h"
#include "brick/kernels/linear.h"
#include "brick/kernels/masked_lora.h"
#include "brick/kernels/packed_product.h"
#include "brick/kernels/vector_ops.h"
#include "brick/tensor/dtype.h"

namespace brick::kernels {
namespace {

using tensor::BasicMatView;
using tensor::ConstMatView;
using tensor::MatView;

constexpr int64_t kGradientRows = 64;

bool keeps_mask(const LoraWeight& layer) { return layer.masked && layer.weight->is_sparse() && layer.a.rows > 0; }

// Of the pair that is columns and rows of its layer's product.
int64_t rank(const LoraWeight& layer) { return keeps_mask(layer) ? 0 : layer.a.rows; }
int64_t rank(std::span<const LoraWeight> layers) {
  int64_t out = 0;
  for (const LoraWeight& layer : layers) out += rank(layer);
  return out;
}

int64_t rows(std::span<const LoraWeight> layers) {
  int64_t out = 0;
  for (const LoraWeight& layer : layers) out += layer.weight->rows();
  return out;
}

// Row r of W, or of W + c M * (B A).
void write_weight_row(const LoraWeight& layer, int64_t r, float* out) {
  expand_row(*layer.weight, r, out);
  if (!keeps_mask(layer)) return;
  // W to the nearest, as without an adapter: the delta alone is dithered.
  if (layer.weight->dtype() != tensor::DType::kBF16) round_to_bf16(out, layer.weight->cols());
  add_delta_row(layer.weight->sparse_view().mask.row(r), layer.scale, layer.b.row(r), layer.a, out);
  dither_to_bf16(r, out, layer.weight->cols());
}

// Row r [cols] as it stands in the product with x: the layers' rows of W, then c B in the columns of its pair, 0 else.
void write_output_row(std::span<const LoraWeight> layers, int64_t r, int64_t cols, float* out) {
  int64_t first_rank = packed_columns(layers[0].weight->cols());
  for (const LoraWeight& layer : layers) {
    if (r < layer.weight->rows()) {
      write_weight_row(layer, r, out);
      std::fill(out + layer.weight->cols(), out + cols, 0.0f);
      for (int64_t k = 0; k < rank(layer); ++k) out[first_rank + k] = layer.scale * layer.b(r, k);
      return;
    }
    r -= layer.weight->rows();
    first_rank += rank(layer);
  }
}

// Row r as it stands in the product with dy: the layers' rows of W, zeros up to `first_rank`, rows of A, zeros.
void write_input_row(std::span<const LoraWeight> layers, int64_t r, int64_t first_rank, int64_t cols, float* out) {
  int64_t k = r - first_rank;
  for (const LoraWeight& layer : layers) {
    if (r < layer.weight->rows()) return write_weight_row(layer, r, out);
    r -= layer.weight->rows();
  }
  for (const LoraWeight& layer : layers) {
    if (k >= 0 && k < rank(layer)) {
      std::copy_n(layer.a.row(k), cols, out);
      return;
    }
    k -= rank(layer);
  }
  std::fill_n(out, cols, 0.0f);
}

// The layers' A one below the other.
void write_all_a(std::span<const LoraWeight> layers, Bf16View out) {
  int64_t row = 0;
  for (const LoraWeight& layer : layers)
    for (int64_t r = 0; r < rank(layer); ++r) to_bf16(layer.a.row(r), out.row(row++), out.cols);
}
// The layers' c B^T one below the other, each in the columns of its layer, zeros elsewhere.
void write_all_b(std::span<const LoraWeight> layers, Bf16View out) {
  std::fill(out.row(0), out.row(out.rows), uint16_t{0});
  int64_t row = 0, column = 0;
  for (const LoraWeight& layer : layers) {
    for (int64_t o = 0; o < layer.b.rows; ++o)
      for (int64_t r = 0; r < rank(layer); ++r)
        out(row + r, column + o) = tensor::f32_to_bf16(layer.scale * layer.b(o, r));
    row += rank(layer);
    column += layer.weight->rows();
  }
}

// Zeros where products read beyond the columns of x.
void clear_gap(Bf16View x) {
  const int64_t end = packed_columns(x.cols);
  for (int64_t t = 0; t < x.rows && end > x.cols; ++t) std::fill(x.row(t) + x.cols, x.row(t) + end, uint16_t{0});
}

// The room for h behind x.
Bf16View branch_room(Bf16View x, int64_t rank) {
  const int64_t begin = packed_columns(x.cols);
  return {x.data + begin, x.rows, branch_columns(x.cols, rank) - begin, x.stride};
}

// y = x b^T into the room behind x, b's rows [count, x.cols] left by write(b); y's other columns become 0.
template <class Write>
void branch_product(Context& context, ConstBf16View x, int64_t count, Write&& write, Bf16View y) {
  const int64_t blocks = block_count(y.cols), size = block_size(x.cols);
  float* memory = context.scratch(Context::kWeights, half(count * x.cols) + half(blocks * size));
  const Bf16View b(reinterpret_cast<uint16_t*>(memory), count, x.cols);
  auto* packed = reinterpret_cast<uint16_t*>(memory + half(count * x.cols));
  write(b);
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t first = std::min(block * kBlockCols, count);
    pack_columns(b.row_range(first, std::min(first + kBlockCols, count)), packed + block * size);
  }
  multiply_packed(x, packed, 0.0f, y);
}

template <class T>
void forward(Context& context, std::span<const LoraWeight> layers, Bf16View x, float beta, BasicMatView<T> y) {
  const int64_t pairs = rank(layers), all = branch_columns(x.cols, pairs);
  clear_gap(x);
  if (pairs > 0)
    branch_product(
        context, x, pairs, [&](Bf16View a) { write_all_a(layers, a); }, branch_room(x, pairs));
  multiply_by_rows(
      context, ConstBf16View(x.data, x.rows, all, x.stride),
      [&](int64_t r, float* row) { write_output_row(layers, r, all, row); }, beta, y.col_range(0, rows(layers)));
}

void add_gradients(std::span<const LoraWeight> layers, ConstMatView da, ConstMatView db) {
  int64_t first_rank = 0, first_out = 0;
  for (const LoraWeight& layer : layers) {
    for (int64_t r = 0; r < rank(layer) && layer.da.data != nullptr; ++r) {
      axpy(1.0f, da.row(first_rank + r), layer.da.row(r), layer.da.cols);
      const float* sums = db.row(first_rank + r) + first_out;
      for (int64_t o = 0; o < layer.db.rows; ++o) layer.db(o, r) += layer.scale * sums[o];
    }
    first_rank += rank(layer);
    first_out += layer.weight->rows();
  }
}

// Rows of G at a time: their products with all of x, then their part in dA and dB.
void add_masked_gradients(Context& context, const LoraWeight& layer, ConstBf16View x, ConstBf16View dy) {
  const int64_t in = x.cols, out = dy.cols, tokens = round_up(dy.rows, kBlockRows), pair_rank = layer.a.rows;
  const int64_t blocks = block_count(in), size = block_size(tokens), da_floats = pair_rank * in;
  const int64_t turned_floats = half(out * tokens), packed_floats = half(blocks * size);
  const int64_t g_floats = kGradientRows * in;
  float* memory =
      context.scratch(Context::kWeights, turned_floats + packed_floats + threads() * (da_floats + g_floats));
  const Bf16View dy_turned = turned(dy, tokens, reinterpret_cast<uint16_t*>(memory));
  auto* packed = reinterpret_cast<uint16_t*>(memory + turned_floats);
  float *all_da = memory + turned_floats + packed_floats, *all_g = all_da + threads() * da_floats;
  std::fill_n(all_da, threads() * da_floats, 0.0f);
  parallel_for(blocks, [&](int64_t block) { pack_rows(x, block * kBlockCols, packed + block * size); });
  parallel_ranges(out, kGradientRows, [&](int64_t begin, int64_t end) {
    const int thread = omp_get_thread_num();
    const MatView da(all_da + thread * da_floats, pair_rank, in);
    for (int64_t row = begin; row < end; row += kGradientRows) {
      const MatView g(all_g + thread * g_floats, std::min(kGradientRows, end - row), in);
      for (int64_t block = 0; block < blocks; ++block)
        multiply_block(dy_turned.row_range(row, row + g.rows), packed + block * size, 0.0f,
                       g.col_range(block * kBlockCols, std::min((block + 1) * kBlockCols, in)));
      for (int64_t r = 0; r < g.rows; ++r)
        masked_row_backward(layer.weight->sparse_view().mask.row(row + r), layer.scale, layer.b.row(row + r), layer.a,
                            g.row(r), layer.db.row(row + r), da);
    }
  });
  // Each thread summed its own dA; they are added in a fixed order.
  for (int t = 0; t < threads(); ++t)
    for (int64_t r = 0; r < pair_rank; ++r) axpy(1.0f, all_da + t * da_floats + r * in, layer.da.row(r), in);
}

template <class T>
void backward(Context& context, std::span<const LoraWeight> layers, Bf16View x, Bf16View dy, BasicMatView<T> dx) {
  const int64_t pairs = rank(layers), in = layers[0].weight->cols(), out = dy.cols, tokens = dy.rows;
  const int64_t all = branch_columns(out, pairs);
  clear_gap(dy);
  if (pairs > 0) {
    clear_gap(x);
    const Bf16View h = branch_room(x, pairs), dh = branch_room(dy, pairs);
    branch_product(
        context, x, pairs, [&](Bf16View a) { write_all_a(layers, a); }, h);
    branch_product(
        context, dy, pairs, [&](Bf16View b) { write_all_b(layers, b); }, dh);
    float* memory = context.scratch(Context::kThin, pairs * (in + out));
    const MatView da(memory, pairs, in), db(memory + pairs * in, pairs, out);
    outer_product(context, h.col_range(0, pairs), dy, db);
    outer_product(context, dh.col_range(0, pairs), x, da);
    add_gradients(layers, da, db);
  }
  int64_t first_out = 0;
  for (const LoraWeight& layer : layers) {
    const int64_t end_out = first_out + layer.weight->rows();
    if (keeps_mask(layer) && layer.da.data != nullptr)
      add_masked_gradients(context, layer, x, dy.col_range(first_out, end_out));
    first_out = end_out;
  }
  if (dx.data == nullptr) return;
  const auto write = [&](int64_t r, float* row) { write_input_row(layers, r, packed_columns(out), in, row); };
  const ConstBf16View whole(dy.data, tokens, all, dy.stride);
  if constexpr (sizeof(T) == sizeof(uint16_t)) {
    if (all > piece_rows(in)) {  // which would be rounded each
      const MatView sums(context.scratch(Context::kBranch, tokens * in), tokens, in);
      multiply_by_columns(context, whole, write, 0.0f, sums);
      return to_bf16(sums, dx);
    }
  }
  multiply_by_columns(context, whole, write, 0.0f, dx);
}

}  // namespace

int64_t branch_columns(int64_t cols, int64_t rank) { return packed_columns(cols) + packed_columns(rank); }

void linear(Context& context, std::span<const LoraWeight> layers, Bf16View x, float beta, Bf16View y) {
  forward(context, layers, x, beta, y);
}
void linear(Context& context, std::span<const LoraWeight> layers, Bf16View x, float beta, MatView y) {
  forward(context, layers, x, beta, y);
}
void linear_backward(Context& context, std::span<const LoraWeight> layers, Bf16View x, Bf16View dy, Bf16View dx) {
  backward(context, layers, x, dy, dx);
}
void linear_backward(Context& context, std::span<const LoraWeight> layers, Bf16View x, Bf16View dy, MatView dx) {
  backward(context, layers, x, dy, dx);
}

}  // namespace brick::kernels
