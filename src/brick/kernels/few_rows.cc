#include "brick/kernels/few_rows.h"

#include <algorithm>
#include <array>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>

#include "brick/base/parallel.h"
#include "brick/kernels/integer_dot.h"
#include "brick/kernels/row_dot.h"
#include "brick/kernels/sparse_row.h"
#include "brick/kernels/vector_ops.h"

namespace brick::kernels {
namespace {

using tensor::ConstMatView;
using tensor::DType;
using tensor::kQuantBlock;
using tensor::Matrix;
using tensor::MatView;
using tensor::SparseCoding;

constexpr int64_t kRowGrain = 8;
constexpr int64_t kRowsAtATime = 8;  // of a weight: the activations stay in registers

// How a weight's rows meet the activations.
enum class Path : uint8_t {
  kIntegers,        // block formats with activations in int8
  kEncoded,         // decoded in registers
  kSparseF32,       // kept values in float32
  kSparseBf16,      // kept values in bfloat16
  kSparseIntegers,  // kept values in blocks of Q4_1 or as the parent has them, activations in int16
  kSparseLanes,     // the same, laid out for it, activations in 14 bits
  kSparseBothBf16,  // kept values and activations rounded to bfloat16
  kRows,            // one row after the other as float32
};
constexpr int kPaths = 8;

// The layouts of all PreparedWeights, by the weight.
class Layouts {
 public:
  std::shared_ptr<const RowLayout> find(const Matrix& weight) const {
    const std::shared_lock lock(mutex_);
    const auto found = layouts_.find(&weight.sparse_matrix());
    return found != layouts_.end() ? found->second.lock() : nullptr;
  }
  // Those that were there first, if another thread added some meanwhile.
  std::shared_ptr<const RowLayout> add(const Matrix& weight, std::shared_ptr<const RowLayout> layout) {
    const std::unique_lock lock(mutex_);
    std::erase_if(layouts_, [](const auto& entry) { return entry.second.expired(); });
    std::weak_ptr<const RowLayout>& entry = layouts_[&weight.sparse_matrix()];
    if (std::shared_ptr<const RowLayout> there = entry.lock()) return there;
    entry = layout;
    return layout;
  }

 private:
  mutable std::shared_mutex mutex_;
  std::unordered_map<const tensor::SparseMatrix*, std::weak_ptr<const RowLayout>> layouts_;
};

Layouts& layouts() {
  static Layouts all;
  return all;
}

// The kept values are read where they lie, and kernels read on to kPackedSlack values behind them.
bool has_slack(const tensor::SparseView& view, int64_t r, size_t bytes) {
  return view.row_offset[view.rows()] - view.row_offset[r + 1] >= kPackedSlack * bytes;
}

Path path_of(const Context& context, const Matrix& weight) {
  if (!weight.is_sparse()) {
    if (context.rounds_activations() && has_integer_dot(weight.dtype())) return Path::kIntegers;
    return has_encoded_dot(weight.dtype()) ? Path::kEncoded : Path::kRows;
  }
  const tensor::SparseView view = weight.sparse_view();
  if (context.compute() == Compute::kBf16 && has_sparse_dot_bf16()) return Path::kSparseBothBf16;
  if (view.dtype == DType::kF32) return Path::kSparseF32;
  if (view.dtype == DType::kBF16) return Path::kSparseBf16;
  if (view.coding != SparseCoding::kValues && context.rounds_activations() && has_sparse_dot_int16())
    return Path::kSparseIntegers;
  return Path::kRows;
}

// Whether products may use a layout of the weight: lanes round activations, pairs nothing, so they may stand in for
// rows in bfloat16 as well.
bool may_use_layout(const Context& context, const Matrix& weight) {
  return weight.is_sparse() && (weight.sparse_view().coding != SparseCoding::kQ4 || context.rounds_activations());
}

std::shared_ptr<const RowLayout> make_layout(const tensor::SparseView& view) {
  if (SparseLanes::fits(view)) return std::make_shared<const RowLayout>(std::in_place_type<SparseLanes>, view);
  if (SparsePairs::fits(view)) return std::make_shared<const RowLayout>(std::in_place_type<SparsePairs>, view);
  return nullptr;
}

// A row of activations in the forms that the products ask for.
struct Input {
  const float* values = nullptr;
  const float* block_sums = nullptr;  // of 32 values each
  const uint16_t* bf16 = nullptr;
  QuantisedRow int8{};
  Int16Row int16{};
  SplitRow split{};
};

int64_t input_floats(int64_t cols) {
  return cols / kQuantBlock + quantised_floats(cols) + 2 * ((cols + 1) / 2) + split_floats(cols);
}

Input prepare(const float* x, int64_t cols, const bool (&wanted)[kPaths], float* memory) {
  const auto wants = [&](Path path) { return wanted[static_cast<size_t>(path)]; };
  const int64_t blocks = cols / kQuantBlock;
  const auto take = [&](int64_t floats) {
    float* at = memory;
    memory += floats;
    return at;
  };
  Input input;
  input.values = x;
  if (wants(Path::kEncoded)) {
    float* sums = take(blocks);
    block_sums(x, blocks * kQuantBlock, sums);
    input.block_sums = sums;
  }
  if (wants(Path::kSparseBothBf16)) {
    auto* bf16 = reinterpret_cast<uint16_t*>(take((cols + 1) / 2));
    to_bf16(x, bf16, cols);
    input.bf16 = bf16;
  }
  if (wants(Path::kIntegers)) input.int8 = quantise_row(x, cols, take(quantised_floats(cols)));
  if (wants(Path::kSparseIntegers)) input.int16 = round_to_int16(x, cols, take((cols + 1) / 2));
  if (wants(Path::kSparseLanes)) input.split = split_row(x, cols, take(split_floats(cols)));
  return input;
}

// Rows of one weight. `memory` of 2 (cols + kPackedSlack) floats is this thread's own.
class RowRange {
 public:
  RowRange(Path path, const Matrix& weight, float* memory)
      : path_(path), weight_(weight), n_(weight.cols()), memory_(memory) {}

  // Calls store(r, t, value) with row r's product with each input, r in [begin, end).
  template <class Store>
  void run(int64_t begin, int64_t end, std::span<const Input> inputs, Store&& store) {
    int64_t r = begin;
    if (path_ == Path::kIntegers) {
      const tensor::DenseView view = weight_.dense_view();
      float out[kRowsAtATime];
      for (; r < end; r += kRowsAtATime) {
        const int64_t count = std::min(kRowsAtATime, end - r);
        for (size_t t = 0; t < inputs.size(); ++t) {
          integer_dots(view.dtype, view.row(r), count, inputs[t].int8, n_, out);
          for (int64_t i = 0; i < count; ++i) store(r + i, static_cast<int64_t>(t), out[i]);
        }
      }
    }
    if (path_ == Path::kSparseBf16) r = run_sparse_bf16(r, end, inputs, store);
    if (path_ == Path::kSparseIntegers) r = run_sparse_integers(r, end, inputs, store);
    for (; r < end; ++r) one(r, inputs, store);
  }

 private:
  // Up to where the kernel would read past the values' end; returns that row.
  template <class Store>
  int64_t run_sparse_bf16(int64_t r, int64_t end, std::span<const Input> inputs, Store&& store) {
    const tensor::SparseView view = weight_.sparse_view();
    const auto row = [&](int64_t at) {
      return SparseBf16Row{view.mask.row(at), reinterpret_cast<const uint16_t*>(view.values + view.row_offset[at])};
    };
    while (end > r && !has_slack(view, end - 1, sizeof(uint16_t))) --end;
    for (; r + 2 <= end; r += 2)
      for (size_t t = 0; t < inputs.size(); ++t) {
        float out[2];
        sparse_dot_pair({row(r), row(r + 1)}, inputs[t].values, n_, out);
        for (int i = 0; i < 2; ++i) store(r + i, static_cast<int64_t>(t), out[i]);
      }
    if (r < end)
      for (size_t t = 0; t < inputs.size(); ++t)
        store(r, static_cast<int64_t>(t), sparse_dot(row(r).mask, row(r).packed, inputs[t].values, n_));
    return end;
  }

  template <class Store>
  int64_t run_sparse_integers(int64_t r, int64_t end, std::span<const Input> inputs, Store&& store) {
    const tensor::SparseView view = weight_.sparse_view();
    const bool parent = view.coding == SparseCoding::kParent;
    auto* halves = reinterpret_cast<int16_t*>(memory_);
    for (; r < end; ++r)
      for (size_t t = 0; t < inputs.size(); ++t)
        store(r, static_cast<int64_t>(t),
              parent ? sparse_dot(view, r, inputs[t].int16, halves)
                     : sparse_dot(view.mask.row(r), view.values + view.row_offset[r], inputs[t].int16, n_, halves));
    return end;
  }

  template <class Store>
  void one(int64_t r, std::span<const Input> inputs, Store&& store) {
    const auto each = [&](auto&& dot_with) {
      for (size_t t = 0; t < inputs.size(); ++t) store(r, static_cast<int64_t>(t), dot_with(inputs[t]));
    };
    if (!weight_.is_sparse()) {
      const tensor::DenseView view = weight_.dense_view();
      const std::byte* row = view.row(r);
      if (path_ == Path::kEncoded)
        return each([&](const Input& x) { return dot_encoded(view.dtype, row, x.values, x.block_sums, n_); });
    } else {
      const tensor::SparseView view = weight_.sparse_view();
      const uint64_t* mask = view.mask.row(r);
      if (path_ == Path::kSparseBothBf16) {
        const uint16_t* packed = rounded_packed(view, r);
        return each([&](const Input& x) { return sparse_dot(mask, packed, x.bf16, n_); });
      }
      const std::byte* values = view.values + view.row_offset[r];
      const float* packed = memory_;
      if (view.dtype == DType::kF32 && has_slack(view, r, sizeof(float)))
        packed = reinterpret_cast<const float*>(values);
      else
        unpack_packed(view, r, memory_);
      return each([&](const Input& x) { return sparse_dot(mask, packed, x.values, n_); });
    }
    expand_row(weight_, r, memory_);
    each([&](const Input& x) { return dot(memory_, x.values, n_); });
  }

  // The kept values of row r as bfloat16.
  const uint16_t* rounded_packed(const tensor::SparseView& view, int64_t r) {
    const std::byte* values = view.values + view.row_offset[r];
    if (view.dtype == DType::kBF16 && has_slack(view, r, sizeof(uint16_t)))
      return reinterpret_cast<const uint16_t*>(values);
    auto* out = reinterpret_cast<uint16_t*>(memory_ + n_ + kPackedSlack);
    const int64_t count = packed_count(view, r);
    if (view.coding == SparseCoding::kQ4) {
      unpack_q4_1_bf16(values, count / kQuantBlock, out);
    } else {
      unpack_packed(view, r, memory_);
      to_bf16(memory_, out, count);
    }
    return out;
  }

  Path path_;
  const Matrix& weight_;
  int64_t n_;
  float* memory_;
};

int64_t own_floats(int64_t cols) { return 2 * (cols + kPackedSlack); }

// Products with at most so many weights at a time.
constexpr size_t kMostProducts = 4;
using LayoutOf = std::array<std::shared_ptr<const RowLayout>, kMostProducts>;

// Those of the products whose weights are laid out: each thread takes its share of every one. `own` are `each` floats
// of each thread.
void multiply_layouts(std::span<const Product> products, const LayoutOf& layout_of, ConstMatView x,
                      std::span<const Input> inputs, float* own, int64_t each) {
  SplitRow split[kFewRows];
  for (size_t t = 0; t < inputs.size(); ++t) split[t] = inputs[t].split;
  const int64_t team = threads();
  parallel_ranges(team, 1, [&](int64_t begin, int64_t end) {
    for (size_t i = 0; i < products.size(); ++i) {
      const float beta = products[i].beta;
      if (const auto* pairs = std::get_if<SparsePairs>(layout_of[i].get()))
        pairs->product(pairs->pairs() * begin / team, pairs->pairs() * end / team, x, beta, products[i].y);
      const auto* lanes = std::get_if<SparseLanes>(layout_of[i].get());
      const int64_t panels = lanes != nullptr ? lanes->panels() : 0;
      for (int64_t p = panels * begin / team; p < panels * end / team; ++p)
        lanes->product(p, {split, inputs.size()}, beta, products[i].y, own + omp_get_thread_num() * each);
    }
  });
}

}  // namespace

void linear_few_rows(Context& context, std::span<const Product> products, ConstMatView x) {
  for (; products.size() > kMostProducts; products = products.subspan(kMostProducts))
    linear_few_rows(context, products.first(kMostProducts), x);
  const int64_t cols = x.cols, each = input_floats(cols);
  int64_t rows = 0, own_each = own_floats(cols);
  bool wanted[kPaths] = {};
  LayoutOf layout_of;
  bool any_layout = false;
  for (size_t i = 0; i < products.size(); ++i) {
    const Matrix& weight = *products[i].weight;
    if (may_use_layout(context, weight)) layout_of[i] = layouts().find(weight);
    any_layout = any_layout || layout_of[i];
    if (!layout_of[i]) {
      rows += weight.rows();
      wanted[static_cast<size_t>(path_of(context, weight))] = true;
    } else if (const auto* lanes = std::get_if<SparseLanes>(layout_of[i].get())) {
      own_each = std::max(own_each, lanes->product_floats());
      wanted[static_cast<size_t>(Path::kSparseLanes)] = true;
    }
  }
  float* memory = context.scratch(Context::kInput, x.rows * each);
  Input inputs[kFewRows];
  for (int64_t t = 0; t < x.rows; ++t) inputs[t] = prepare(x.row(t), cols, wanted, memory + t * each);
  float* own = context.scratch(Context::kWeights, threads() * own_each);
  if (any_layout) multiply_layouts(products, layout_of, x, {inputs, static_cast<size_t>(x.rows)}, own, own_each);
  if (rows == 0) return;

  // The rows of all other weights, one behind the other, are shared out.
  parallel_ranges(rows, kRowGrain, [&](int64_t begin, int64_t end) {
    for (size_t i = 0; i < products.size(); ++i) {
      if (layout_of[i]) continue;
      const Product& product = products[i];
      const int64_t count = product.weight->rows();
      const int64_t first = std::max<int64_t>(begin, 0), last = std::min(end, count);
      if (first < last)
        RowRange(path_of(context, *product.weight), *product.weight, own + omp_get_thread_num() * own_each)
            .run(first, last, {inputs, static_cast<size_t>(x.rows)}, [&](int64_t r, int64_t t, float value) {
              product.y(t, r) = value + (product.beta != 0.0f ? product.y(t, r) : 0.0f);
            });
      begin -= count;
      end -= count;
    }
  });
}

void linear_few_rows(Context& context, const RowSource& weight, ConstMatView x, float beta, MatView y) {
  float* memory = context.scratch(Context::kWeights, threads() * weight.cols);
  parallel_ranges(weight.rows, kRowGrain, [&](int64_t begin, int64_t end) {
    float* row = memory + omp_get_thread_num() * weight.cols;
    for (int64_t r = begin; r < end; ++r) {
      weight.write(r, row);
      for (int64_t t = 0; t < x.rows; ++t) y(t, r) = dot(row, x.row(t), x.cols) + (beta != 0.0f ? y(t, r) : 0.0f);
    }
  });
}

PreparedWeights::PreparedWeights(const Context& context, std::span<const Matrix* const> weights) {
  for (const Matrix* weight : weights) {
    if (!may_use_layout(context, *weight)) continue;
    std::shared_ptr<const RowLayout> layout = layouts().find(*weight);
    if (!layout && (layout = make_layout(weight->sparse_view()))) layout = layouts().add(*weight, std::move(layout));
    if (layout) held_.push_back({*weight, std::move(layout)});
  }
}

int64_t PreparedWeights::extra_bytes() const {
  int64_t total = 0;
  for (const Held& held : held_)
    total += std::visit([](const auto& layout) { return layout.bytes(); }, *held.layout) - held.weight.bytes();
  return total;
}

}  // namespace brick::kernels
