// Element types of tensors in memory and on disk, GGUF's block formats included.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace brick::tensor {

// Block formats hold 32 consecutive values of a row (layouts as in ggml's quants):
//   Q8_0  f16 d, int8 q[32]                                      value = d q
//   Q4_0  f16 d, 16 bytes of nibbles                             value = d (q - 8)
//   Q4_1  f16 d, f16 m, 16 bytes of nibbles                      value = d q + m
//   Q5_0  f16 d, 4 bytes of fifth bits, 16 bytes of nibbles      value = d (q - 16)
//   Q5_1  f16 d, f16 m, 4 bytes of fifth bits, 16 of nibbles     value = d q + m
// Nibbles: byte j holds value j in its low half and value j + 16 in its high half; fifth bit j is value j's.
// The K formats hold 256 (k_quants.h).
enum class DType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kQ8_0,
  kQ4_0,
  kQ4_1,
  kU8,
  kI32,
  kI64,
  kQ5_0,
  kQ5_1,
  kQ4_K,
  kQ5_K,
  kQ6_K
};

constexpr int kQuantBlock = 32;
constexpr int kSuperBlock = 256;

struct DTypeInfo {
  std::string_view name;  // lower case, as the command prints it
  int block_values;       // values a block
  int block_bytes;        // bytes a block
};

const DTypeInfo& info(DType dtype);
inline std::string_view name(DType dtype) { return info(dtype).name; }
std::optional<DType> find_dtype(std::string_view name);
bool is_float(DType dtype);      // f32, f16, bf16
bool is_quantised(DType dtype);  // the block formats

// Bytes of one row of `columns` values; Error(kCorrupt) if they are no whole number of blocks.
int64_t row_bytes(DType dtype, int64_t columns);

// Conversions of single values; to_* round to nearest even, NaN stays NaN.
float f16_to_f32(uint16_t bits);
uint16_t f32_to_f16(float value);
inline float bf16_to_f32(uint16_t bits) { return __builtin_bit_cast(float, uint32_t{bits} << 16); }
uint16_t f32_to_bf16(float value);

}  // namespace brick::tensor
