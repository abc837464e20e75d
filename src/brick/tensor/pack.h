// Between encoded rows and float32: the scalar definition of every format. kernels/ has the fast forms.
#pragma once

#include <cstddef>
#include <cstdint>

#include "brick/tensor/tensor.h"

namespace brick::tensor {

// Decodes `count` values (whole blocks) of `dtype` at `source`. Integer types are not decoded.
void unpack(DType dtype, const std::byte* source, int64_t count, float* out);

// Encodes; the block formats of 32 values round as ggml's reference quantisers do, the K formats as k_quants.h says.
void pack(DType dtype, const float* values, int64_t count, std::byte* out);

// The largest magnitude that pack() may be given, and whether one of these is larger or no number. Block formats have
// scales in f16; their integers would allow a little more.
float largest_value(DType dtype);
bool overflows(DType dtype, const float* values, int64_t count);

// A whole tensor as float32, in any float or block format.
Tensor to_f32(const TensorView& source);
Tensor convert(const TensorView& source, DType dtype);

}  // namespace brick::tensor
