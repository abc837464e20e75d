// Rotary position embedding (Su et al. 2021) in Hugging Face's half-split order: dimension i turns with i + d/2.
#pragma once

#include <cstdint>
#include <vector>

#include "brick/tensor/view.h"

namespace brick::kernels {

// cos and sin of position * inverse_frequency, [positions, head_dim / 2] each.
struct RopeTable {
  int64_t half = 0;
  std::vector<float> cosines, sines;
};

// Angles are taken in float32, as transformers does.
RopeTable make_rope_table(const std::vector<float>& inverse_frequency, int64_t positions);

// Turns every head of x [T, heads * head_dim] in place; positions [T] < the table's. The backward is the turn the
// other way.
void rope(const RopeTable& table, const int32_t* positions, int64_t head_dim, tensor::MatView x) noexcept;
void rope_backward(const RopeTable& table, const int32_t* positions, int64_t head_dim, tensor::MatView dx) noexcept;

}  // namespace brick::kernels
