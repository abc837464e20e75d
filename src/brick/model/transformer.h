// Forward and backward through the layers, for packed batches: sequences of unequal length lie one behind the other
// without padding and attend only within themselves.
#pragma once

#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "brick/kernels/attention.h"
#include "brick/kernels/context.h"
#include "brick/model/adapter.h"
#include "brick/model/bf16_layers.h"
#include "brick/model/lora_branch.h"
#include "brick/model/model.h"
#include "brick/model/row_layout.h"

namespace brick::model {

// ids [T]; sequence s is [offsets[s], offsets[s + 1]).
struct TokenBatch {
  std::span<const int32_t> ids;
  std::span<const int64_t> offsets;
  // Of each sequence the first row whose result will be read (first_read_rows() in loss.h); the last layer computes
  // only keys and values before it, and leaves those rows of the result unspecified. Empty: all are read.
  std::span<const int64_t> first_read = {};
};

// An adapter in use. Dropout acts only while training; its numbers come from (seed, step, part, layer, matrix).
struct AdapterUse {
  const Adapter* adapter = nullptr;
  bool training = false;
  uint64_t seed = 0, step = 0, part = 0;
};

// Activations of one layer that its backward needs, for up to `tokens` tokens.
struct LayerTape {
  tensor::Tensor input, q, k, v, attended, middle, gate, up;  // [T, ...]
  std::vector<float> log_sum_exp, attention_rms, ffn_rms;

  LayerTape(const LayerShape& shape, int64_t width, int64_t tokens);
  int64_t bytes() const;
};

enum class Activations : uint8_t {
  kKeep,       // all of them: fast
  kRecompute,  // only each layer's input; the backward runs the layer's forward again
  kOneLayer,   // those of the last layer that ran: for layer_backward() alone
};

// Gradients of a layer's linear weights, of their shapes; those without data are not computed.
using WeightGradients = std::array<tensor::MatView, kProjCount>;

// Whether a Transformer with such an adapter may hold its activations in bfloat16.
bool holds_bf16(kernels::Compute compute, const LoraConfig& lora);

// Keys and values of a decode, by layer.
struct KvCache {
  std::vector<tensor::Tensor> keys, values;  // [capacity, K head_dim] each
  int64_t length = 0, capacity = 0;

  KvCache(const Model& model, int64_t positions);
};

// Sees the input x [T, in] of each linear weight and the gradient dy [T, out] of its output, so that the weight's own
// gradient is dy^T x (kernels::weight_gradient). Views are valid during the call.
using GradientHook = std::function<void(int64_t layer, Proj proj, tensor::ConstMatView x, tensor::ConstMatView dy)>;

// Owns all buffers of a run, planned once for `max_tokens`. The model and context must outlive it.
class Transformer {
 public:
  // `trainable`: plan for backward with `activations`. With `bf16_rank` the layers are those of bf16_layers.h, with
  // room for adapters of that rank: for forward() and backward() alone, where the context's products are in bfloat16
  // and holds_bf16() of the adapter.
  Transformer(const Model& model, kernels::Context& context, int64_t max_tokens, bool trainable = false,
              Activations activations = Activations::kKeep, std::optional<int64_t> bf16_rank = {});

  // The residual stream after the last layer, before the final norm: [T, D], valid until the next call.
  // Error(kInvalidInput) for an id outside the vocabulary or more than max_tokens.
  tensor::MatView forward(const TokenBatch& batch, const AdapterUse& use = {});

  // Continues one sequence whose first cache.length tokens are cached. Rows of the result before `first_read` are
  // unspecified, as in a TokenBatch.
  tensor::MatView extend(std::span<const int32_t> ids, const AdapterUse& use, KvCache& cache, int64_t first_read = 0);

  // Each sequence of the batch continues the cached tokens on its own. The cache stays as it was; what lies behind
  // cache.length is used as scratch.
  tensor::MatView extend_each(const TokenBatch& batch, const AdapterUse& use, KvCache& cache);

  // After forward() with the same batch and use: accumulates into `gradients`. `d_hidden` [T, D] = dL/d(forward's
  // result) is overwritten.
  void backward(const TokenBatch& batch, const AdapterUse& use, tensor::MatView d_hidden, Adapter& gradients);
  // The same without an adapter, down to the first layer, for gradients of the weights.
  void backward(const TokenBatch& batch, tensor::MatView d_hidden, const GradientHook& hook);

  // Piecewise, for pruning layer by layer. Each changes x [T, D] in place.
  void embed(std::span<const int32_t> ids, tensor::MatView x) const;
  void layer_forward(int64_t layer, std::span<const int64_t> offsets, tensor::MatView x, const InputHook& hook = {});
  // Once after layer_forward() of the same layer, by a trainable one: dx [T, D] = dL/d(output) becomes dL/d(input) if
  // `need_input`, else it is used up; `gradients` are overwritten.
  void layer_backward(int64_t layer, tensor::MatView dx, bool need_input, const WeightGradients& gradients);

  const Model& model() const { return model_; }
  kernels::Context& context() { return context_; }
  int64_t max_tokens() const { return max_tokens_; }
  int64_t buffer_bytes() const;

 private:
  static constexpr int64_t kFewestBf16Tokens = 16;  // packing weights for fewer takes longer than a pass over them

  void plan(std::span<const int64_t> offsets, int64_t first_position, std::span<const int64_t> first_read = {});
  bool is_cut(int64_t layer) const { return cut_ && layer + 1 == model_.config.layers; }
  LayerRows rows_of(int64_t layer) const { return {layout_, is_cut(layer) ? read_ : layout_, is_cut(layer)}; }
  // Of the last layer of a prompt, of which one row is read; never in training.
  bool has_few_queries(int64_t layer) const { return !trainable_ && is_cut(layer) && read_.rows() < kFewestBf16Tokens; }
  // Whether bf16_ runs a batch; without training plans it, if so.
  bool runs_bf16(const AdapterUse& use, int64_t tokens);
  // By bf16_ or by what follows.
  void run_layer(int64_t layer, const AdapterUse& use, bool in_bf16, tensor::MatView x, KvCache* cache = nullptr,
                 const InputHook& hook = {});
  void run_layer(int64_t layer, const AdapterUse& use, LayerTape& tape, tensor::MatView x, KvCache* cache,
                 const InputHook& hook);
  void run_layer_backward(int64_t layer, const AdapterUse& use, LayerTape& tape, tensor::MatView dx, bool need_input,
                          Adapter* gradients, const GradientHook& hook);
  void run_backward(const TokenBatch& batch, const AdapterUse& use, int64_t lowest, tensor::MatView d_hidden,
                    Adapter* gradients, const GradientHook& hook);
  Branch branch(int64_t layer, Proj proj, const AdapterUse& use) const;
  void project(int64_t layer, Proj proj, const AdapterUse& use, tensor::ConstMatView x, float beta, tensor::MatView y);
  // Several matrices of one input.
  void project_each(int64_t layer, std::initializer_list<std::pair<Proj, tensor::MatView>> outputs,
                    const AdapterUse& use, tensor::ConstMatView x);
  LayerTape& tape_of(int64_t layer) { return tapes_.size() == 1 ? tapes_[0] : tapes_[static_cast<size_t>(layer)]; }

  const Model& model_;
  kernels::Context& context_;
  int64_t max_tokens_;
  bool trainable_;
  Activations activations_;
  kernels::RopeTable rope_;
  RowLayout layout_, read_;  // of all rows; of those that are read after the last layer, where it is cut
  bool cut_ = false;
  std::unique_ptr<Bf16Layers> bf16_;  // in training instead of what follows, but for x_ and inputs_
  int64_t bf16_rank_ = 0;
  std::vector<LayerTape> tapes_;        // one a layer, or one for all
  std::vector<tensor::Tensor> inputs_;  // [T, D] of each layer, when activations are recomputed
  tensor::Tensor x_, normed_, ffn_;     // [T, D], [T, D], [T, F]
  tensor::Tensor d_normed_, d_ffn_, d_attended_, dq_, dk_, dv_;
};

}  // namespace brick::model
