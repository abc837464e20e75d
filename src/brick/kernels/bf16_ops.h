// The passes between products over activations that are held in bfloat16. Each value is rounded as it is stored;
// arithmetic is float32. Only where has_bf16_arithmetic(). The formulas are those of norm.h, rope.h and swiglu.h.
#pragma once

#include "brick/kernels/bf16_view.h"
#include "brick/kernels/rope.h"

namespace brick::kernels {

void to_bf16(tensor::ConstMatView x, Bf16View y) noexcept;
// Rows of x in bfloat16 at their old places, up to 32 zeros behind them as far as their room goes.
Bf16View to_bf16_in_place(tensor::MatView x) noexcept;
void to_f32(ConstBf16View x, tensor::MatView y) noexcept;

// y = x^T, zeros in its columns beyond the rows of x.
void transpose(ConstBf16View x, Bf16View y) noexcept;

// y = sums, or y += sums; in the calling thread alone.
void store_sums(const tensor::ConstMatView& sums, bool add, const Bf16View& y) noexcept;
void store_sums(const tensor::ConstMatView& sums, bool add, const tensor::MatView& y) noexcept;

// Beside y, `kept` receives x.
void rms_norm(tensor::ConstMatView x, const float* weight, float eps, Bf16View kept, Bf16View y,
              float* inverse_rms) noexcept;
// y again, of what was kept.
void rms_norm_again(ConstBf16View kept, const float* weight, const float* inverse_rms, Bf16View y) noexcept;
void rms_norm_backward(ConstBf16View kept, const float* weight, const float* inverse_rms, tensor::ConstMatView dy,
                       tensor::MatView dx) noexcept;

void rope(const RopeTable& table, const int32_t* positions, int64_t head_dim, Bf16View x) noexcept;
void rope_backward(const RopeTable& table, const int32_t* positions, int64_t head_dim, Bf16View dx) noexcept;

void swiglu(ConstBf16View gate, ConstBf16View up, Bf16View y) noexcept;
// gate and up become their gradients.
void swiglu_backward(Bf16View gate, Bf16View up, ConstBf16View dy) noexcept;

}  // namespace brick::kernels
