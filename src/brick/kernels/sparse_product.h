// Products of activations with the kept weights of a sparse matrix alone. The weights are listed by output first; then
// every list meets 32 tokens at a time, which lie side by side: no multiplication with a zero, no gather. Lists are cut
// into stretches of inputs whose tokens stay in the first-level cache.
#pragma once

#include <cstdint>
#include <functional>

#include "brick/tensor/mask.h"
#include "brick/tensor/tensor.h"

namespace brick::kernels {

// Whether this machine has the kernel (AVX2); without it expand the weight.
bool has_sparse_product() noexcept;

inline constexpr int64_t kTokensAtATime = 32;

// A kept weight and where its input's tokens lie: kTokensAtATime times the input's index.
struct KeptWeight {
  float value;
  uint32_t offset;
};

// Output o's weights in stretch s are [begin[s outputs + o], begin[s outputs + o + 1]), a multiple of four: the last
// ones may be padding of value 0.
struct KeptLists {
  KeptWeight* weights = nullptr;
  int64_t* begin = nullptr;  // [stretches outputs + 1]
  int64_t outputs = 0, inputs = 0, stretches = 0;

  int64_t count() const { return begin[stretches * outputs]; }
};

// Rows [first, last) of a sparse weight: write(r, out) leaves row r as float32 [cols], its zeros too. Several threads
// call it. Without it every kept weight is listed as 1.
struct KeptRows {
  tensor::MaskView mask;
  int64_t first, last;
  std::function<void(int64_t r, float* out)> write = {};

  int64_t count() const;
};

// For y = x W^T: outputs are the rows; for dx = dy W: outputs are the columns, inputs the rows from `first` on.
// `memory` of list_floats() floats holds the lists, of at most list_count() weights.
int64_t list_count(const KeptRows& rows);
int64_t list_floats(const KeptRows& rows);
KeptLists list_by_row(const KeptRows& rows, float* memory);
KeptLists list_by_column(const KeptRows& rows, float* memory);

// y [T, outputs] = x [T, inputs] times the lists + beta y; beta 0 or 1. `memory` of input_floats() floats.
int64_t input_floats(int64_t tokens, int64_t inputs);
void sparse_product(const KeptLists& lists, tensor::ConstMatView x, float beta, tensor::MatView y, float* memory);

// g[k] = sum over t of dy(t, o) x(t, i) for weight k of the lists, from input i to output o: of dy^T x what a mask
// keeps. Padding gets some number, too. dy [T, outputs], x [T, inputs], g [lists.count()]; `memory` of input_floats()
// of both.
void sampled_product(const KeptLists& lists, tensor::ConstMatView dy, tensor::ConstMatView x, float* g, float* memory);

}  // namespace brick::kernels
