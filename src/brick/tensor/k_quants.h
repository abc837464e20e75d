// ggml's K formats: super-blocks of 256 consecutive values of a row, in sub-blocks with small integer scales of their
// own. Layouts as in ggml's ggml-common.h:
//   Q4_K  f16 d, f16 m, 12 bytes of scales, 128 bytes of nibbles                     value = d s q - m t
//   Q5_K  f16 d, f16 m, 12 bytes of scales, 32 bytes of fifth bits, 128 of nibbles   value = d s q - m t
//   Q6_K  128 bytes of nibbles, 64 bytes of upper bit pairs, int8 s[16], f16 d       value = d s (q - 32)
// with integers s, t in 0..63 for each of 8 sub-blocks of 32 values (Q4_K, Q5_K), or s for each of 16 of 16 (Q6_K).
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "brick/tensor/dtype.h"

namespace brick::tensor {

// The integers of a Q4_K or Q5_K super-block, from its 12 bytes of scales: the first four s and t in the low six bits
// of bytes 0-3 and 4-7; of the others, nibbles in 8-11 and their upper two bits above the first ones.
struct SixBits {
  std::array<uint8_t, 8> s, t;
};
inline SixBits load_six_bits(const std::byte* in) {
  uint32_t first[2], nibbles;
  std::memcpy(first, in, 8);
  std::memcpy(&nibbles, in + 8, 4);
  const auto eight = [](uint32_t four, uint32_t low_halves) {
    const uint32_t others = (low_halves & 0x0F0F0F0F) | (four >> 2 & 0x30303030);
    return (four & 0x3F3F3F3F) | uint64_t{others} << 32;
  };
  return std::bit_cast<SixBits>(std::array{eight(first[0], nibbles), eight(first[1], nibbles >> 4)});
}

// Decodes one super-block, operation by operation as ggml does.
void unpack_super_block(DType dtype, const std::byte* block, float* out);

// Encodes one. Our own search: it minimises sum w (value - x)^2 over scales, minima and integers by alternating
// least squares from several step sizes, then chooses the small integers by the same sum. As in ggml's quantiser for
// models without importance matrix, w = sqrt(mean x^2) + |x| in a sub-block (Q4_K, Q5_K) and x^2 (Q6_K).
void pack_super_block(DType dtype, const float* x, std::byte* block);

}  // namespace brick::tensor
