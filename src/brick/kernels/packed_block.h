// Products with a block of packed columns: bfloat16 operands, float32 sums. Only where has_bf16_arithmetic(): with AMX
// where active_isa() has it and the system permits, else with AVX-512's dot products; both read the same order.
//
// A block is kBlockCols columns of b [k, n], k filled up with zeros to a multiple of kBlockRows, as panels of
// kPanelCols columns: pairs of rows, in each the columns' two values side by side, a cache line.
#pragma once

#include "brick/kernels/bf16_view.h"

namespace brick::kernels {

constexpr int64_t kBlockRows = 32, kBlockCols = 64, kPanelCols = 16;

// Values of a panel.
inline int64_t panel_size(int64_t k) { return (k + kBlockRows - 1) / kBlockRows * kBlockRows * kPanelCols; }

// c = a b + beta c, beta 0 or 1; a [m, k], c [m, at most kBlockCols]. Rows of a are read to the filled-up k: what
// stands there must be finite.
void multiply_block(ConstBf16View a, const uint16_t* block, float beta, Bf16View c) noexcept;
void multiply_block(ConstBf16View a, const uint16_t* block, float beta, tensor::MatView c) noexcept;

// A block from its columns, each a row of `columns` [at most kBlockCols, k]; zeros for what is missing.
void pack_columns(ConstBf16View columns, uint16_t* block) noexcept;

// Rows 2 pair and 2 pair + 1 of all blocks of b [k, n], one behind the other, n a multiple of kBlockCols.
void pack_row_pair(const float* even, const float* odd, int64_t n, int64_t pair, int64_t k, uint16_t* blocks) noexcept;

// A block from columns [first, first + kBlockCols) of rows that are bfloat16 already; beyond rows and columns zeros.
void pack_rows(ConstBf16View rows, int64_t first, uint16_t* block) noexcept;

}  // namespace brick::kernels
