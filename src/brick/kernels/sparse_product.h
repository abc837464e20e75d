// Products of activations with the kept weights of a sparse matrix alone. The weights are listed by output first; then
// every list meets 32 tokens at a time, which lie side by side: no multiplication with a zero, no gather. Lists are cut
// into stretches of inputs whose tokens stay in the first-level cache; those of the next stretch are fetched early.
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
// ones may be padding of value 0. Inputs ascend within a list; padding repeats the stretch's first.
struct KeptLists {
  KeptWeight* weights = nullptr;
  int64_t* begin = nullptr;  // [stretches outputs + 1]
  int64_t outputs = 0, inputs = 0, stretches = 0;
  int64_t width = 0;  // inputs of a stretch

  int64_t count() const { return begin[stretches * outputs]; }
  // Of output o's list in a stretch, without padding.
  int64_t kept(int64_t stretch, int64_t o) const;
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

// x [tokens, cols] as [blocks of kTokensAtATime, cols, kTokensAtATime], zeros where there is no token.
struct TokenBlocks {
  const float* values = nullptr;
  int64_t tokens = 0, cols = 0;

  int64_t blocks() const { return (tokens + kTokensAtATime - 1) / kTokensAtATime; }
  const float* block(int64_t b) const { return values + b * cols * kTokensAtATime; }
};
int64_t block_floats(int64_t tokens, int64_t cols);
TokenBlocks block_tokens(tensor::ConstMatView x, float* memory);  // of block_floats()

// y [T, outputs] = x [T, inputs] times the lists + beta y; beta 0 or 1.
void sparse_product(const KeptLists& lists, const TokenBlocks& x, float beta, tensor::MatView y);

// g[k] = sum over t of u(t, o) v(t, i) for weight k of the lists, from input i to output o: what a mask keeps of u^T v.
// Padding gets some number, too. u [T, outputs], v [T, inputs], g [lists.count()].
void sampled_product(const KeptLists& lists, const TokenBlocks& u, const TokenBlocks& v, float* g);

// Both at once: y = v times the lists + beta y, and g as above.
void sparse_and_sampled_product(const KeptLists& lists, const TokenBlocks& u, const TokenBlocks& v, float beta,
                                tensor::MatView y, float* g);

}  // namespace brick::kernels
