// Next-token loss on the positions that are scored, and logits. The head's products run on pieces of rows, so that
// [T, V] logits never exist as a whole; tokens that are not scored cost nothing.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "brick/kernels/context.h"
#include "brick/model/model.h"

namespace brick::model {

// Row `row` of the hidden states predicts token `target`.
struct ScoredToken {
  int64_t row = 0;
  int32_t target = 0;
};

// The tokens with supervised[i] != 0 that have a predecessor in their sequence. offsets as in TokenBatch. `scored`
// gives its memory.
std::vector<ScoredToken> scored_tokens(std::span<const int32_t> ids, std::span<const uint8_t> supervised,
                                       std::span<const int64_t> offsets, std::vector<ScoredToken> scored = {});

// Of each sequence the first row that is scored, its end where none is: TokenBatch::first_read. `first` gives its
// memory.
std::vector<int64_t> first_read_rows(std::span<const ScoredToken> scored, std::span<const int64_t> offsets,
                                     std::vector<int64_t> first = {});

// Sees the targets [n] and logits [n, V] of scored[begin], ..., scored[begin + n - 1] and may overwrite the logits;
// valid during the call.
using LogitsFunction = std::function<void(int64_t begin, const int32_t* targets, tensor::MatView logits)>;

// Calls `piece` on all of `scored`, in order; hidden [T, D] is the residual stream after the last layer. With d_hidden
// ([T, D], overwritten) each piece leaves dL/dlogits in its logits' place, which become dL/dhidden.
void for_each_logits(kernels::Context& context, const Model& model, tensor::ConstMatView hidden,
                     std::span<const ScoredToken> scored, const LogitsFunction& piece, tensor::MatView d_hidden = {});

// losses[i] = -log p(target of scored[i]). With d_hidden ([T, D], overwritten): dL/dhidden of L = weight * sum of the
// losses.
void token_losses(kernels::Context& context, const Model& model, tensor::ConstMatView hidden,
                  std::span<const ScoredToken> scored, std::span<float> losses, float weight = 0.0f,
                  tensor::MatView d_hidden = {});

// out [rows, V] = logits of hidden [rows, D].
void logits(kernels::Context& context, const Model& model, tensor::ConstMatView hidden, tensor::MatView out);

}  // namespace brick::model
