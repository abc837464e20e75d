// Products with a block of packed columns: bfloat16 operands, float32 sums. Only where has_bf16_arithmetic(): with AMX
// where active_isa() has it and the system permits, else with AVX-512's dot products; both read the same order.
//
// A block is kBlockCols columns of b [k, n], k filled up with zeros to a multiple of kBlockRows: pairs of rows, in each
// the columns' two values side by side.
#pragma once

#include "brick/kernels/bf16_view.h"

namespace brick::kernels {

constexpr int64_t kBlockRows = 32, kBlockCols = 64;

// c = a b + beta c, beta 0 or 1; a [m, k], c [m, at most kBlockCols]. Rows of a are read to the filled-up k: what
// stands there must be finite.
void multiply_block(ConstBf16View a, const uint16_t* block, float beta, Bf16View c) noexcept;
void multiply_block(ConstBf16View a, const uint16_t* block, float beta, tensor::MatView c) noexcept;

// A block from its columns, each a row of `columns` [at most kBlockCols, k]; zeros for what is missing.
void pack_columns(ConstBf16View columns, uint16_t* block) noexcept;

// Two rows of all blocks from rows [n], n a multiple of kBlockCols: each block's share, kBlockCols pairs, lies
// `block_size` values behind the one before it.
void pack_row_pair(const float* even, const float* odd, int64_t n, uint16_t* blocks, int64_t block_size) noexcept;

// A block from columns [first, first + kBlockCols) of rows that are bfloat16 already; beyond rows and columns zeros.
void pack_rows(ConstBf16View rows, int64_t first, uint16_t* block) noexcept;

}  // namespace brick::kernels
