#include "brick/prune/structured.h"

#include "brick/base/error.h"
#include "brick/tensor/dtype.h"

namespace brick::prune {
namespace {

using model::Proj;

void add(const std::vector<float>& gain, std::vector<float>& bias) {
  if (gain.empty()) return;
  bias.resize(gain.size());
  for (size_t i = 0; i < gain.size(); ++i) bias[i] += gain[i];
}

}  // namespace

void check_structures(const StructureNeeds& needs, const model::Model& parent, const PruneConfig& config) {
  if (config.width_multiple < 1)
    fail(ErrorCode::kInvalidInput, "width_multiple {} must be 1 or more", config.width_multiple);
  const std::string& values = config.values;
  if (values != "f32" && values != "bf16" && values != "q4" && values != "keep")
    fail(ErrorCode::kInvalidInput, "values '{}': expected f32, bf16, q4 or keep", values);
  if (needs.whole_layers) return;
  if (values == "q4" && config.width_multiple % tensor::kQuantBlock != 0)
    fail(ErrorCode::kInvalidInput, "values q4 come in blocks of {}: width_multiple {} is no multiple of that",
         tensor::kQuantBlock, config.width_multiple);
  for (size_t i = 0; i < parent.layers.size(); ++i) {
    const model::LayerShape& shape = parent.layers[i].shape;
    if (const int64_t group = shape.heads / shape.kv_heads * shape.head_dim;
        values == "q4" && !needs.narrows && group % tensor::kQuantBlock != 0)
      fail(ErrorCode::kUnsupported,
           "values q4 come in blocks of {}, but a key/value head of layer {} has {} query channels",
           tensor::kQuantBlock, i, group);
    for (const Proj proj : model::kProjs) {
      const tensor::Matrix& weight = parent.layers[i][proj];
      const std::string name = model::weight_name(static_cast<int64_t>(i), proj);
      if (weight.is_sparse())
        fail(ErrorCode::kUnsupported, "{} is masked; cut structures out first and prune what is left", name);
      if (values == "keep" && tensor::is_quantised(weight.dtype()))
        fail(ErrorCode::kUnsupported, "{}: cutting takes its blocks of {} apart; use --values bf16, f32 or q4", name,
             tensor::name(weight.dtype()));
    }
  }
}

std::vector<model::Model> cut_out(const StructureProblem& problem, std::span<const StructureOutcome> outcomes) {
  std::vector<model::Model> blocks;
  for (const StructureOutcome& outcome : outcomes) {
    model::Model& block = blocks.emplace_back(model::slice(problem.parent, outcome.cut, problem.config.values));
    for (size_t i = 0; i < outcome.biases.size(); ++i) {
      add(outcome.biases[i].o, block.layers[i].o_bias);
      add(outcome.biases[i].down, block.layers[i].down_bias);
    }
  }
  return blocks;
}

}  // namespace brick::prune
