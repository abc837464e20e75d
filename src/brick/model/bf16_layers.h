// A model's layers on activations that are held in bfloat16, but for the residual stream and its gradient: the fast
// form of Transformer's where products are in bfloat16 too. Adapters are without dropout.
#pragma once

#include <array>
#include <functional>
#include <initializer_list>
#include <span>
#include <vector>

#include "brick/kernels/bf16_linear.h"
#include "brick/kernels/bf16_view.h"
#include "brick/kernels/context.h"
#include "brick/kernels/rope.h"
#include "brick/model/adapter.h"
#include "brick/model/model.h"
#include "brick/model/row_layout.h"
#include "brick/tensor/tensor.h"

namespace brick::model {

// The rows of a batch: all; those that have queries in this layer, fewer where it is cut (TokenBatch::first_read).
struct LayerRows {
  const RowLayout& all;
  const RowLayout& queries;
  bool cut = false;
};

// One sequence's keys and values of a layer [capacity, K head_dim], of which `length` are there before the rows that
// come: each sequence of a batch continues them on its own, in the rows behind.
struct CachedRows {
  tensor::MatView keys, values;
  int64_t length = 0;
};

// Sees the input of a layer's linear weights, as they are met: once for q, k and v (named kQ), o, once for gate and up
// (kGate), down. Views are valid during the call.
using InputHook = std::function<void(int64_t layer, Proj proj, tensor::ConstMatView x)>;

class Bf16Layers {
 public:
  // Buffers for `max_tokens` tokens and adapters of at most `rank`; for a backward of every layer (`tapes`: of as many,
  // else of the last that ran), if `trainable`.
  Bf16Layers(const Model& model, kernels::Context& context, int64_t max_tokens, int64_t rank, bool trainable,
             int64_t tapes);

  // x [T, D] in place. Without `cache` sequences begin with their first row.
  void forward(int64_t layer, const kernels::RopeTable& rope, const LayerRows& rows, const Adapter* adapter,
               tensor::MatView x, const CachedRows* cache = nullptr, const InputHook& hook = {});
  // After forward() of the same: dx [T, D] = dL/d(output) becomes dL/d(input) if `need_input`, else it is used up;
  // accumulates into `gradients`.
  void backward(int64_t layer, const kernels::RopeTable& rope, const LayerRows& rows, const Adapter& adapter,
                tensor::MatView dx, bool need_input, Adapter& gradients);

  int64_t bytes() const;
  // Of one token: on the tape of one layer; for all other work.
  static int64_t tape_bytes(const Model& model, int64_t rank);
  static int64_t work_bytes(const Model& model, int64_t rank);

 private:
  // Of one layer, for its backward, [T, ...].
  struct Tape {
    tensor::Tensor input, middle;  // what the norms saw
    tensor::Tensor kvq;            // keys, values, queries side by side
    tensor::Tensor attended, gate_up;
    std::vector<float> log_sum_exp, attention_rms, ffn_rms;
  };
  // Matrices of one input.
  struct Group {
    std::array<kernels::LoraWeight, 3> layers;
    size_t count = 0;

    operator std::span<const kernels::LoraWeight>() const { return {layers.data(), count}; }  // NOLINT: it is one
  };
  // The attention of each sequence over what is cached and its own keys and values.
  void attend_cached(const LayerShape& shape, const LayerRows& rows, const CachedRows& cache, kernels::ConstBf16View q,
                     kernels::ConstBf16View k, kernels::ConstBf16View v, kernels::Bf16View attended);
  void show(const InputHook& hook, int64_t layer, Proj proj, kernels::ConstBf16View x);
  Group group(int64_t layer, std::initializer_list<Proj> projections, const Adapter* adapter, Adapter* gradients) const;
  Tape& tape_of(int64_t layer) { return tapes_.size() == 1 ? tapes_[0] : tapes_[static_cast<size_t>(layer)]; }

  const Model& model_;
  kernels::Context& context_;
  std::vector<Tape> tapes_;
  tensor::Tensor cached_keys_, cached_values_;                           // bfloat16, made when a cache is met
  tensor::Tensor normed_, ffn_, dy_, d_ffn_, d_attended_, d_kvq_, d_q_;  // bfloat16
  tensor::Tensor d_normed_, through_, dk_sums_, dv_sums_;                // float32
  tensor::Tensor shown_;                                                 // float32, made when a hook is met
};

}  // namespace brick::model
