#include "brick/tensor/pack.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "brick/base/error.h"
#include "brick/tensor/dtype_table.h"
#include "brick/tensor/k_quants.h"

namespace brick::tensor {
namespace {

uint16_t load_u16(const std::byte* p) {
  uint16_t bits;
  std::memcpy(&bits, p, 2);
  return bits;
}
void store_u16(std::byte* p, uint16_t bits) { std::memcpy(p, &bits, 2); }

uint8_t integer(float scaled, int limit) {
  return static_cast<uint8_t>(std::min(limit, static_cast<int>(static_cast<int8_t>(scaled))));
}

void store_nibbles(const uint8_t* q, std::byte* out) {
  for (int j = 0; j < 16; ++j) out[j] = static_cast<std::byte>((q[j] & 15) | q[j + 16] << 4);
}

void pack_q8_0(const float* x, std::byte* out) {
  float largest = 0;
  for (int j = 0; j < kQuantBlock; ++j) largest = std::max(largest, std::fabs(x[j]));
  const float d = largest / 127.0f, inverse = d != 0 ? 1.0f / d : 0.0f;
  store_u16(out, f32_to_f16(d));
  for (int j = 0; j < kQuantBlock; ++j)
    out[2 + j] = static_cast<std::byte>(static_cast<int8_t>(std::roundf(x[j] * inverse)));
}

// The value of largest magnitude, with its sign.
float extreme(const float* x) {
  float found = 0;
  for (int j = 0; j < kQuantBlock; ++j)
    if (std::fabs(x[j]) > std::fabs(found)) found = x[j];
  return found;
}

void pack_q4_0(const float* x, std::byte* out) {
  const float d = extreme(x) / -8.0f, inverse = d != 0 ? 1.0f / d : 0.0f;
  uint8_t q[kQuantBlock];
  for (int j = 0; j < kQuantBlock; ++j) q[j] = integer(x[j] * inverse + 8.5f, 15);
  store_u16(out, f32_to_f16(d));
  store_nibbles(q, out + 2);
}

// The first of equal ones counts, which decides the sign of a zero.
std::pair<float, float> minimum_and_step(const float* x, int steps) {
  const float minimum = *std::min_element(x, x + kQuantBlock), maximum = *std::max_element(x, x + kQuantBlock);
  return {minimum, (maximum - minimum) / static_cast<float>(steps)};
}

void pack_q4_1(const float* x, std::byte* out) {
  const auto [minimum, d] = minimum_and_step(x, 15);
  const float inverse = d != 0 ? 1.0f / d : 0.0f;
  uint8_t q[kQuantBlock];
  for (int j = 0; j < kQuantBlock; ++j) q[j] = integer((x[j] - minimum) * inverse + 0.5f, 15);
  store_u16(out, f32_to_f16(d));
  store_u16(out + 2, f32_to_f16(minimum));
  store_nibbles(q, out + 4);
}

void store_fifth_bits(const uint8_t* q, std::byte* out) {
  uint32_t bits = 0;
  for (int j = 0; j < kQuantBlock; ++j) bits |= uint32_t{q[j]} >> 4 << j;
  std::memcpy(out, &bits, 4);
}

void pack_q5_0(const float* x, std::byte* out) {
  const float d = extreme(x) / -16.0f, inverse = d != 0 ? 1.0f / d : 0.0f;
  uint8_t q[kQuantBlock];
  for (int j = 0; j < kQuantBlock; ++j) q[j] = integer(x[j] * inverse + 16.5f, 31);
  store_u16(out, f32_to_f16(d));
  store_fifth_bits(q, out + 2);
  store_nibbles(q, out + 6);
}

void pack_q5_1(const float* x, std::byte* out) {
  const auto [minimum, d] = minimum_and_step(x, 31);
  const float inverse = d != 0 ? 1.0f / d : 0.0f;
  uint8_t q[kQuantBlock];
  for (int j = 0; j < kQuantBlock; ++j) q[j] = integer((x[j] - minimum) * inverse + 0.5f, 31);
  store_u16(out, f32_to_f16(d));
  store_u16(out + 2, f32_to_f16(minimum));
  store_fifth_bits(q, out + 4);
  store_nibbles(q, out + 8);
}

void unpack_five_bits(const std::byte* block, bool offset, float* out) {
  const float d = f16_to_f32(load_u16(block));
  const float m = offset ? f16_to_f32(load_u16(block + 2)) : 0.0f;
  block += offset ? 4 : 2;
  uint32_t fifth;
  std::memcpy(&fifth, block, 4);
  for (int j = 0; j < kQuantBlock; ++j) {
    const auto byte = static_cast<uint8_t>(block[4 + j % 16]);
    const int q = (j < 16 ? byte & 15 : byte >> 4) | static_cast<int>(fifth >> j & 1) << 4;
    out[j] = offset ? d * static_cast<float>(q) + m : d * static_cast<float>(q - 16);
  }
}

}  // namespace

void unpack(DType dtype, const std::byte* source, int64_t count, float* out) {
  BRICK_ASSERT(count % info(dtype).block_values == 0);
  switch (dtype) {
    case DType::kF32:
      std::memcpy(out, source, static_cast<size_t>(count) * 4);
      return;
    case DType::kF16:
      for (int64_t i = 0; i < count; ++i) out[i] = f16_to_f32(load_u16(source + 2 * i));
      return;
    case DType::kBF16:
      for (int64_t i = 0; i < count; ++i) out[i] = bf16_to_f32(load_u16(source + 2 * i));
      return;
    case DType::kQ8_0:
      for (int64_t i = 0; i < count; i += kQuantBlock, source += kBlockBytes<DType::kQ8_0>, out += kQuantBlock) {
        const float d = f16_to_f32(load_u16(source));
        for (int j = 0; j < kQuantBlock; ++j) out[j] = d * static_cast<float>(static_cast<int8_t>(source[2 + j]));
      }
      return;
    case DType::kQ4_0:
    case DType::kQ4_1: {
      const bool offset = dtype == DType::kQ4_1;
      for (int64_t i = 0; i < count; i += kQuantBlock, out += kQuantBlock) {
        const float d = f16_to_f32(load_u16(source));
        const float m = offset ? f16_to_f32(load_u16(source + 2)) : -8.0f * d;
        source += offset ? 4 : 2;
        for (int j = 0; j < 16; ++j) {
          const auto byte = static_cast<uint8_t>(source[j]);
          out[j] = d * static_cast<float>(byte & 15) + m;
          out[j + 16] = d * static_cast<float>(byte >> 4) + m;
        }
        source += 16;
      }
      return;
    }
    case DType::kQ5_0:
    case DType::kQ5_1:
      for (int64_t i = 0; i < count; i += kQuantBlock, source += info(dtype).block_bytes, out += kQuantBlock)
        unpack_five_bits(source, dtype == DType::kQ5_1, out);
      return;
    case DType::kQ4_K:
    case DType::kQ5_K:
    case DType::kQ6_K:
      for (int64_t i = 0; i < count; i += kSuperBlock, source += info(dtype).block_bytes, out += kSuperBlock)
        unpack_super_block(dtype, source, out);
      return;
    default:
      BRICK_ASSERT(false && "integer types are not decoded");
  }
}

void pack(DType dtype, const float* values, int64_t count, std::byte* out) {
  BRICK_ASSERT(count % info(dtype).block_values == 0);
  switch (dtype) {
    case DType::kF32:
      std::memcpy(out, values, static_cast<size_t>(count) * 4);
      return;
    case DType::kF16:
      for (int64_t i = 0; i < count; ++i) store_u16(out + 2 * i, f32_to_f16(values[i]));
      return;
    case DType::kBF16:
      for (int64_t i = 0; i < count; ++i) store_u16(out + 2 * i, f32_to_bf16(values[i]));
      return;
    case DType::kQ8_0:
      for (int64_t i = 0; i < count; i += kQuantBlock, out += kBlockBytes<DType::kQ8_0>) pack_q8_0(values + i, out);
      return;
    case DType::kQ4_0:
      for (int64_t i = 0; i < count; i += kQuantBlock, out += kBlockBytes<DType::kQ4_0>) pack_q4_0(values + i, out);
      return;
    case DType::kQ4_1:
      for (int64_t i = 0; i < count; i += kQuantBlock, out += kBlockBytes<DType::kQ4_1>) pack_q4_1(values + i, out);
      return;
    case DType::kQ5_0:
      for (int64_t i = 0; i < count; i += kQuantBlock, out += kBlockBytes<DType::kQ5_0>) pack_q5_0(values + i, out);
      return;
    case DType::kQ5_1:
      for (int64_t i = 0; i < count; i += kQuantBlock, out += kBlockBytes<DType::kQ5_1>) pack_q5_1(values + i, out);
      return;
    case DType::kQ4_K:
    case DType::kQ5_K:
    case DType::kQ6_K:
      for (int64_t i = 0; i < count; i += kSuperBlock, out += info(dtype).block_bytes)
        pack_super_block(dtype, values + i, out);
      return;
    default:
      BRICK_ASSERT(false && "integer types are not encoded");
  }
}

float largest_value(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kBF16 ? std::numeric_limits<float>::max() : 65504.0f;
}

bool overflows(DType dtype, const float* values, int64_t count) {
  const float largest = largest_value(dtype);
  return !std::all_of(values, values + count, [=](float v) { return std::fabs(v) <= largest; });
}

Tensor to_f32(const TensorView& source) { return convert(source, DType::kF32); }

Tensor convert(const TensorView& source, DType dtype) {
  Tensor out(dtype, source.shape);
  if (source.dtype == dtype) {
    std::memcpy(out.bytes().data(), source.bytes.data(), source.bytes.size());
    return out;
  }
  const int64_t cols = source.shape.empty() ? 1 : source.shape.back();
  const int64_t rows = cols > 0 ? element_count(source.shape) / cols : 0;
  const int64_t in_bytes = row_bytes(source.dtype, cols), out_bytes = row_bytes(dtype, cols);
  std::vector<float> row(static_cast<size_t>(cols));
  for (int64_t r = 0; r < rows; ++r) {
    unpack(source.dtype, source.bytes.data() + r * in_bytes, cols, row.data());
    pack(dtype, row.data(), cols, out.bytes().data() + r * out_bytes);
  }
  return out;
}

}  // namespace brick::tensor
