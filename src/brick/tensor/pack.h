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

// A whole tensor as float32, in any float or block format.
Tensor to_f32(const TensorView& source);
Tensor convert(const TensorView& source, DType dtype);

}  // namespace brick::tensor
