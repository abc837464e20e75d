// The loss of distillation (Hinton et al. 2015, temperature 1): forward KL divergence from a teacher's distribution to
// a student's, over the teacher's likeliest tokens and all others together as one more outcome. Our choice: merging
// outcomes never raises a divergence, so this is a lower bound of the whole one, equal to it where k = V; dropping or
// renormalising the rest would pull the student's whole probability onto the teacher's k tokens.
#pragma once

#include <cstdint>

#include "brick/tensor/view.h"

namespace brick::kernels {

inline constexpr int64_t kMostTopTokens = 1024;

// What a teacher says of T next tokens: of each its k likeliest ones, and the others' probability together.
struct TopTokens {
  int64_t k = 0;                         // 1 to kMostTopTokens, at most V
  const int32_t* ids = nullptr;          // [T, k], distinct in a row
  const float* probabilities = nullptr;  // [T, k + 1], the others' last; a row sums to 1
};

// The k likeliest tokens of each row by falling probability, equal ones by rising id. log_probabilities [T, k + 1]: of
// each, and of all others together (-infinity where k = V). logits [T, V] are overwritten.
void top_tokens(tensor::MatView logits, int64_t k, int32_t* ids, float* log_probabilities) noexcept;

// losses[t] = (1 - share) CE_t + share KL_t, where CE_t = -log p_t,target and, with q the teacher's probabilities and p
// the student's, KL_t = sum over i of q_i log(q_i / p_i) + q_others log(q_others / p_others).
// logits [T, V] become weight * dloss/dz.
void forward_kl_backward(tensor::MatView logits, const int32_t* targets, const TopTokens& teacher, float share,
                         float weight, float* losses) noexcept;

}  // namespace brick::kernels
