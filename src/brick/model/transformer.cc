#include "brick/model/transformer.h"

#include <algorithm>

#include "brick/base/error.h"
#include "brick/base/parallel.h"
#include "brick/kernels/linear.h"
#include "brick/kernels/norm.h"
#include "brick/kernels/rope.h"
#include "brick/kernels/rows.h"
#include "brick/kernels/swiglu.h"
#include "brick/kernels/vector_ops.h"
#include "brick/model/layer_widths.h"

namespace brick::model {
namespace {

using kernels::AttentionSpan;
using kernels::copy_rows;
using tensor::ConstMatView;
using tensor::MatView;
using tensor::Tensor;

MatView rows(Tensor& tensor, int64_t count) { return {tensor.f32(), count, tensor.shape()[1]}; }
// Of a buffer that other, wider layers or adapters share.
MatView rows(Tensor& tensor, int64_t count, int64_t cols) { return {tensor.f32(), count, cols}; }

LayerShape widest(const Model& model) {
  LayerShape out = model.layers.front().shape;
  for (const Layer& layer : model.layers) {
    out.heads = std::max(out.heads, layer.shape.heads);
    out.kv_heads = std::max(out.kv_heads, layer.shape.kv_heads);
    out.ffn = std::max(out.ffn, layer.shape.ffn);
  }
  return out;
}

}  // namespace

LayerTape::LayerTape(const LayerShape& shape, int64_t width, int64_t tokens)
    : input(tensor::matrix(tokens, width)),
      q(tensor::matrix(tokens, shape.heads * shape.head_dim)),
      k(tensor::matrix(tokens, shape.kv_heads * shape.head_dim)),
      v(tensor::matrix(tokens, shape.kv_heads * shape.head_dim)),
      attended(tensor::matrix(tokens, shape.heads * shape.head_dim)),
      middle(tensor::matrix(tokens, width)),
      gate(tensor::matrix(tokens, shape.ffn)),
      up(tensor::matrix(tokens, shape.ffn)),
      log_sum_exp(static_cast<size_t>(tokens * shape.heads)),
      attention_rms(static_cast<size_t>(tokens)),
      ffn_rms(static_cast<size_t>(tokens)) {}

int64_t LayerTape::bytes() const {
  size_t total = 0;
  for (const Tensor* t : {&input, &q, &k, &v, &attended, &middle, &gate, &up}) total += t->bytes().size();
  return static_cast<int64_t>(total + (log_sum_exp.size() + attention_rms.size() + ffn_rms.size()) * sizeof(float));
}

KvCache::KvCache(const Model& model, int64_t positions) : capacity(positions) {
  for (const Layer& layer : model.layers) {
    keys.push_back(tensor::matrix(positions, layer.shape.kv_heads * layer.shape.head_dim));
    values.push_back(tensor::matrix(positions, layer.shape.kv_heads * layer.shape.head_dim));
  }
}

Transformer::Transformer(const Model& model, kernels::Context& context, int64_t max_tokens, bool trainable,
                         Activations activations, std::optional<int64_t> bf16_rank)
    : model_(model), context_(context), max_tokens_(max_tokens), trainable_(trainable), activations_(activations) {
  const int64_t width = model.config.hidden;
  const LayerShape shape = widest(model);
  x_ = tensor::matrix(max_tokens, width);
  if (trainable && activations == Activations::kRecompute)
    for (size_t i = 0; i < model.layers.size(); ++i) inputs_.push_back(tensor::matrix(max_tokens, width));
  if (trainable && bf16_rank) {
    const bool keep = activations == Activations::kKeep;
    bf16_rank_ = *bf16_rank;
    bf16_ =
        std::make_unique<Bf16Layers>(model, context, max_tokens, *bf16_rank, trainable, keep ? model.config.layers : 1);
    return;
  }
  normed_ = tensor::matrix(max_tokens, width);
  ffn_ = tensor::matrix(max_tokens, shape.ffn);
  if (!trainable || activations != Activations::kKeep) {
    tapes_.emplace_back(shape, width, max_tokens);
  } else {
    for (const Layer& layer : model.layers) tapes_.emplace_back(layer.shape, width, max_tokens);
  }
  if (!trainable) return;
  d_normed_ = tensor::matrix(max_tokens, width);
  d_ffn_ = tensor::matrix(max_tokens, shape.ffn);
  d_attended_ = tensor::matrix(max_tokens, shape.heads * shape.head_dim);
  dq_ = tensor::matrix(max_tokens, shape.heads * shape.head_dim);
  dk_ = tensor::matrix(max_tokens, shape.kv_heads * shape.head_dim);
  dv_ = tensor::matrix(max_tokens, shape.kv_heads * shape.head_dim);
}

bool holds_bf16(kernels::Compute compute, const LoraConfig& lora) {
  return compute == kernels::Compute::kBf16 && lora.dropout <= 0;
}

int64_t Transformer::buffer_bytes() const {
  int64_t total = bf16_ ? bf16_->bytes() : 0;
  for (const LayerTape& tape : tapes_) total += tape.bytes();
  for (const Tensor& t : inputs_) total += static_cast<int64_t>(t.bytes().size());
  for (const Tensor* t : {&x_, &normed_, &ffn_, &d_normed_, &d_ffn_, &d_attended_, &dq_, &dk_, &dv_})
    total += static_cast<int64_t>(t->bytes().size());
  return total;
}

void Transformer::plan(std::span<const int64_t> offsets, int64_t first_position, std::span<const int64_t> first_read) {
  BRICK_ASSERT(first_read.empty() || first_read.size() + 1 == offsets.size());
  for (RowLayout* layout : {&layout_, &read_}) {
    layout->spans.clear();
    layout->positions.clear();
  }
  cut_ = !first_read.empty();
  int64_t last = 0;
  for (size_t s = 0; s + 1 < offsets.size(); ++s) {
    const int64_t length = offsets[s + 1] - offsets[s];
    layout_.spans.push_back({offsets[s], length, offsets[s], first_position + length});
    for (int64_t i = 0; i < length; ++i) layout_.positions.push_back(static_cast<int32_t>(first_position + i));
    if (cut_) {
      const int64_t read = offsets[s + 1] - first_read[s];
      read_.spans.push_back({read_.rows(), read, offsets[s], length});
      for (int64_t i = length - read; i < length; ++i)
        read_.positions.push_back(static_cast<int32_t>(first_position + i));
    }
    last = std::max(last, first_position + length);
  }
  const int64_t known = rope_.half > 0 ? static_cast<int64_t>(rope_.cosines.size()) / rope_.half : 0;
  if (last > known) rope_ = kernels::make_rope_table(model_.config.inverse_frequency, std::max(last, 2 * known));
}

void Transformer::embed(std::span<const int32_t> ids, MatView x) const {
  for (size_t t = 0; t < ids.size(); ++t) {
    if (ids[t] < 0 || ids[t] >= model_.config.vocab)
      fail(ErrorCode::kInvalidInput, "token id {} at position {}: the vocabulary has {}", ids[t], t,
           model_.config.vocab);
    model_.embedding.unpack_rows(ids[t], ids[t] + 1, x.row(static_cast<int64_t>(t)), x.cols);
  }
}

Branch Transformer::branch(int64_t layer, Proj proj, const AdapterUse& use) const {
  if (use.adapter == nullptr || !use.adapter->at(layer, proj).present()) return {};
  const LoraConfig& config = use.adapter->config;
  return {&use.adapter->at(layer, proj),
          config.scale(),
          config.masked,
          use.training ? config.dropout : 0.0,
          use.seed,
          stream_id({use.step, use.part, static_cast<uint64_t>(layer), static_cast<uint64_t>(proj)})};
}

void Transformer::project(int64_t layer, Proj proj, const AdapterUse& use, ConstMatView x, float beta, MatView y) {
  model::project(context_, model_.layers[static_cast<size_t>(layer)][proj], branch(layer, proj, use), x, beta, y);
}

void Transformer::project_each(int64_t layer, std::initializer_list<std::pair<Proj, MatView>> outputs,
                               const AdapterUse& use, ConstMatView x) {
  kernels::Product products[kProjCount];
  size_t plain = 0;
  for (const auto& [proj, y] : outputs) {
    if (branch(layer, proj, use).pair != nullptr) {
      project(layer, proj, use, x, 0.0f, y);
    } else {
      products[plain++] = {&model_.layers[static_cast<size_t>(layer)][proj], 0.0f, y};
    }
  }
  if (plain > 0) kernels::linear(context_, {products, plain}, x);
}

void Transformer::run_layer(int64_t index, const AdapterUse& use, LayerTape& tape, MatView x, KvCache* cache,
                            const InputHook& hook) {
  const Layer& layer = model_.layers[static_cast<size_t>(index)];
  const LayerShape& shape = layer.shape;
  const bool cut = is_cut(index);
  const RowLayout& queries = cut ? read_ : layout_;
  const int64_t all = x.rows, count = queries.rows();
  copy_rows(x, rows(tape.input, all));
  const MatView all_normed = rows(normed_, all), k = rows(tape.k, all, key_width(shape));
  const MatView v = rows(tape.v, all, key_width(shape)), q = rows(tape.q, count, query_width(shape));
  kernels::rms_norm(x, layer.attention_norm.data(), model_.config.norm_eps, all_normed, tape.attention_rms.data());
  if (hook) hook(index, Proj::kQ, all_normed);
  if (cut) {
    project_each(index, {{Proj::kK, k}, {Proj::kV, v}}, use, all_normed);
    gather(queries.spans, all_normed);
    gather(queries.spans, x);
  }
  const MatView whole_x = x, normed = rows(normed_, count);
  x = x.row_range(0, count);
  if (cut)
    project(index, Proj::kQ, use, normed, 0.0f, q);
  else
    project_each(index, {{Proj::kQ, q}, {Proj::kK, k}, {Proj::kV, v}}, use, normed);
  kernels::rope(rope_, queries.positions.data(), shape.head_dim, q);
  kernels::rope(rope_, layout_.positions.data(), shape.head_dim, k);

  const MatView attended = rows(tape.attended, count, query_width(shape));
  if (cache != nullptr) {
    const MatView keys = cache->keys[static_cast<size_t>(index)].mat(),
                  values = cache->values[static_cast<size_t>(index)].mat();
    // One sequence after the other behind the cached tokens, so that each finds its keys in one piece.
    for (size_t s = 0; s < layout_.spans.size(); ++s) {
      const AttentionSpan& added = layout_.spans[s];
      const int64_t first = added.query_begin, last = first + added.queries;
      copy_rows(k.row_range(first, last), keys.row_range(cache->length, added.keys));
      copy_rows(v.row_range(first, last), values.row_range(cache->length, added.keys));
      const AttentionSpan span{queries.spans[s].query_begin, queries.spans[s].queries, 0, added.keys};
      kernels::attention(context_, attention_shape(shape), {&span, 1}, q, keys, values, attended, nullptr);
    }
  } else {
    kernels::attention(context_, attention_shape(shape), queries.spans, q, k, v, attended, tape.log_sum_exp.data());
  }
  if (hook) hook(index, Proj::kO, attended);
  project(index, Proj::kO, use, attended, 1.0f, x);
  kernels::add_bias(layer.o_bias, x);

  copy_rows(x, rows(tape.middle, count));
  kernels::rms_norm(x, layer.ffn_norm.data(), model_.config.norm_eps, normed, tape.ffn_rms.data());
  if (hook) hook(index, Proj::kGate, normed);
  const MatView gate = rows(tape.gate, count, shape.ffn), up = rows(tape.up, count, shape.ffn);
  const MatView ffn = rows(ffn_, count, shape.ffn);
  project_each(index, {{Proj::kGate, gate}, {Proj::kUp, up}}, use, normed);
  kernels::swiglu(gate, up, ffn);
  if (hook) hook(index, Proj::kDown, ffn);
  project(index, Proj::kDown, use, ffn, 1.0f, x);
  kernels::add_bias(layer.down_bias, x);
  if (cut) scatter(queries.spans, whole_x);
}

void Transformer::run_layer_backward(int64_t index, const AdapterUse& use, LayerTape& tape, MatView dx, bool need_input,
                                     Adapter* gradients, const GradientHook& hook) {
  const Layer& layer = model_.layers[static_cast<size_t>(index)];
  const LayerShape& shape = layer.shape;
  const bool cut = is_cut(index);
  const RowLayout& queries = cut ? read_ : layout_;
  const int64_t all = dx.rows, count = queries.rows();
  const auto back = [&](Proj proj, ConstMatView x, ConstMatView dy, float beta, MatView d_input) {
    if (hook) hook(index, proj, x, dy);
    LoraPair* gradient = gradients != nullptr ? &gradients->at(index, proj) : nullptr;
    project_backward(context_, layer[proj], branch(index, proj, use), x, dy, beta, d_input,
                     gradient != nullptr && gradient->present() ? gradient : nullptr);
  };
  if (cut) gather(queries.spans, dx);
  const MatView whole_dx = dx;
  dx = dx.row_range(0, count);
  const MatView normed = rows(normed_, count), d_normed = rows(d_normed_, count);
  const MatView gate = rows(tape.gate, count, shape.ffn), up = rows(tape.up, count, shape.ffn);
  const MatView ffn = rows(ffn_, count, shape.ffn), d_ffn = rows(d_ffn_, count, shape.ffn);

  kernels::swiglu(gate, up, ffn);
  back(Proj::kDown, ffn, dx, 0.0f, d_ffn);
  kernels::swiglu_backward(gate, up, d_ffn, gate, up);  // gate and up become their gradients
  kernels::rms_norm(rows(tape.middle, count), layer.ffn_norm.data(), model_.config.norm_eps, normed,
                    tape.ffn_rms.data());
  back(Proj::kGate, normed, gate, 0.0f, d_normed);
  back(Proj::kUp, normed, up, 1.0f, d_normed);
  kernels::rms_norm_backward(rows(tape.middle, count), layer.ffn_norm.data(), tape.ffn_rms.data(), d_normed, dx);

  const int64_t wide = query_width(shape), narrow = key_width(shape);
  const MatView q = rows(tape.q, count, wide), k = rows(tape.k, all, narrow), v = rows(tape.v, all, narrow);
  const MatView attended = rows(tape.attended, count, wide), d_attended = rows(d_attended_, count, wide);
  const MatView dq = rows(dq_, count, wide), dk = rows(dk_, all, narrow), dv = rows(dv_, all, narrow);
  back(Proj::kO, attended, dx, 0.0f, d_attended);
  kernels::attention_backward(context_, attention_shape(shape), queries.spans, q, k, v, attended,
                              tape.log_sum_exp.data(), d_attended, dq, dk, dv);
  kernels::rope_backward(rope_, queries.positions.data(), shape.head_dim, dq);
  kernels::rope_backward(rope_, layout_.positions.data(), shape.head_dim, dk);
  const MatView all_normed = rows(normed_, all), all_d_normed = rows(d_normed_, all);
  kernels::rms_norm(rows(tape.input, all), layer.attention_norm.data(), model_.config.norm_eps, all_normed,
                    tape.attention_rms.data());
  const MatView d_input = need_input ? all_d_normed : MatView();
  back(Proj::kK, all_normed, dk, 0.0f, d_input);
  back(Proj::kV, all_normed, dv, 1.0f, d_input);
  if (!cut) {
    back(Proj::kQ, normed, dq, 1.0f, d_input);
  } else {
    gather(queries.spans, all_normed);
    const MatView through = rows(x_, all);
    back(Proj::kQ, normed, dq, 0.0f, need_input ? through.row_range(0, count) : MatView());
    scatter(queries.spans, through);
    for (int64_t t = 0; t < all && need_input; ++t)
      kernels::axpy(1.0f, through.row(t), all_d_normed.row(t), through.cols);
    scatter(queries.spans, whole_dx);
  }
  if (need_input)
    kernels::rms_norm_backward(rows(tape.input, all), layer.attention_norm.data(), tape.attention_rms.data(),
                               all_d_normed, whole_dx);
}

MatView Transformer::forward(const TokenBatch& batch, const AdapterUse& use) {
  const auto count = static_cast<int64_t>(batch.ids.size());
  BRICK_ASSERT(batch.offsets.size() >= 2 && batch.offsets.front() == 0 && batch.offsets.back() == count);
  if (count > max_tokens_) fail(ErrorCode::kInvalidInput, "a batch of {} tokens, planned for {}", count, max_tokens_);
  plan(batch.offsets, 0, batch.first_read);
  const MatView x = rows(x_, count);
  embed(batch.ids, x);
  const bool in_bf16 = runs_bf16(use, count);
  for (int64_t l = 0; l < model_.config.layers; ++l) {
    if (!inputs_.empty()) copy_rows(x, rows(inputs_[static_cast<size_t>(l)], count));
    run_layer(l, use, in_bf16, x);
  }
  return x;
}

bool Transformer::runs_bf16(const AdapterUse& use, int64_t tokens) {
  const LoraConfig* lora = use.adapter != nullptr ? &use.adapter->config : nullptr;
  if (trainable_) {
    BRICK_ASSERT(!bf16_ || lora == nullptr || (holds_bf16(context_.compute(), *lora) && lora->rank <= bf16_rank_));
    return bf16_ != nullptr;
  }
  if (tokens < kFewestBf16Tokens || context_.compute() != kernels::Compute::kBf16 ||
      (lora != nullptr && use.training && lora->dropout > 0))
    return false;
  const int64_t rank = lora != nullptr ? lora->rank : 0;
  if (bf16_ == nullptr || bf16_rank_ < rank) {
    bf16_ = std::make_unique<Bf16Layers>(model_, context_, max_tokens_, rank, false, 1);
    bf16_rank_ = rank;
  }
  return true;
}

void Transformer::run_layer(int64_t layer, const AdapterUse& use, bool in_bf16, MatView x, KvCache* cache,
                            const InputHook& hook) {
  if (!in_bf16 || has_few_queries(layer)) return run_layer(layer, use, tape_of(layer), x, cache, hook);
  std::optional<CachedRows> cached;
  if (cache != nullptr) {
    const auto i = static_cast<size_t>(layer);
    cached = CachedRows{cache->keys[i].mat(), cache->values[i].mat(), cache->length};
  }
  bf16_->forward(layer, rope_, rows_of(layer), use.adapter, x, cached ? &*cached : nullptr, hook);
}

MatView Transformer::extend_each(const TokenBatch& batch, const AdapterUse& use, KvCache& cache) {
  const auto count = static_cast<int64_t>(batch.ids.size());
  BRICK_ASSERT(batch.offsets.size() >= 2 && batch.offsets.front() == 0 && batch.offsets.back() == count);
  BRICK_ASSERT(count <= max_tokens_ && !(trainable_ && bf16_));
  plan(batch.offsets, cache.length, batch.first_read);
  for (const AttentionSpan& span : layout_.spans)
    if (span.keys > cache.capacity)
      fail(ErrorCode::kInvalidInput, "{} tokens do not fit a context of {}", span.keys, cache.capacity);
  const MatView x = rows(x_, count);
  embed(batch.ids, x);
  const bool in_bf16 = runs_bf16(use, count);
  for (int64_t l = 0; l < model_.config.layers; ++l) run_layer(l, use, in_bf16, x, &cache);
  return x;
}

MatView Transformer::extend(std::span<const int32_t> ids, const AdapterUse& use, KvCache& cache, int64_t first_read) {
  const auto count = static_cast<int64_t>(ids.size());
  const int64_t offsets[2] = {0, count};
  TokenBatch batch{ids, offsets};
  if (first_read > 0) batch.first_read = {&first_read, 1};
  const MatView x = extend_each(batch, use, cache);
  cache.length += count;
  return x;
}

void Transformer::backward(const TokenBatch& batch, const AdapterUse& use, MatView d_hidden, Adapter& gradients) {
  BRICK_ASSERT(trainable_ && use.adapter != nullptr);
  int64_t lowest = model_.config.layers;
  for_each_pair(*use.adapter, [&](int64_t layer, Proj, const LoraPair&) { lowest = std::min(lowest, layer); });
  run_backward(batch, use, lowest, d_hidden, &gradients, {});
}

void Transformer::backward(const TokenBatch& batch, MatView d_hidden, const GradientHook& hook) {
  BRICK_ASSERT(trainable_ && !bf16_);
  run_backward(batch, {}, 0, d_hidden, nullptr, hook);
}

void Transformer::run_backward(const TokenBatch& batch, const AdapterUse& use, int64_t lowest, MatView d_hidden,
                               Adapter* gradients, const GradientHook& hook) {
  const auto count = static_cast<int64_t>(batch.ids.size());
  for (int64_t l = model_.config.layers - 1; l >= lowest; --l) {
    if (!inputs_.empty()) {
      const MatView x = rows(x_, count);
      copy_rows(rows(inputs_[static_cast<size_t>(l)], count), x);
      run_layer(l, use, bf16_ != nullptr, x);
    }
    if (bf16_)
      bf16_->backward(l, rope_, rows_of(l), *use.adapter, d_hidden, l > lowest, *gradients);
    else
      run_layer_backward(l, use, tape_of(l), d_hidden, l > lowest, gradients, hook);
  }
}

void Transformer::layer_forward(int64_t layer, std::span<const int64_t> offsets, MatView x, const InputHook& hook) {
  BRICK_ASSERT(!(trainable_ && bf16_));
  plan(offsets, 0);
  run_layer(layer, {}, runs_bf16({}, x.rows), x, nullptr, hook);
}

void Transformer::layer_backward(int64_t layer, MatView dx, bool need_input, const WeightGradients& gradients) {
  BRICK_ASSERT(trainable_ && !bf16_);
  run_layer_backward(layer, {}, tape_of(layer), dx, need_input, nullptr,
                     [&](int64_t, Proj proj, ConstMatView x, ConstMatView dy) {
                       const MatView gradient = gradients[static_cast<size_t>(proj)];
                       if (gradient.data != nullptr) kernels::weight_gradient(context_, dy, x, gradient);
                     });
}

}  // namespace brick::model
