// The pruning methods. A new one is one file and one line in registry.cc.
#pragma once

#include <array>
#include <span>
#include <string>
#include <string_view>

#include "brick/model/config.h"
#include "brick/prune/pattern.h"
#include "brick/prune/statistics.h"
#include "brick/tensor/mask.h"
#include "brick/tensor/view.h"

namespace brick::prune {

struct MethodOptions {
  double damping = 0.01;        // share of the mean diagonal that is added to H
  int64_t block_columns = 128;  // columns whose mask is chosen at once
  std::string_view dsnot_skip = "mlp";
};

// One weight to prune.
struct MatrixProblem {
  std::string name;  // for messages
  model::Proj proj = model::Proj::kQ;
  tensor::MatView weight;                   // [out, in], finite; a method may change what it keeps
  const InputStatistics* inputs = nullptr;  // of these inputs; null where the method needs none
  double sparsity = 0;                      // in (0, 1); of n:m patterns n / m
  Pattern pattern;
  MethodOptions options;
};

struct MatrixOutcome {
  tensor::Mask mask;       // 1 = kept
  bool fell_back = false;  // another method's mask, for the reason in `note`
  std::string note;        // empty unless a person should read it
};

struct LayerProblem;  // layer_problem.h
struct PrunedLayer;   // dense_layer.h

struct Method {
  std::string_view name, description;
  Needs needs = Needs::kNothing;
  bool keeps_values = true;  // kept weights stay as they are
  // Once for weights that share their inputs, before prune(); may be null.
  void (*prepare)(InputStatistics& inputs, const MethodOptions& options) = nullptr;
  MatrixOutcome (*prune)(const MatrixProblem& problem) = nullptr;
  bool even_rows = false;  // unstructured masks too keep equally many of each row
  // Instead of prune(), where it is not null: all weights of a layer together. `pruned` comes with the dense weights.
  void (*prune_layer)(const LayerProblem& problem, PrunedLayer& pruned) = nullptr;
  std::array<std::string_view, 2> settings{};  // PruneConfig's fields that it reads, for the block's provenance

  bool needs_calibration() const { return needs != Needs::kNothing; }
};

std::span<const Method> methods();

struct StructuredMethod;
std::span<const StructuredMethod> structured_methods();  // structured.h

std::string known_methods();             // "magnitude, wanda, ..."
std::string known_structured_methods();  // "flap, shortgpt, ..."

// A structured method, or one that masks and what is done around it, by the composite name [owl+]METHOD[+reconstruct],
// or both, the structured one first: STRUCTURED+[owl+]METHOD[+reconstruct].
struct Recipe {
  const StructuredMethod* structured = nullptr;  // null: nothing is cut
  bool owl = false;                              // layers' own sparsities, owl.h
  const Method* method = nullptr;                // null: nothing is masked, and what follows is of no meaning
  bool reconstruct = false;                      // reconstruct.h

  bool mixed() const { return structured != nullptr && method != nullptr; }
  Needs needs() const;  // of the inputs' statistics
  bool needs_calibration() const { return needs() != Needs::kNothing; }
  // Whether weights are pruned by the layer, not one by one.
  bool takes_layers() const { return reconstruct || (method != nullptr && method->prune_layer != nullptr); }
  bool keeps_values() const { return method->keeps_values && !reconstruct; }
};

// Error(kUnsupported) that lists the known methods.
Recipe parse_recipe(std::string_view name);

// |W|; drops what is not above the int(n sparsity)-th smallest of the whole matrix, so one more than the
// share (as Wanda's code does).
MatrixOutcome prune_magnitude(const MatrixProblem& problem);

// Wanda (Sun et al. 2023): |W_ij| ||X_j||_2; drops the lowest floor(in sparsity) of each row.
MatrixOutcome prune_wanda(const MatrixProblem& problem);

// Wanda++ (Yang et al. 2025): |W_ij| (||X_j||_2 + alpha G_ij) with gradients G of the layer's output, and rounds of
// descent towards the dense layer's.
void prune_wanda_plus(const LayerProblem& problem, PrunedLayer& pruned);

// RIA (Zhang et al. 2024): shares of the row's and the column's |W|, times ||X_j||^(1/2); threshold as magnitude's.
MatrixOutcome prune_ria(const MatrixProblem& problem);

// DSnoT (Zhang et al. 2024): Wanda's mask, then weights trade places until the dropped ones' mean output is small, in
// all matrices but those of options.dsnot_skip ("mlp", "attention", "none").
MatrixOutcome prune_dsnot(const MatrixProblem& problem);

// ALPS (Meng et al. 2024): ADMM over the whole matrix for the mask, conjugate gradients for what is kept.
MatrixOutcome prune_alps(const MatrixProblem& problem);

// SparseGPT (Frantar & Alistarh 2023): W_ij^2 / U_jj^2 over blocks of columns; what is kept makes up for what
// is dropped.
MatrixOutcome prune_sparsegpt(const MatrixProblem& problem);
void prepare_sparsegpt(InputStatistics& inputs, const MethodOptions& options);

// Error(kInvalidInput) naming the weight if its inputs are no whole number of groups.
void check_groups(const MatrixProblem& problem);

}  // namespace brick::prune
