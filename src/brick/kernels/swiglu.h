// The gated feed-forward's activation (Shazeer 2020): y = silu(g) u, silu(g) = g / (1 + exp(-g)).
#pragma once

#include "brick/tensor/view.h"

namespace brick::kernels {

// gate, up, y [T, F].
void swiglu(tensor::ConstMatView gate, tensor::ConstMatView up, tensor::MatView y) noexcept;

// dgate = dy u s (1 + g (1 - s)), dup = dy g s, with s the sigmoid of g. dgate may alias gate, dup may alias up.
void swiglu_backward(tensor::ConstMatView gate, tensor::ConstMatView up, tensor::ConstMatView dy, tensor::MatView dgate,
                     tensor::MatView dup) noexcept;

}  // namespace brick::kernels
