// LLM-Pruner (Ma et al. 2023; the formulas of the authors' code, horseee/LLM-Pruner): structures that depend on each
// other go together, the least important first. Block-wise: a key/value head with its query heads (rows of q, k and v,
// columns of o) or a feed-forward neuron (rows of gate and up, a column of down). With w a weight, g = dL/dw the
// gradient of the loss over all sequences and h = sum_j g_j^2 / N the mean square of the sequences' own, an entry's
// salience is
//   l1 |w|   l2 w^2   vectorize, param_first w g   param_second w^2 h   param_mix w g - w^2 h / 2;
// a channel (row or column) is worth the sum of |salience|, for vectorize |the sum|, a structure the sum of its
// channels. Layer-wise: the last layers go. Channel-wise: a channel of the residual stream goes everywhere, columns of
// embedding, head, q, k, v, gate and up, rows of o and down, entries of the norms; it is worth the sum over all of
// these.
//
// Differences, channel-wise: gradients are those of the layers' linear weights, so that embedding, head and norms count
// by l1 and l2 alone, a tied head once. The reference's attention branch handles no gradients but vectorize's, its
// magnitudes lose the embedding by its shape, and of all channels it scores a head size's and takes the others at the
// same places of their heads, though none of them belongs to a head; here each stands for itself. It leaves the norms
// as they are, though their means are over fewer channels; here each is scaled to give what it gave (our choice).
//
// Differences, block-wise: a key/value head is scored with the query heads that go with it; the reference adds those of
// other heads where several share one (folding = reference does so too, to compare). The reference ranks a head of many
// weights beside a neuron of few as equals; globally we rank importance by weight. Neurons go width_multiple at a time
// and make up for what whole heads leave of a layer's share.
#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <numeric>
#include <string_view>
#include <utility>

#include "brick/base/error.h"
#include "brick/base/rng.h"
#include "brick/kernels/linear.h"
#include "brick/prune/gradients.h"
#include "brick/prune/norm_walk.h"
#include "brick/prune/stored_values.h"
#include "brick/prune/structured.h"
#include "brick/prune/structures.h"

namespace brick::prune {
namespace {

using model::Proj;
using tensor::ConstMatView;

constexpr uint64_t kRandomStream = 0x6c6c6d7072756e;

enum class Importance : uint8_t { kRandom, kL1, kL2, kVectorize, kFirst, kSecond, kMix };

constexpr std::array<std::pair<std::string_view, Importance>, 7> kImportances{{{"random", Importance::kRandom},
                                                                               {"l1", Importance::kL1},
                                                                               {"l2", Importance::kL2},
                                                                               {"vectorize", Importance::kVectorize},
                                                                               {"param_first", Importance::kFirst},
                                                                               {"param_second", Importance::kSecond},
                                                                               {"param_mix", Importance::kMix}}};

bool needs_gradients(Importance importance) { return importance >= Importance::kVectorize; }
bool needs_squares(Importance importance) { return importance >= Importance::kSecond; }

struct Settings {
  Importance importance;
  bool reference_folding, layers, stream;
};

Settings parse(const PruneConfig& config) {
  Settings out{};
  const auto* known = std::find_if(kImportances.begin(), kImportances.end(),
                                   [&](const auto& entry) { return entry.first == config.importance; });
  if (known == kImportances.end())
    fail(ErrorCode::kInvalidInput,
         "importance '{}': expected l1, l2, random, vectorize, param_first, param_second or param_mix",
         config.importance);
  out.importance = known->second;
  if (config.folding != "right" && config.folding != "reference")
    fail(ErrorCode::kInvalidInput, "folding '{}': expected right or reference", config.folding);
  out.reference_folding = config.folding == "reference";
  if (config.mode != "block" && config.mode != "layer" && config.mode != "channel")
    fail(ErrorCode::kInvalidInput, "mode '{}': expected block, layer or channel", config.mode);
  out.layers = config.mode == "layer";
  out.stream = config.mode == "channel";
  if (config.protect_first < 0 || config.protect_last < 0 || config.iterative_steps < 1)
    fail(ErrorCode::kInvalidInput,
         "protect_first {} and protect_last {} must be 0 or more, iterative_steps {} 1 or more", config.protect_first,
         config.protect_last, config.iterative_steps);
  return out;
}

// A weight with its gradient and mean squares; those that the importance does not use have no data.
struct Entries {
  ConstMatView weight, gradient, squares;

  double salience(Importance importance, int64_t r, int64_t c) const {
    const auto w = static_cast<double>(weight(r, c));
    switch (importance) {
      case Importance::kL1:
        return w;
      case Importance::kL2:
        return w * w;
      case Importance::kVectorize:
      case Importance::kFirst:
        return w * static_cast<double>(gradient(r, c));
      case Importance::kSecond:
        return w * w * static_cast<double>(squares(r, c));
      case Importance::kMix:
        return w * static_cast<double>(gradient(r, c)) - 0.5 * w * w * static_cast<double>(squares(r, c));
      case Importance::kRandom:
        break;
    }
    return 0;
  }
};

// Of each row, or of each column.
std::vector<double> channel_importances(Importance importance, const Entries& entries, bool columns) {
  std::vector<double> sums(static_cast<size_t>(columns ? entries.weight.cols : entries.weight.rows));
  const bool whole = importance == Importance::kVectorize;
  for (int64_t r = 0; r < entries.weight.rows; ++r) {
    for (int64_t c = 0; c < entries.weight.cols; ++c) {
      const double salience = entries.salience(importance, r, c);
      sums[static_cast<size_t>(columns ? c : r)] += whole ? salience : std::fabs(salience);
    }
  }
  if (whole)
    for (double& sum : sums) sum = std::fabs(sum);
  return sums;
}

double sum_of_head(const std::vector<double>& channels, int64_t head, int64_t head_dim) {
  double sum = 0;
  for (int64_t i = head * head_dim; i < (head + 1) * head_dim; ++i) sum += channels[static_cast<size_t>(i)];
  return sum;
}

using Channels = std::array<std::vector<double>, model::kProjCount>;

// Of the residual stream, or of the heads and neurons within the layer.
Channels layer_channels(Importance importance, const DenseLayer& weights, const LayerGradients& gradients,
                        bool stream) {
  Channels channels;
  for (const Proj proj : model::kProjs) {
    const auto p = static_cast<size_t>(proj);
    const auto view = [](const tensor::Tensor& tensor) { return tensor.empty() ? ConstMatView() : tensor.mat(); };
    channels[p] =
        channel_importances(importance, {dense_rows(weights[p]), view(gradients.loss[p]), view(gradients.squares[p])},
                            model::writes_stream(proj) != stream);
  }
  return channels;
}

LayerScores score_layer(const Settings& settings, const model::LayerShape& shape, int64_t hidden,
                        const Channels& channels) {
  const auto of = [&](Proj proj) -> const std::vector<double>& { return channels[static_cast<size_t>(proj)]; };
  LayerScores scores;
  const int64_t groups = shape.kv_heads, queries = shape.heads / shape.kv_heads;
  for (int64_t g = 0; g < groups; ++g) {
    double sum = sum_of_head(of(Proj::kK), g, shape.head_dim) + sum_of_head(of(Proj::kV), g, shape.head_dim);
    for (int64_t i = 0; i < queries; ++i) {
      const int64_t head = settings.reference_folding ? g + i * groups : g * queries + i;
      sum += sum_of_head(of(Proj::kQ), head, shape.head_dim) + sum_of_head(of(Proj::kO), head, shape.head_dim);
    }
    scores.groups.push_back(sum / static_cast<double>(group_weights(shape, hidden)));
  }
  for (size_t i = 0; i < of(Proj::kDown).size(); ++i)
    scores.neurons.push_back((of(Proj::kGate)[i] + of(Proj::kUp)[i] + of(Proj::kDown)[i]) /
                             static_cast<double>(neuron_weights(hidden)));
  return scores;
}

std::vector<LayerScores> random_scores(const model::Model& model, uint64_t seed, uint64_t step) {
  std::vector<LayerScores> scores;
  for (size_t layer = 0; layer < model.layers.size(); ++layer) {
    Rng rng(seed, stream_id({kRandomStream, step, layer}));
    LayerScores& own = scores.emplace_back();
    own.groups.resize(static_cast<size_t>(model.layers[layer].shape.kv_heads));
    own.neurons.resize(static_cast<size_t>(model.layers[layer].shape.ffn));
    for (std::vector<double>* of : {&own.groups, &own.neurons})
      std::generate(of->begin(), of->end(), [&] { return rng.uniform(); });
  }
  return scores;
}

// In any order of the layers.
void for_each_layer(const StructureProblem& problem, const model::Model& model, const Settings& settings,
                    const std::function<void(size_t layer, const Channels& channels)>& visit) {
  const auto layers = static_cast<int64_t>(model.layers.size());
  int64_t done = 0;
  const auto take = [&](int64_t layer, const DenseLayer& weights, const LayerGradients& gradients) {
    visit(static_cast<size_t>(layer), layer_channels(settings.importance, weights, gradients, settings.stream));
    problem.sink.progress("llm-pruner", ++done, layers, "layers", {});
  };
  if (needs_gradients(settings.importance))
    for_each_gradient(model, problem.calibration, needs_squares(settings.importance), problem.context, take);
  else
    for (int64_t layer = 0; layer < layers; ++layer) take(layer, decode_layer(model, layer), {});
}

std::vector<LayerScores> score(const StructureProblem& problem, const model::Model& model, const Settings& settings,
                               int64_t step) {
  if (settings.importance == Importance::kRandom)
    return random_scores(model, problem.config.seed, static_cast<uint64_t>(step));
  std::vector<LayerScores> scores(model.layers.size());
  for_each_layer(problem, model, settings, [&](size_t layer, const Channels& channels) {
    scores[layer] = score_layer(settings, model.layers[layer].shape, model.config.hidden, channels);
  });
  check_scores(scores);
  return scores;
}

StructureLimits limits_of(const PruneConfig& config) {
  return {config.width_multiple, config.protect_first, config.protect_last};
}

// Linear weights of the layers that are not protected.
double open_weights(const model::Model& model, const StructureLimits& limits) {
  const auto layers = static_cast<int64_t>(model.layers.size());
  double open = 0;
  for (int64_t layer = 0; layer < layers; ++layer)
    if (!limits.is_protected(layer, layers))
      open += static_cast<double>(layer_weights(model.layers[static_cast<size_t>(layer)].shape, model.config.hidden));
  return open;
}

// Of `model`, what brings it to this sparsity of `whole`, the model before its first cut, on the way to `last`.
model::Cut choose(const model::Model& model, const model::Model& whole, const std::vector<LayerScores>& scores,
                  double sparsity, double last, const PruneConfig& config) {
  const StructureLimits limits = limits_of(config);
  const auto all = static_cast<double>(whole.linear_parameters());
  const double open = open_weights(whole, limits);
  if (!config.global_ranking)
    return choose_by_layer(model, whole, scores, sparsity * all / open, last * all / open, limits);
  const double removed = all - static_cast<double>(model.linear_parameters());
  return choose_globally(model, scores, sparsity * all - removed, limits);
}

model::Cut without_last_layers(const model::Model& model, double sparsity) {
  model::Cut cut = model::whole_cut(model);
  const auto layers = static_cast<double>(cut.layers.size());
  const auto kept = static_cast<size_t>(std::max(1.0, std::round(layers * (1 - sparsity))));
  cut.layers.resize(kept);
  return cut;
}

// Prunes a part at a time and scores anew what is left.
model::Cut choose_in_steps(const StructureProblem& problem, const Settings& settings, double sparsity) {
  model::Model current = problem.parent;
  current.block = {};  // so that cuts count in the parent
  const int64_t steps = problem.config.iterative_steps;
  for (int64_t step = 0; step < steps; ++step) {
    const double reached = sparsity * static_cast<double>(step + 1) / static_cast<double>(steps);
    const std::vector<LayerScores> scores = score(problem, current, settings, step);
    current = model::slice(current, choose(current, problem.parent, scores, reached, sparsity, problem.config), "f32");
  }
  return *current.block.cut;
}

void add(const std::vector<double>& part, std::vector<double>& sums) {
  std::transform(part.begin(), part.end(), sums.begin(), sums.begin(), std::plus<>());
}

// Magnitudes of a matrix's columns, a piece of rows at a time.
void add_columns(Importance importance, const tensor::Matrix& weight, std::vector<double>& sums) {
  const int64_t step = std::min(kernels::rows_a_piece(weight), weight.rows());
  tensor::Tensor rows = tensor::matrix(step, weight.cols());
  for (int64_t begin = 0; begin < weight.rows(); begin += step) {
    const int64_t end = std::min(begin + step, weight.rows());
    kernels::expand_rows(weight, begin, end, rows.f32());
    add(channel_importances(importance, {rows.mat().row_range(0, end - begin), {}, {}}, true), sums);
  }
}

// What each channel of the residual stream is worth.
std::vector<double> score_stream(const StructureProblem& problem, const model::Model& model, const Settings& settings) {
  const int64_t hidden = model.config.hidden;
  std::vector<double> scores(static_cast<size_t>(hidden));
  for_each_layer(problem, model, settings, [&](size_t, const Channels& channels) {
    for (const std::vector<double>& of_weight : channels) add(of_weight, scores);
  });
  if (!needs_gradients(settings.importance)) {
    const auto add_norm = [&](const std::vector<float>& norm) {
      add(channel_importances(settings.importance, {ConstMatView(norm.data(), 1, hidden), {}, {}}, true), scores);
    };
    for (const model::Layer& layer : model.layers) {
      add_norm(layer.attention_norm);
      add_norm(layer.ffn_norm);
    }
    add_norm(model.final_norm);
    add_columns(settings.importance, model.embedding, scores);
    if (model.own_head) add_columns(settings.importance, *model.own_head, scores);
  }
  const auto odd = std::find_if(scores.begin(), scores.end(), [](double score) { return !std::isfinite(score); });
  if (odd != scores.end())
    fail(ErrorCode::kNumeric,
         "what channel {} of the residual stream is worth is NaN or infinite: the weights are damaged or overflow",
         odd - scores.begin());
  return scores;
}

using ChannelSet = std::vector<int32_t>;  // ascending

// For each set of kept channels and each norm, the mean over tokens of rms(x of the set) / rms(x): what the narrowed
// norm is to be multiplied by for the least squared difference to what it gave of these channels.
std::vector<std::vector<double>> norm_factors(const StructureProblem& problem, std::span<const ChannelSet> sets) {
  const int64_t layers = static_cast<int64_t>(problem.parent.layers.size()), width = problem.parent.config.hidden;
  std::vector<std::vector<double>> factors(sets.size(), std::vector<double>(static_cast<size_t>(2 * layers + 1)));
  std::vector<double> squares(static_cast<size_t>(width));
  const NormWalk::Hook add = [&](int64_t norm, ConstMatView z) {
    for (int64_t t = 0; t < z.rows; ++t) {
      std::transform(z.row(t), z.row(t) + width, squares.begin(),
                     [](float x) { return static_cast<double>(x) * static_cast<double>(x); });
      const double all = std::reduce(squares.begin(), squares.end()) / static_cast<double>(width);
      for (size_t i = 0; i < sets.size(); ++i) {
        double kept = 0;
        for (const int32_t channel : sets[i]) kept += squares[static_cast<size_t>(channel)];
        kept /= static_cast<double>(sets[i].size());
        factors[i][static_cast<size_t>(norm)] += all > 0 ? std::sqrt(kept / all) : 1;
      }
    }
  };
  NormWalk walk(problem.parent, problem.calibration, problem.context);
  for (int64_t layer = 0; layer < layers; ++layer) {
    walk.next_layer(add);
    problem.sink.progress("norms", layer + 1, layers, "layers", {});
  }
  walk.last(add);
  for (std::vector<double>& of_set : factors)
    for (double& factor : of_set) {
      factor /= static_cast<double>(problem.calibration.tokens());
      if (!std::isfinite(factor))
        fail(ErrorCode::kNumeric, "the residual stream is not finite: the weights are damaged or overflow");
    }
  return factors;
}

void scale_norms(const std::vector<double>& factors, model::Model& model) {
  size_t next = 0;
  const auto scale = [&](std::vector<float>& norm) {
    const double factor = factors[next++];
    for (float& weight : norm) weight = static_cast<float>(factor * static_cast<double>(weight));
  };
  for (model::Layer& layer : model.layers) {
    scale(layer.attention_norm);
    scale(layer.ffn_norm);
  }
  scale(model.final_norm);
}

// The parent with each set of its channels alone; without text its norms stay as they are.
std::vector<model::Model> narrowed(const StructureProblem& problem, std::span<const ChannelSet> sets,
                                   const std::string& values) {
  std::vector<std::vector<double>> factors;
  if (problem.calibration.tokens() > 0) factors = norm_factors(problem, sets);
  std::vector<model::Model> models;
  for (size_t i = 0; i < sets.size(); ++i) {
    models.push_back(model::slice(problem.parent, model::channel_cut(problem.parent, sets[i]), values));
    if (!factors.empty()) scale_norms(factors[i], models.back());
  }
  return models;
}

// Of the parent's `kept` channels, once the others are gone.
std::vector<double> score_channels(const StructureProblem& problem, const Settings& settings, const ChannelSet& kept,
                                   int64_t step) {
  if (settings.importance == Importance::kRandom) {
    std::vector<double> scores(kept.size());
    Rng rng(problem.config.seed, stream_id({kRandomStream, static_cast<uint64_t>(step)}));
    std::generate(scores.begin(), scores.end(), [&] { return rng.uniform(); });
    return scores;
  }
  if (step == 0) return score_stream(problem, problem.parent, settings);
  return score_stream(problem, narrowed(problem, std::span(&kept, 1), "f32").front(), settings);
}

std::vector<model::Model> prune_channels(const StructureProblem& problem, const Settings& settings) {
  const int64_t hidden = problem.parent.config.hidden, steps = problem.config.iterative_steps;
  ChannelSet all(static_cast<size_t>(hidden));
  std::iota(all.begin(), all.end(), 0);
  const std::vector<double> first = score_channels(problem, settings, all, 0);
  std::vector<ChannelSet> sets;
  for (const double sparsity : problem.sparsities) {
    ChannelSet& kept = sets.emplace_back(all);
    for (int64_t step = 0; step < steps; ++step) {
      const double reached = sparsity * static_cast<double>(step + 1) / static_cast<double>(steps);
      const std::vector<double> scores = step == 0 ? first : score_channels(problem, settings, kept, step);
      ChannelSet next;
      for (const int32_t i : keep_highest(scores, stream_width(reached, hidden, problem.config.width_multiple)))
        next.push_back(kept[static_cast<size_t>(i)]);
      kept = std::move(next);
    }
  }
  return narrowed(problem, sets, problem.config.values);
}

}  // namespace

StructureNeeds llm_pruner_needs(const PruneConfig& config) {
  const Settings settings = parse(config);
  if (settings.layers) return {.text = false, .whole_layers = true, .unit = "layers"};
  if (settings.stream)
    return {.text = needs_gradients(settings.importance),
            .narrows = true,
            .unit = "channels of the stream, by width_multiple"};
  return {.text = needs_gradients(settings.importance)};
}

std::vector<std::string_view> llm_pruner_settings(const PruneConfig& config) {
  const Settings settings = parse(config);
  if (settings.layers) return {"mode"};
  if (settings.stream) return {"mode", "importance", "width_multiple", "iterative_steps", "piece_tokens"};
  return {"mode",    "importance",     "width_multiple", "iterative_steps", "piece_tokens",
          "folding", "global_ranking", "protect_first",  "protect_last"};
}

ExpectedStructures expect_llm_pruner(const model::Model& parent, const PruneConfig& config) {
  const int64_t hidden = parent.config.hidden, layers = static_cast<int64_t>(parent.layers.size());
  if (parse(config).layers) {
    ExpectedStructures out;
    for (const model::LayerCut& cut : without_last_layers(parent, config.sparsity).layers) {
      out.linear_weights += static_cast<double>(layer_weights(cut.parent, hidden));
      ++out.layers;
    }
    return out;
  }
  const StructureLimits limits = limits_of(config);
  const double remove = config.sparsity * static_cast<double>(parent.linear_parameters());
  if (config.global_ranking) return {left_globally(parent, remove, limits), layers, 0};
  const double share = std::min(remove / open_weights(parent, limits), 1.0);
  ExpectedStructures out{0, layers, 0};
  for (int64_t layer = 0; layer < layers; ++layer) {
    const model::LayerShape& shape = parent.layers[static_cast<size_t>(layer)].shape;
    const Widths left = limits.is_protected(layer, layers) ? Widths{shape.kv_heads, shape.ffn}
                                                           : widths_at(shape, hidden, share, limits.width_multiple);
    out.linear_weights +=
        static_cast<double>(left.groups * group_weights(shape, hidden) + left.neurons * neuron_weights(hidden));
  }
  return out;
}

void check_llm_pruner(const model::Model& parent, const PruneConfig& config) {
  const Settings settings = parse(config);
  if (settings.stream)
    return check_width(parent, stream_width(config.sparsity, parent.config.hidden, config.width_multiple),
                       config.values);
  if (settings.layers) return;
  if (config.sparsity * static_cast<double>(parent.linear_parameters()) >= open_weights(parent, limits_of(config)))
    fail(ErrorCode::kInvalidInput,
         "sparsity {:g} cannot be had with the first {} and last {} of {} layers whole; lower --protect-first and "
         "--protect-last",
         config.sparsity, config.protect_first, config.protect_last, parent.layers.size());
}

std::vector<model::Model> prune_llm_pruner(const StructureProblem& problem) {
  const Settings settings = parse(problem.config);
  if (settings.stream) return prune_channels(problem, settings);
  std::vector<LayerScores> scores;
  std::vector<StructureOutcome> outcomes;
  for (const double sparsity : problem.sparsities) {
    StructureOutcome& outcome = outcomes.emplace_back();
    if (settings.layers) {
      outcome.cut = without_last_layers(problem.parent, sparsity);
    } else if (problem.config.iterative_steps > 1) {
      outcome.cut = choose_in_steps(problem, settings, sparsity);
    } else {
      if (scores.empty()) scores = score(problem, problem.parent, settings, 0);
      outcome.cut = choose(problem.parent, problem.parent, scores, sparsity, sparsity, problem.config);
    }
  }
  return cut_out(problem, outcomes);
}

}  // namespace brick::prune
