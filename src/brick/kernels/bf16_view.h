// Views of activations that are held in bfloat16: the bits as uint16_t, row-major with a stride, as MatView.
#pragma once

#include <cstdint>

#include "brick/tensor/view.h"

namespace brick::kernels {

using Bf16View = tensor::BasicMatView<uint16_t>;
using ConstBf16View = tensor::BasicMatView<const uint16_t>;

}  // namespace brick::kernels
