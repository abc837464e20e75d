// Methods that make a model's matrices smaller. Most cut whole structures out of it: key/value heads with their query
// heads, feed-forward neurons, layers, channels of the residual stream. SliceGPT narrows that to other directions. A
// new one is one file and one line in registry.cc.
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

// What one of the methods that cut makes of the model.
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
  bool narrows = false;       // the residual stream, embedding and all: there are no targets (pipeline/budget.h)
  bool rotates = false;       // what stays of the stream are no channels: no place in a federation of the parent
  // Of what as many go as come nearest to the share asked for; for messages.
  std::string_view unit = "heads, and neurons by width_multiple";
};

// What is left at config.sparsity as far as widths alone tell: scores choose which structures go, hardly how many
// weights.
struct ExpectedStructures {
  double linear_weights = 0;
  int64_t layers = 0;
  int64_t biases = 0;  // entries that are added
};

struct StructuredMethod {
  std::string_view name, description;
  // Error(kInvalidInput) for settings that make no sense.
  StructureNeeds (*needs)(const PruneConfig& config) = nullptr;
  // Names of PruneConfig's fields that bear on the block, for its provenance.
  std::vector<std::string_view> (*settings)(const PruneConfig& config) = nullptr;
  // Null where all settings narrow; not called with those that do.
  ExpectedStructures (*expect)(const model::Model& parent, const PruneConfig& config) = nullptr;
  // One block a sparsity; its BlockSpec has the cut, if there is one, and nothing else.
  std::vector<model::Model> (*prune)(const StructureProblem& problem) = nullptr;
  // Error where the parent has no block of config.sparsity, before the work; null: it has one of each.
  void (*check)(const model::Model& parent, const PruneConfig& config) = nullptr;
};

// LLM-Pruner (Ma et al. 2023).
StructureNeeds llm_pruner_needs(const PruneConfig& config);
std::vector<std::string_view> llm_pruner_settings(const PruneConfig& config);
ExpectedStructures expect_llm_pruner(const model::Model& parent, const PruneConfig& config);
std::vector<model::Model> prune_llm_pruner(const StructureProblem& problem);
void check_llm_pruner(const model::Model& parent, const PruneConfig& config);

// FLAP (An et al. 2024, "Fluctuation-based adaptive structured pruning").
StructureNeeds flap_needs(const PruneConfig& config);
std::vector<std::string_view> flap_settings(const PruneConfig& config);
ExpectedStructures expect_flap(const model::Model& parent, const PruneConfig& config);
std::vector<model::Model> prune_flap(const StructureProblem& problem);

// ShortGPT (Men et al. 2024): whole layers of the least block influence.
StructureNeeds shortgpt_needs(const PruneConfig& config);
std::vector<std::string_view> shortgpt_settings(const PruneConfig& config);
ExpectedStructures expect_shortgpt(const model::Model& parent, const PruneConfig& config);
std::vector<model::Model> prune_shortgpt(const StructureProblem& problem);

// SliceGPT (Ashkboos et al. 2024), with one rotation for the whole residual stream.
StructureNeeds slicegpt_needs(const PruneConfig& config);
std::vector<std::string_view> slicegpt_settings(const PruneConfig& config);
std::vector<model::Model> prune_slicegpt(const StructureProblem& problem);
void check_slicegpt(const model::Model& parent, const PruneConfig& config);

// Error for values that the blocks cannot have and for widths, before the work.
void check_structures(const StructureNeeds& needs, const model::Model& parent, const PruneConfig& config);

// The blocks of a method that cuts.
std::vector<model::Model> cut_out(const StructureProblem& problem, std::span<const StructureOutcome> outcomes);

}  // namespace brick::prune
