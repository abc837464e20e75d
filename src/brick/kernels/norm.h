// Root-mean-square normalisation (Zhang and Sennrich 2019): y_i = w_i x_i r, r = (mean_j x_j^2 + eps)^(-1/2).
#pragma once

#include "brick/tensor/view.h"

namespace brick::kernels {

// x, y [T, D]; weight [D]; inverse_rms [T] receives r.
void rms_norm(tensor::ConstMatView x, const float* weight, float eps, tensor::MatView y, float* inverse_rms) noexcept;

// dx += dL/dx, from dy = dL/dy:  dx_i = r w_i dy_i - x_i r^3 / D sum_j dy_j w_j x_j.
void rms_norm_backward(tensor::ConstMatView x, const float* weight, const float* inverse_rms, tensor::ConstMatView dy,
                       tensor::MatView dx) noexcept;

}  // namespace brick::kernels
