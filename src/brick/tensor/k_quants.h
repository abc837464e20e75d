// ggml's K formats: super-blocks of 256 consecutive values of a row, in sub-blocks with small integer scales of their
// own. Layouts as in ggml's ggml-common.h:
//   Q4_K  f16 d, f16 m, 12 bytes of scales, 128 bytes of nibbles                     value = d s q - m t
//   Q5_K  f16 d, f16 m, 12 bytes of scales, 32 bytes of fifth bits, 128 of nibbles   value = d s q - m t
//   Q6_K  128 bytes of nibbles, 64 bytes of upper bit pairs, int8 s[16], f16 d       value = d s (q - 32)
// with integers s, t in 0..63 for each of 8 sub-blocks of 32 values (Q4_K, Q5_K), or s for each of 16 of 16 (Q6_K).
#pragma once

#include <cstddef>

#include "brick/tensor/dtype.h"

namespace brick::tensor {

// Decodes one super-block, operation by operation as ggml does.
void unpack_super_block(DType dtype, const std::byte* block, float* out);

// Encodes one. Our own search: it minimises sum w (value - x)^2 over scales, minima and integers by alternating
// least squares from several step sizes, then chooses the small integers by the same sum. As in ggml's quantiser for
// models without importance matrix, w = sqrt(mean x^2) + |x| in a sub-block (Q4_K, Q5_K) and x^2 (Q6_K).
void pack_super_block(DType dtype, const float* x, std::byte* block);

}  // namespace brick::tensor
