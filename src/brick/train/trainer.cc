#include "brick/train/trainer.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <numeric>
#include <utility>

#include "brick/base/error.h"
#include "brick/base/process.h"
#include "brick/base/sha256.h"
#include "brick/data/batches.h"
#include "brick/model/loss.h"
#include "brick/train/checkpoint.h"
#include "brick/train/optimizer.h"

namespace brick::train {
namespace {

using model::Adapter;

data::BatchOptions batch_options(const TuneConfig& config, uint64_t seed) {
  return {config.batch_tokens, config.batch_records, config.shuffle, seed};
}

// The steps of a run, planned an epoch at a time: each is `accumulate` batches (fewer at an epoch's end), in parts of
// at most `part_tokens` tokens.
class Steps {
 public:
  Steps(std::span<const data::TokenSequence> sequences, const TuneConfig& config, uint64_t seed, int64_t part_tokens)
      : lengths_(data::lengths_of(sequences)),
        options_(batch_options(config, seed)),
        accumulate_(static_cast<size_t>(config.accumulate)),
        part_tokens_(part_tokens) {}

  int64_t in_epoch(int64_t epoch) {
    load(epoch);
    return static_cast<int64_t>(first_part_.size()) - 1;
  }
  std::span<const std::vector<int64_t>> parts(int64_t epoch, int64_t index) {
    load(epoch);
    const size_t* step = first_part_.data() + index;
    return std::span(parts_).subspan(step[0], step[1] - step[0]);
  }

 private:
  void load(int64_t epoch) {
    if (epoch == epoch_) return;
    const std::vector<std::vector<int64_t>> batches = data::plan_epoch(lengths_, options_, epoch);
    parts_.clear();
    first_part_.assign(1, 0);
    for (size_t b = 0; b < batches.size(); ++b) {
      std::ranges::move(data::split_batch(batches[b], lengths_, part_tokens_), std::back_inserter(parts_));
      if ((b + 1) % accumulate_ == 0 || b + 1 == batches.size()) first_part_.push_back(parts_.size());
    }
    epoch_ = epoch;
  }

  std::vector<int64_t> lengths_;
  data::BatchOptions options_;
  size_t accumulate_;
  int64_t part_tokens_, epoch_ = -1;
  std::vector<std::vector<int64_t>> parts_;  // of all steps
  std::vector<size_t> first_part_;           // of each step, and the end
};

int64_t total_steps(Steps& steps, const TuneConfig& config) {
  if (config.steps > 0) return config.steps;
  int64_t total = 0;
  const auto whole = static_cast<int64_t>(std::floor(config.epochs));
  for (int64_t e = 0; e < whole; ++e) total += steps.in_epoch(e);
  const double rest = config.epochs - static_cast<double>(whole);
  if (rest > 0) total += static_cast<int64_t>(std::ceil(rest * static_cast<double>(steps.in_epoch(whole))));
  return std::max<int64_t>(total, 1);
}

// The most tokens that a part of at most `part` tokens, or of one longer record, can have.
int64_t largest_part(std::span<const data::TokenSequence> sequences, const TuneConfig& config, int64_t part) {
  std::vector<int64_t> lengths = data::lengths_of(sequences);
  std::sort(lengths.rbegin(), lengths.rend());
  const int64_t all = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
  int64_t batch = std::min(all, std::max(config.batch_tokens, lengths.front()));
  if (config.batch_records > 0) {
    const auto count = std::min(lengths.size(), static_cast<size_t>(config.batch_records));
    batch = std::accumulate(lengths.begin(), lengths.begin() + static_cast<int64_t>(count), int64_t{0});
  }
  return std::min(batch, std::max(part, lengths.front()));
}

constexpr int64_t kWholeBatch = std::numeric_limits<int64_t>::max();
constexpr int64_t kFewestTokens = 16;  // of a record that is worth training on

// Products of as many rows run at full rate, and unpacking the weights for each part takes little of its time.
int64_t part_tokens(kernels::Compute compute) { return compute == kernels::Compute::kF32 ? 256 : 512; }

constexpr int64_t kScratchFloats = 24 << 20;  // pieces of weights and logits

// Activations and work of one token.
int64_t token_bytes(const model::Model& model, model::Activations activations, std::optional<int64_t> bf16_rank) {
  const model::ModelConfig& c = model.config;
  if (bf16_rank) {
    const bool keep = activations == model::Activations::kKeep;
    return model::Bf16Layers::tape_bytes(model, *bf16_rank) * (keep ? c.layers : 1) +
           model::Bf16Layers::work_bytes(model, *bf16_rank) + 4 * c.hidden * (2 + (keep ? 0 : c.layers));
  }
  const int64_t heads = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
  const int64_t kept = 2 * c.hidden + 2 * heads + 2 * kv + 2 * c.ffn;  // floats a layer
  const int64_t layers_kept = activations == model::Activations::kKeep ? c.layers : 1;
  const int64_t inputs = activations == model::Activations::kKeep ? 0 : c.layers * c.hidden;
  const int64_t work = 5 * c.hidden + 3 * heads + 2 * kv + 2 * c.ffn;
  return 4 * (kept * layers_kept + inputs + work);
}

// What is held of an adapter: itself, the last good one, gradients, two moments.
int64_t adapter_bytes(const model::Model& model, const model::LoraConfig& lora) {
  int64_t sides = 0;
  for (const model::Layer& layer : model.layers)
    for (const model::Proj proj : lora.targets) sides += layer[proj].rows() + layer[proj].cols();
  return 5 * int64_t{sizeof(float)} * lora.rank * sides;
}

std::string run_hash(std::span<const data::TokenSequence> sequences, TuneConfig config, const TuneOptions& options,
                     const Objective& objective) {
  Sha256 hash;
  config.fields([&](std::string_view name, const auto& value, std::string_view) {
    hash.update(fmt::format("{}={};", name, value));
  });
  hash.update(fmt::format("seed={};minutes={};{};", options.seed, options.minutes, options.run_identity));
  hash.update(objective.identity());
  for (const data::TokenSequence& s : sequences) {
    hash.update(std::as_bytes(std::span(s.ids)));
    hash.update(std::as_bytes(std::span(s.supervised)));
  }
  if (options.init != nullptr)
    for_each_pair(*options.init, [&](int64_t, model::Proj, const model::LoraPair& pair) {
      hash.update(pair.a.bytes());
      hash.update(pair.b.bytes());
    });
  return hash.hex();
}

// A setting with which a plan that needs more than is available would fit.
std::string remedy(const MemoryPlan& plan, int64_t available, int64_t rank, bool may_change_rank, bool by_records,
                   int64_t token_bytes) {
  if (plan.bytes() - plan.objective_bytes <= available)
    return "give a --teacher of fewer bits or layers, or a --cache that was filled where there is more memory";
  const int64_t for_adapter = available - (plan.bytes() - plan.adapter_bytes);
  if (const int64_t most = for_adapter / (plan.adapter_bytes / rank); may_change_rank && most >= 1)
    return fmt::format("--rank {} would fit, or fewer --targets", most);
  const int64_t for_tokens = available - (plan.bytes() - plan.part_tokens * token_bytes);
  if (const int64_t most = for_tokens / token_bytes; most >= kFewestTokens)
    return fmt::format("--length {} with {} would fit", most,
                       by_records ? "--batch-records 1" : fmt::format("--batch-tokens {}", most));
  return "take a smaller block, or a machine with more memory";
}

// Of the adapter that comes out: a new one, or --init's with this run's dropout and mask.
model::LoraConfig tuned_config(const model::Model& model, const TuneConfig& config, const TuneOptions& options) {
  if (options.init == nullptr) return lora_config(model, config);
  model::LoraConfig lora = options.init->config;
  lora.dropout = config.dropout;
  if (const std::string mask = config.masked ? model::mask_hash(model) : ""; !mask.empty()) {
    lora.masked = true;
    lora.mask_hash = mask;
  }
  return lora;
}

struct StepResult {
  double loss = 0;  // mean over supervised tokens
  int64_t tokens = 0, supervised = 0;
};

// What each part of a step fills anew. Its memory serves the whole run, so that a step allocates none.
struct PartBuffers {
  data::Batch batch{};
  std::vector<model::ScoredToken> scored{};
  std::vector<int64_t> first_read{};
  std::vector<float> losses{};
  tensor::Tensor d_hidden;
};

// Loss and accumulated gradients of a step's parts; the mean is over all their supervised tokens. Each part has dropout
// of its own.
StepResult run_step(model::Transformer& transformer, Objective& objective, model::AdapterUse use,
                    std::span<const data::TokenSequence> sequences, std::span<const std::vector<int64_t>> parts,
                    PartBuffers& buffers, Adapter& gradients) {
  StepResult result;
  for (const std::vector<int64_t>& part : parts)
    for (const int64_t record : part) {
      const std::span<const data::TokenSequence> one = sequences.subspan(static_cast<size_t>(record), 1);
      result.tokens += data::count_tokens(one);
      result.supervised += data::count_supervised(one);
    }
  const auto weight = static_cast<float>(1.0 / static_cast<double>(result.supervised));
  double sum = 0;
  auto& [batch, scored, first_read, losses, d_hidden] = buffers;
  for (const std::vector<int64_t>& part : parts) {
    batch = data::make_batch(sequences, part, std::move(batch));
    scored = model::scored_tokens(batch.ids, batch.supervised, batch.offsets, std::move(scored));
    first_read = model::first_read_rows(scored, batch.offsets, std::move(first_read));
    const model::TokenBatch tokens{batch.ids, batch.offsets, first_read};
    losses.assign(scored.size(), 0.0f);
    const tensor::MatView hidden = transformer.forward(tokens, use);
    const tensor::MatView d(d_hidden.f32(), hidden.rows, hidden.cols);
    objective.backward(transformer.context(), transformer.model(), {batch, scored, hidden}, weight, losses, d);
    transformer.backward(tokens, use, d, gradients);
    for (float loss : losses) sum += loss;
    ++use.part;
  }
  result.loss = sum / static_cast<double>(result.supervised);
  return result;
}

}  // namespace

model::LoraConfig lora_config(const model::Model& model, const TuneConfig& config) {
  model::LoraConfig lora;
  lora.rank = config.rank;
  lora.alpha = config.alpha;
  lora.rslora = config.rslora;
  lora.dropout = config.dropout;
  lora.targets = model::parse_targets(config.targets);
  lora.mask_hash = config.masked ? model::mask_hash(model) : "";
  lora.masked = !lora.mask_hash.empty();
  lora.base_fingerprint = model::fingerprint(model);
  return lora;
}

MemoryPlan plan_memory(const model::Model& model, std::span<const data::TokenSequence> sequences,
                       const TuneConfig& config, const TuneOptions& options, kernels::Compute compute) {
  using model::Activations;
  const model::LoraConfig lora = tuned_config(model, config, options);
  const auto bf16_rank = model::holds_bf16(compute, lora) ? std::optional(lora.rank) : std::nullopt;
  const auto planned = [&](int64_t part, Activations activations) {
    MemoryPlan plan{largest_part(sequences, config, part), activations, bf16_rank};
    plan.model_bytes = model.weight_bytes();
    plan.adapter_bytes = adapter_bytes(model, lora);
    plan.buffer_bytes = plan.part_tokens * token_bytes(model, activations, bf16_rank) + 4 * kScratchFloats;
    if (options.objective != nullptr)
      plan.objective_bytes = options.objective->planned_bytes(sequences, plan.part_tokens);
    return plan;
  };
  const MemoryPlan low = planned(part_tokens(compute), Activations::kRecompute);
  const int64_t available = available_memory_bytes();
  const auto fits = [&](const MemoryPlan& plan) { return available == 0 || plan.bytes() <= available; };
  if (!fits(low))
    fail(ErrorCode::kInvalidInput,
         "training needs {} MB ({} for the model, {} for the adapter, {} for {} tokens{}) and {} MB are free: {}",
         low.bytes() >> 20, low.model_bytes >> 20, low.adapter_bytes >> 20, low.buffer_bytes >> 20, low.part_tokens,
         low.objective_bytes > 0 ? fmt::format(", {} for the teacher", low.objective_bytes >> 20) : "", available >> 20,
         remedy(low, available, lora.rank, options.init == nullptr, config.batch_records > 0,
                token_bytes(model, Activations::kRecompute, bf16_rank)));
  if (config.memory == "low") return low;
  if (config.memory == "fast") {
    const MemoryPlan fast = planned(kWholeBatch, Activations::kKeep);
    if (!fits(fast))
      fail(ErrorCode::kInvalidInput, "training with --memory fast needs {} MB and {} MB are free: use --memory auto",
           fast.bytes() >> 20, available >> 20);
    return fast;
  }
  const MemoryPlan keep = planned(part_tokens(compute), Activations::kKeep);
  return available == 0 || 2 * keep.bytes() - keep.model_bytes <= available ? keep : low;
}

TuneResult tune(const model::Model& model, std::span<const data::TokenSequence> sequences, const TuneConfig& config,
                const TuneOptions& options, kernels::Context& context, ProgressSink& sink) {
  config.validate();
  if (sequences.empty()) fail(ErrorCode::kInvalidInput, "no records to train on");
  const Stopwatch watch;
  TuneResult result;
  const MemoryPlan plan =
      options.plan ? *options.plan : plan_memory(model, sequences, config, options, context.compute());
  result.planned_bytes = plan.bytes();
  if (options.init != nullptr) {
    model::check_fits(*options.init, model);
    result.adapter = options.init->clone();
    result.adapter.config = tuned_config(model, config, options);
  } else {
    result.adapter = model::make_adapter(model, lora_config(model, config), options.seed);
  }
  Adapter& adapter = result.adapter;
  Adapter gradients = zeros_like(adapter);
  AdamW optimizer(adapter, {.weight_decay = config.weight_decay});

  const std::unique_ptr<Objective> cross_entropy = make_objective("cross-entropy");
  Objective& objective = options.objective != nullptr ? *options.objective : *cross_entropy;
  Progress progress;
  progress.run_hash = run_hash(sequences, config, options, objective);
  Steps steps(sequences, config, options.seed, plan.part_tokens);
  int64_t total = options.minutes > 0 ? std::numeric_limits<int64_t>::max() : total_steps(steps, config);
  if (options.resume && !options.checkpoint.empty())
    if (const auto saved = load_checkpoint(options.checkpoint, progress.run_hash, total, adapter, optimizer)) {
      progress = *saved;
      if (options.minutes > 0) total = foreseen_steps(options.minutes, progress.step, progress.seconds);
    }
  Adapter last_good = adapter.clone();  // its memory serves the whole run

  model::Transformer transformer(model, context, plan.part_tokens, true, plan.activations, plan.bf16_rank);
  PartBuffers buffers{.d_hidden = tensor::matrix(plan.part_tokens, model.config.hidden)};

  int64_t epoch = 0, index = 0;  // the next step's place in the data
  for (int64_t skip = progress.step; skip > 0; --skip)
    if (++index == steps.in_epoch(epoch)) ++epoch, index = 0;

  const double earlier_seconds = progress.seconds;
  int64_t session_tokens = 0;
  while (progress.step < total) {
    const Stopwatch step_watch;
    zero(gradients);
    const model::AdapterUse use{&adapter, true, options.seed, static_cast<uint64_t>(progress.step)};
    const StepResult step =
        run_step(transformer, objective, use, sequences, steps.parts(epoch, index), buffers, gradients);
    const double norm = gradient_norm(gradients);
    if (!std::isfinite(step.loss) || !std::isfinite(norm)) {
      result.stopped = fmt::format(
          "step {}: the {} is not a number; kept the adapter of the last good step ({})", progress.step + 1,
          std::isfinite(step.loss) ? "gradient" : "loss",
          progress.step > 0 ? "try a lower --lr" : "before any update: weights of the model or of --init are damaged");
      adapter = std::move(last_good);
      if (progress.step > 0) --progress.step;  // the update that led here is undone
      break;
    }
    progress.seconds = earlier_seconds + watch.seconds();
    if (options.minutes > 0) total = foreseen_steps(options.minutes, progress.step + 1, progress.seconds);
    copy_values(adapter, last_good);
    const double lr = learning_rate(config.schedule, config.lr, config.warmup, progress.step, total);
    optimizer.step(adapter, gradients, config.clip > 0 && norm > config.clip ? config.clip / (norm + 1e-6) : 1.0, lr);

    if (progress.step == 0) progress.loss_first = step.loss;
    progress.loss_last = step.loss;
    progress.tokens += step.tokens;
    progress.supervised_tokens += step.supervised;
    ++progress.step;
    session_tokens += step.tokens;
    if (++index == steps.in_epoch(epoch)) ++epoch, index = 0;
    if (options.on_step) options.on_step({progress.step, step.tokens, step.loss, lr, norm, step_watch.seconds()});
    sink.progress(
        "tune", progress.step, total, "steps",
        fmt::format("loss {:.4f}  {:.0f} tokens/s", step.loss, static_cast<double>(session_tokens) / watch.seconds()));
    if (options.save_every > 0 && !options.checkpoint.empty() &&
        (progress.step % options.save_every == 0 || progress.step == total))
      save_checkpoint(options.checkpoint, progress, adapter, optimizer);
  }
  result.steps = progress.step;
  result.tokens = progress.tokens;
  result.supervised_tokens = progress.supervised_tokens;
  result.loss_first = progress.loss_first;
  result.loss_last = progress.loss_last;
  result.seconds = earlier_seconds + watch.seconds();
  return result;
}

}  // namespace brick::train
