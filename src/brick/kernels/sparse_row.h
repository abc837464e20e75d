// Rows of a bitmask-sparse matrix against dense vectors. The kept values of the row lie packed, as float32; the mask is
// bit c % 64 of word c / 64 for column c, no bit beyond the last column.
#pragma once

#include <cstdint>

namespace brick::kernels {

// `packed` must be readable to this many floats past the last kept value; room too for a last block that is padded.
inline constexpr int64_t kPackedSlack = 32;

// The row's dot product with x [cols].
float sparse_dot(const uint64_t* mask, const float* packed, const float* x, int64_t cols) noexcept;

// The row with its zeros, out [cols].
void sparse_expand(const uint64_t* mask, const float* packed, int64_t cols, float* out) noexcept;

}  // namespace brick::kernels
