// What packed_block.cc chooses from.
#pragma once

#include "brick/kernels/packed_block.h"

namespace brick::kernels {

// A result of kStripRows by kStripCols is summed at a time, then passed on as `sums` [rows, kStripCols].
constexpr int64_t kStripRows = 32, kStripCols = 32;

// sums = a (kStripRows rows or fewer) times two panels of a block, one behind the other. The view comes by reference:
// copying one that was just made waits for the stores before.
void strip_product_avx512(const ConstBf16View& a, const uint16_t* panels, float* sums) noexcept;

// Between these calls of one thread its tiles are set up.
bool amx_permitted();
void amx_begin() noexcept;
void amx_end() noexcept;
void strip_product_amx(const ConstBf16View& a, const uint16_t* panels, float* sums) noexcept;

}  // namespace brick::kernels
