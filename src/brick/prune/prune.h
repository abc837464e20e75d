// From a model and a text to building blocks: the linear weights of the layers are pruned, embeddings, head
// and norms stay.
//
// Structured methods (structured.h) look at the dense model and cut heads, neurons or layers out of it; what is left
// may be masked in the same call. Of methods that mask, layers go in order. One pass of a layer's inputs gives the
// statistics of all seven weights (q, k and v share their inputs, gate and up theirs); the seven are pruned and
// encoded; the layer runs again through what was stored, so the next layer sees what the block will compute (Frantar &
// Alistarh 2023, Sun et al. 2023). With true_sequential, GPTQ's order (Frantar et al. 2023), each weight sees what the
// block will compute, in one pass.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "brick/base/log.h"
#include "brick/kernels/context.h"
#include "brick/model/model.h"

namespace brick::prune {

struct PruneConfig {
  std::string method = "sparsegpt";      // [STRUCTURED+][owl+]METHOD[+reconstruct] of registry.h, or STRUCTURED
  double sparsity = 0.5;                 // share removed of the layers' linear weights, [0, 1)
  double structured_sparsity = 0;        // of STRUCTURED+...: share that is cut out; sparsity is of what that leaves
  std::string pattern = "unstructured";  // or "n:m": n of every m inputs are dropped, and sparsity is n / m
  std::string values = "bf16";           // how kept weights are stored: f32, bf16, q4, keep (stored_values.h)
  double damping = 0.01;                 // SparseGPT, SliceGPT's refit: share of the mean diagonal added to H
  int64_t block_columns = 128;           // SparseGPT: columns whose mask is chosen at once
  int64_t piece_tokens = 4096;           // calibration tokens that go through a layer at a time
  bool true_sequential = false;          // a weight's inputs come through the pruned ones of its own layer, too
  std::string dsnot_skip = "mlp";        // DSnoT: matrices that keep Wanda's mask: mlp, attention, none
  double owl_outlier = 5;                // OWL (owl.h): an outlier is so many times the layer's mean score
  double owl_spread = 0.08;              //   layers' sparsities differ by up to twice this
  int64_t refit_steps = 15;              // reconstruction (reconstruct.h): conjugate gradient steps a matrix;
                                         //   SliceGPT, which solves at once: 0 leaves its refit out
  int64_t descent_epochs = 2;            //   passes of gradient descent a layer
  int64_t descent_batch = 512;           //   tokens a step, in whole windows
  double descent_rate = 1e-3;            //   of Adam
  double regional_scale = 100;           // Wanda++ (wanda_plus.cc): of the gradients beside the inputs' norms
  int64_t regional_rounds = 5;           //   of pruning and descent
  int64_t regional_samples = 32;         //   calibration windows a round
  double regional_rate = 3e-7;           //   of RMSprop
  uint64_t seed = 0;                     // of the windows in descents, of random importance
  std::string tool_version;              // recorded in the provenance; no setting

  int64_t width_multiple = 64;             // structured: of the neurons, or of the stream's width, that are kept
  std::string importance = "param_first";  // LLM-Pruner (llm_pruner.cc): l1, l2, random, vectorize, param_first, ...
  std::string mode = "block";              //   block: heads and neurons; channel: of the stream; layer: the last layers
  std::string folding = "right";           //   which query heads count for a key/value head: right, reference
  bool global_ranking = false;             //   the least important of all layers, not the same share of each
  int64_t protect_first = 4, protect_last = 2;  //   layers that stay whole
  int64_t iterative_steps = 1;                  //   prunings with a scoring each

  // What steers a method, beside its name, the sparsity and the seed.
  template <class V>
  void fields(V&& visit) {
    visit("structured_sparsity", structured_sparsity,
          "flap+METHOD: share of the layers' linear weights that flap cuts out first; sparsity is of what that leaves");
    visit("pattern", pattern, "unstructured, n:m (n of every m removed), or, with a target, auto");
    visit("values", values, "how kept values are stored: f32, bf16, q4 or keep");
    visit("damping", damping,
          "sparsegpt, alps, +reconstruct, slicegpt's refit: share of the mean diagonal that is added to the Hessian");
    visit("block_columns", block_columns, "sparsegpt: columns whose mask is chosen at once");
    visit("piece_tokens", piece_tokens, "calibration tokens that go through a layer at a time; fewer take less memory");
    visit("true_sequential", true_sequential,
          "wanda, ria, dsnot, sparsegpt, alps: prune q, k and v, then o, then gate and up, then down, each for inputs "
          "that "
          "come through those before it: one pass through a layer instead of two");
    visit("dsnot_skip", dsnot_skip, "dsnot: where Wanda's mask stays: mlp, attention or none");
    visit("owl_outlier", owl_outlier, "owl+: an outlier has so many times the mean score of the layer's weights");
    visit("owl_spread", owl_spread, "owl+: layers' sparsities differ by up to twice this");
    visit("refit_steps", refit_steps, "+reconstruct: least-squares steps a matrix; slicegpt: 0 leaves its refit out");
    visit("descent_epochs", descent_epochs, "+reconstruct: passes of gradient descent a layer");
    visit("descent_rate", descent_rate, "+reconstruct: learning rate of gradient descent");
    visit("descent_batch", descent_batch, "+reconstruct: tokens a step of gradient descent");
    visit("regional_scale", regional_scale, "wanda++: weight of the gradients beside the inputs' norms");
    visit("regional_rounds", regional_rounds, "wanda++: rounds of pruning and descent");
    visit("regional_samples", regional_samples, "wanda++: calibration windows a round");
    visit("regional_rate", regional_rate, "wanda++: learning rate of the descent");
    visit("width_multiple", width_multiple,
          "structured: of the neurons that a layer keeps, or of the residual stream's width");
    visit("importance", importance, "llm-pruner: l1, l2, random, vectorize, param_first, param_second or param_mix");
    visit("mode", mode,
          "llm-pruner: block (heads and neurons), channel (of the residual stream) or layer (the last layers)");
    visit("folding", folding,
          "llm-pruner: query heads that count for a key/value head, right or as the reference has them");
    visit("global_ranking", global_ranking, "llm-pruner: rank the structures of all layers together");
    visit("protect_first", protect_first, "llm-pruner: first layers that stay whole");
    visit("protect_last", protect_last, "llm-pruner: last layers that stay whole");
    visit("iterative_steps", iterative_steps, "llm-pruner: prunings with a scoring each");
  }
};

struct MatrixReport {
  int64_t layer = 0;
  model::Proj proj = model::Proj::kQ;
  double sparsity = 0;  // share that was removed
  std::optional<double>
      output_error;          // ||X (W - W')^T|| / ||X W^T|| over 256 calibration tokens; none without calibration
  double damping = 0;        // of the Hessian that was factorised; 0 where there was none
  int64_t dead_columns = 0;  // inputs that are 0 in all of the calibration
  bool fell_back = false;    // pruned by Wanda instead
};

struct PruneReport {
  double sparsity = 0;  // share removed of the parent's linear weights, by both where methods are mixed
  int64_t calibration_tokens = 0;
  std::vector<MatrixReport> matrices;    // in the order of their use; none of structured methods
  std::vector<double> layer_sparsities;  // asked for, by OWL; else empty
  std::vector<double> stream_errors;     // with reconstruction, of each layer's output: Reconstructor::stream_error()
  std::vector<std::string> notes;        // warnings: fallbacks, raised damping, too little text
  double seconds = 0;
  double statistics_seconds = 0, solve_seconds = 0, rerun_seconds = 0;  // parts of `seconds`
};

// Whether the method, with these settings, looks at calibration text. Error(kUnsupported) for unknown methods.
bool needs_calibration(const PruneConfig& config);

// Of prune_family()'s Errors those that settings alone tell.
void check_settings(const PruneConfig& config, std::span<const double> sparsities);
// And those that the parent tells before any work.
void check_parent(const model::Model& parent, std::span<const double> sparsities, const PruneConfig& config);

// One block a sparsity, in their order. A sparsity of 0 gives the parent's weights, unmasked. Levels share
// the statistics and factorisations of the first layer and go one after the other, so the memory is one
// level's: [tokens, D] activations and in^2 * 8 bytes a Hessian. Each block equals, bit for bit, what prune()
// gives for its level. A method that cuts and masks cuts once, and equals, bit for bit, two calls in turn: the
// structured method at structured_sparsity with values f32 (keep, where that is asked for), then the rest on that
// block; its sparsities are above 0. `windows` may be empty where the method needs no calibration. `reports`, if given,
// gets one entry a level. Errors: kInvalidInput for a sparsity outside [0, 1) or not the pattern's, other
// settings that make no sense, missing calibration, ids outside the vocabulary; kUnsupported for unknown
// methods and values that the parent cannot keep; kNumeric for weights or inputs with NaN or infinity, naming
// the weight.
std::vector<model::Model> prune_family(const model::Model& parent, std::span<const std::span<const int32_t>> windows,
                                       std::span<const double> sparsities, const PruneConfig& config,
                                       kernels::Context& context, ProgressSink& sink,
                                       std::vector<PruneReport>* reports = nullptr);

// The block of config.sparsity.
model::Model prune(const model::Model& parent, std::span<const std::span<const int32_t>> windows,
                   const PruneConfig& config, kernels::Context& context, ProgressSink& sink,
                   PruneReport* report = nullptr);

}  // namespace brick::prune
