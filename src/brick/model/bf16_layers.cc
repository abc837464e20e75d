#include "brick/model/bf16_layers.h"

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "brick/kernels/attention_bf16.h"
#include "brick/kernels/bf16_ops.h"
#include "brick/kernels/rows.h"
#include "brick/kernels/vector_ops.h"
#include "brick/model/layer_widths.h"

namespace brick::model {
namespace {

using kernels::Bf16View;
using kernels::branch_columns;
using tensor::MatView;
using tensor::Tensor;

constexpr int64_t kRead = 32;  // attention reads the last head up to the next multiple

// The widest layer's widths; with room for the branches where activations enter a product.
struct Widths {
  int64_t residual, narrow, wide, ffn, max_heads, rank;

  Widths(const Model& model, int64_t adapter_rank)
      : residual(model.config.hidden), narrow(0), wide(0), ffn(0), max_heads(0), rank(adapter_rank) {
    for (const Layer& layer : model.layers) {
      narrow = std::max(narrow, layer.shape.kv_heads * layer.shape.head_dim);
      wide = std::max(wide, layer.shape.heads * layer.shape.head_dim);
      ffn = std::max(ffn, layer.shape.ffn);
      max_heads = std::max(max_heads, layer.shape.heads);
    }
  }
  int64_t kvq() const { return branch_columns(2 * narrow + std::max(wide, kRead), 3 * rank); }
  int64_t attended() const { return branch_columns(wide, rank); }
  int64_t gate_up() const { return branch_columns(2 * ffn, 2 * rank); }
  int64_t normed() const { return branch_columns(residual, 3 * rank); }
  int64_t down() const { return branch_columns(ffn, rank); }
};

Tensor bf16_matrix(int64_t rows, int64_t cols) { return {tensor::DType::kBF16, {rows, cols}}; }

Bf16View columns(Tensor& tensor, int64_t rows, int64_t first, int64_t count) {
  return {reinterpret_cast<uint16_t*>(tensor.bytes().data()) + first, rows, count, tensor.shape()[1]};
}
MatView dense(Tensor& tensor, int64_t rows, int64_t cols) { return {tensor.f32(), rows, cols}; }

}  // namespace

Bf16Layers::Bf16Layers(const Model& model, kernels::Context& context, int64_t max_tokens, int64_t rank, bool trainable,
                       int64_t tapes)
    : model_(model), context_(context) {
  const Widths w(model, rank);
  for (int64_t i = 0; i < tapes; ++i) {
    Tape tape;
    tape.input = bf16_matrix(max_tokens, w.residual);
    tape.middle = bf16_matrix(max_tokens, w.residual);
    tape.kvq = bf16_matrix(max_tokens, w.kvq());
    tape.attended = bf16_matrix(max_tokens, w.attended());
    tape.gate_up = bf16_matrix(max_tokens, w.gate_up());
    tape.log_sum_exp.resize(static_cast<size_t>(max_tokens * w.max_heads));
    tape.attention_rms.resize(static_cast<size_t>(max_tokens));
    tape.ffn_rms.resize(static_cast<size_t>(max_tokens));
    tapes_.push_back(std::move(tape));
  }
  normed_ = bf16_matrix(max_tokens, w.normed());
  ffn_ = bf16_matrix(max_tokens, w.down());
  if (!trainable) return;
  dy_ = bf16_matrix(max_tokens, w.normed());
  d_ffn_ = bf16_matrix(max_tokens, w.ffn);
  d_attended_ = bf16_matrix(max_tokens, w.wide);
  d_kvq_ = bf16_matrix(max_tokens, w.kvq());
  d_q_ = bf16_matrix(max_tokens, w.attended());
  d_normed_ = tensor::matrix(max_tokens, w.residual);
  through_ = tensor::matrix(max_tokens, w.residual);
  dk_sums_ = tensor::matrix(max_tokens, w.narrow);
  dv_sums_ = tensor::matrix(max_tokens, w.narrow);
}

int64_t Bf16Layers::tape_bytes(const Model& model, int64_t rank) {
  const Widths w(model, rank);
  return 2 * (2 * w.residual + w.kvq() + w.attended() + w.gate_up()) + 4 * (w.max_heads + 2);
}

int64_t Bf16Layers::work_bytes(const Model& model, int64_t rank) {
  const Widths w(model, rank);
  return 2 * (2 * w.normed() + w.down() + w.ffn + w.wide + w.kvq() + w.attended()) +
         4 * (2 * w.residual + 2 * w.narrow);
}

int64_t Bf16Layers::bytes() const {
  int64_t total = 0;
  const auto add = [&](std::initializer_list<const Tensor*> tensors) {
    for (const Tensor* tensor : tensors) total += static_cast<int64_t>(tensor->bytes().size());
  };
  for (const Tape& tape : tapes_) {
    add({&tape.input, &tape.middle, &tape.kvq, &tape.attended, &tape.gate_up});
    total += static_cast<int64_t>((tape.log_sum_exp.size() + 2 * tape.ffn_rms.size()) * sizeof(float));
  }
  add({&cached_keys_, &cached_values_, &normed_, &ffn_, &dy_, &d_ffn_, &d_attended_, &d_kvq_, &d_q_, &d_normed_,
       &through_, &dk_sums_, &dv_sums_, &shown_});
  return total;
}

Bf16Layers::Group Bf16Layers::group(int64_t layer, std::initializer_list<Proj> projections, const Adapter* adapter,
                                    Adapter* gradients) const {
  Group out;
  for (const Proj proj : projections) {
    kernels::LoraWeight one{&model_.layers[static_cast<size_t>(layer)][proj]};
    if (adapter != nullptr && adapter->at(layer, proj).present()) {
      one.scale = adapter->config.scale();
      one.a = adapter->at(layer, proj).a.mat();
      one.b = adapter->at(layer, proj).b.mat();
      one.masked = adapter->config.masked;
      if (gradients != nullptr && gradients->at(layer, proj).present()) {
        one.da = gradients->at(layer, proj).a.mat();
        one.db = gradients->at(layer, proj).b.mat();
      }
    }
    out.layers[out.count++] = one;
  }
  return out;
}

void Bf16Layers::forward(int64_t index, const kernels::RopeTable& rope, const LayerRows& rows, const Adapter* adapter,
                         MatView x, const CachedRows* cache, const InputHook& hook) {
  const Layer& layer = model_.layers[static_cast<size_t>(index)];
  const LayerShape& shape = layer.shape;
  Tape& tape = tape_of(index);
  const int64_t all = x.rows, count = rows.queries.rows(), width = x.cols;
  const int64_t wide = query_width(shape), narrow = key_width(shape);

  const Bf16View k = columns(tape.kvq, all, 0, narrow), v = columns(tape.kvq, all, narrow, narrow);
  const Bf16View q = columns(tape.kvq, count, 2 * narrow, wide), all_normed = columns(normed_, all, 0, width);
  kernels::rms_norm(x, layer.attention_norm.data(), model_.config.norm_eps, columns(tape.input, all, 0, width),
                    all_normed, tape.attention_rms.data());
  show(hook, index, Proj::kQ, all_normed);
  const MatView whole_x = x;
  const Bf16View normed = columns(normed_, count, 0, width);
  if (rows.cut) {
    kernels::linear(context_, group(index, {Proj::kK, Proj::kV}, adapter, nullptr), all_normed, 0.0f,
                    columns(tape.kvq, all, 0, 2 * narrow));
    gather(rows.queries.spans, all_normed);
    gather(rows.queries.spans, x);
    kernels::linear(context_, group(index, {Proj::kQ}, adapter, nullptr), normed, 0.0f, q);
  } else {
    kernels::linear(context_, group(index, {Proj::kK, Proj::kV, Proj::kQ}, adapter, nullptr), all_normed, 0.0f,
                    columns(tape.kvq, all, 0, 2 * narrow + wide));
  }
  x = x.row_range(0, count);
  kernels::rope(rope, rows.queries.positions.data(), shape.head_dim, q);
  kernels::rope(rope, rows.all.positions.data(), shape.head_dim, k);

  const Bf16View attended = columns(tape.attended, count, 0, wide);
  if (cache != nullptr)
    attend_cached(shape, rows, *cache, q, k, v, attended);
  else
    kernels::attention(context_, attention_shape(shape), rows.queries.spans, q, k, v, attended,
                       tape.log_sum_exp.data());
  show(hook, index, Proj::kO, attended);
  kernels::linear(context_, group(index, {Proj::kO}, adapter, nullptr), attended, 1.0f, x);
  kernels::add_bias(layer.o_bias, x);

  kernels::rms_norm(x, layer.ffn_norm.data(), model_.config.norm_eps, columns(tape.middle, count, 0, width), normed,
                    tape.ffn_rms.data());
  show(hook, index, Proj::kGate, normed);
  const Bf16View gate_up = columns(tape.gate_up, count, 0, 2 * shape.ffn), ffn = columns(ffn_, count, 0, shape.ffn);
  kernels::linear(context_, group(index, {Proj::kGate, Proj::kUp}, adapter, nullptr), normed, 0.0f, gate_up);
  kernels::swiglu(gate_up.col_range(0, shape.ffn), gate_up.col_range(shape.ffn, 2 * shape.ffn), ffn);
  show(hook, index, Proj::kDown, ffn);
  kernels::linear(context_, group(index, {Proj::kDown}, adapter, nullptr), ffn, 1.0f, x);
  kernels::add_bias(layer.down_bias, x);
  if (rows.cut) scatter(rows.queries.spans, whole_x);
}

void Bf16Layers::show(const InputHook& hook, int64_t layer, Proj proj, kernels::ConstBf16View x) {
  if (!hook) return;
  if (shown_.size() < x.rows * x.cols) shown_ = tensor::matrix(x.rows, x.cols);
  const MatView view = dense(shown_, x.rows, x.cols);
  kernels::to_f32(x, view);
  hook(layer, proj, view);
}

void Bf16Layers::attend_cached(const LayerShape& shape, const LayerRows& rows, const CachedRows& cache,
                               kernels::ConstBf16View q, kernels::ConstBf16View k, kernels::ConstBf16View v,
                               Bf16View attended) {
  const int64_t narrow = key_width(shape), stride = branch_columns(narrow + kRead - 1, 0);
  const auto room = [&](Tensor& tensor, int64_t count) {
    if (tensor.empty() || tensor.shape()[0] < count || tensor.shape()[1] < stride)
      tensor = bf16_matrix(cache.keys.rows, stride);
    return columns(tensor, count, 0, narrow);
  };
  for (size_t s = 0; s < rows.all.spans.size(); ++s) {
    const kernels::AttentionSpan& added = rows.all.spans[s];
    const int64_t first = added.query_begin, last = first + added.queries;
    kernels::to_f32(k.row_range(first, last), cache.keys.row_range(cache.length, added.keys));
    kernels::to_f32(v.row_range(first, last), cache.values.row_range(cache.length, added.keys));
    const Bf16View keys = room(cached_keys_, added.keys), values = room(cached_values_, added.keys);
    kernels::to_bf16(cache.keys.row_range(0, added.keys), keys);
    kernels::to_bf16(cache.values.row_range(0, added.keys), values);
    const kernels::AttentionSpan span{rows.queries.spans[s].query_begin, rows.queries.spans[s].queries, 0, added.keys};
    kernels::attention(context_, attention_shape(shape), {&span, 1}, q, keys, values, attended, nullptr);
  }
}

void Bf16Layers::backward(int64_t index, const kernels::RopeTable& rope, const LayerRows& rows, const Adapter& adapter,
                          MatView dx, bool need_input, Adapter& gradients) {
  const Layer& layer = model_.layers[static_cast<size_t>(index)];
  const LayerShape& shape = layer.shape;
  Tape& tape = tape_of(index);
  const int64_t all = dx.rows, count = rows.queries.rows(), width = dx.cols;
  const int64_t wide = query_width(shape), narrow = key_width(shape);
  const auto layers = [&](std::initializer_list<Proj> projections) {
    return group(index, projections, &adapter, &gradients);
  };
  if (rows.cut) gather(rows.queries.spans, dx);
  const MatView whole_dx = dx;
  dx = dx.row_range(0, count);
  const Bf16View normed = columns(normed_, count, 0, width), dy = columns(dy_, count, 0, width);
  const Bf16View gate_up = columns(tape.gate_up, count, 0, 2 * shape.ffn), ffn = columns(ffn_, count, 0, shape.ffn);
  const Bf16View gate = gate_up.col_range(0, shape.ffn), up = gate_up.col_range(shape.ffn, 2 * shape.ffn);
  const Bf16View d_ffn = columns(d_ffn_, count, 0, shape.ffn), middle = columns(tape.middle, count, 0, width);
  const MatView d_normed = dense(d_normed_, count, width);

  kernels::swiglu(gate, up, ffn);
  kernels::to_bf16(dx, dy);
  kernels::linear_backward(context_, layers({Proj::kDown}), ffn, dy, d_ffn);
  kernels::swiglu_backward(gate, up, d_ffn);
  kernels::rms_norm_again(middle, layer.ffn_norm.data(), tape.ffn_rms.data(), normed);
  kernels::linear_backward(context_, layers({Proj::kGate, Proj::kUp}), normed, gate_up, d_normed);
  kernels::rms_norm_backward(middle, layer.ffn_norm.data(), tape.ffn_rms.data(), d_normed, dx);

  const Bf16View attended = columns(tape.attended, count, 0, wide), d_attended = columns(d_attended_, count, 0, wide);
  kernels::to_bf16(dx, dy);
  kernels::linear_backward(context_, layers({Proj::kO}), attended, dy, d_attended);
  const Bf16View k = columns(tape.kvq, all, 0, narrow), v = columns(tape.kvq, all, narrow, narrow);
  const Bf16View q = columns(tape.kvq, count, 2 * narrow, wide);
  // Apart where the layer is cut: there queries have rows and a product of their own.
  const Bf16View dq = rows.cut ? columns(d_q_, count, 0, wide) : columns(d_kvq_, count, 2 * narrow, wide);
  const Bf16View dk = columns(d_kvq_, all, 0, narrow);
  const MatView dk_sums = dense(dk_sums_, all, narrow), dv_sums = dense(dv_sums_, all, narrow);
  kernels::attention_backward(context_, attention_shape(shape), rows.queries.spans, q, k, v, attended,
                              tape.log_sum_exp.data(), d_attended, dq, dk_sums, dv_sums);
  kernels::to_bf16(dk_sums, dk);
  kernels::to_bf16(dv_sums, columns(d_kvq_, all, narrow, narrow));
  kernels::rope_backward(rope, rows.queries.positions.data(), shape.head_dim, dq);
  kernels::rope_backward(rope, rows.all.positions.data(), shape.head_dim, dk);

  const Bf16View input = columns(tape.input, all, 0, width), all_normed = columns(normed_, all, 0, width);
  kernels::rms_norm_again(input, layer.attention_norm.data(), tape.attention_rms.data(), all_normed);
  const MatView all_d_normed = dense(d_normed_, all, width), d_input = need_input ? all_d_normed : MatView();
  if (!rows.cut) {
    kernels::linear_backward(context_, layers({Proj::kK, Proj::kV, Proj::kQ}), all_normed,
                             columns(d_kvq_, all, 0, 2 * narrow + wide), d_input);
  } else {
    kernels::linear_backward(context_, layers({Proj::kK, Proj::kV}), all_normed, columns(d_kvq_, all, 0, 2 * narrow),
                             d_input);
    gather(rows.queries.spans, all_normed);
    const MatView through = dense(through_, all, width);
    kernels::linear_backward(context_, layers({Proj::kQ}), normed, dq,
                             need_input ? through.row_range(0, count) : MatView());
    if (need_input) {
      scatter(rows.queries.spans, through);
      for (int64_t t = 0; t < all; ++t) kernels::axpy(1.0f, through.row(t), all_d_normed.row(t), width);
    }
    scatter(rows.queries.spans, whole_dx);
  }
  if (need_input)
    kernels::rms_norm_backward(input, layer.attention_norm.data(), tape.attention_rms.data(), all_d_normed, whole_dx);
}

}  // namespace brick::model
