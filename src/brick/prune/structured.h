// Methods that cut whole structures out of a model, so that its matrices become smaller: key/value heads with their
// query heads, feed-forward neurons, layers. A new one is one file and one line in registry.cc.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "brick/model/cut.h"
#include "brick/prune/calibration.h"
#include "brick/prune/prune.h"

namespace brick::prune {

struct StructureProblem {
  const model::Model& parent;
  const Calibration& calibration;      // empty where the method needs none
  std::span<const double> sparsities;  // above 0, each for a block of its own
  const PruneConfig& config;
  kernels::Context& context;
  ProgressSink& sink;
};

struct StructureOutcome {
  // [D] each, what the biases of o and down gain; empty: nothing.
  struct Biases {
    std::vector<float> o, down;
  };
  model::Cut cut;              // in the parent's own numbers
  std::vector<Biases> biases;  // one a layer of the cut, or none at all
};

struct StructureNeeds {
  bool text = true;           // calibration
  bool whole_layers = false;  // go, and nothing within one
};

struct StructuredMethod {
  std::string_view name, description;
  // Error(kInvalidInput) for settings that make no sense.
  StructureNeeds (*needs)(const PruneConfig& config) = nullptr;
  // One outcome a sparsity.
  std::vector<StructureOutcome> (*prune)(const StructureProblem& problem) = nullptr;
};

// LLM-Pruner (Ma et al. 2023).
StructureNeeds llm_pruner_needs(const PruneConfig& config);
std::vector<StructureOutcome> prune_llm_pruner(const StructureProblem& problem);

// FLAP (An et al. 2024, "Fluctuation-based adaptive structured pruning").
StructureNeeds flap_needs(const PruneConfig& config);
std::vector<StructureOutcome> prune_flap(const StructureProblem& problem);

// ShortGPT (Men et al. 2024): whole layers of the least block influence.
StructureNeeds shortgpt_needs(const PruneConfig& config);
std::vector<StructureOutcome> prune_shortgpt(const StructureProblem& problem);

// Error for values that the blocks cannot have and for widths, before the work.
void check_structures(const StructureNeeds& needs, const model::Model& parent, const PruneConfig& config);

// The block of one outcome; its BlockSpec has the cut and nothing else.
model::Model cut_out(const model::Model& parent, const StructureOutcome& outcome, const std::string& values);

}  // namespace brick::prune
