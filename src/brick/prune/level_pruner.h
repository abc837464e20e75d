// The run over the layers for one sparsity. Internal to prune/.
#pragma once

#include <optional>
#include <string>

#include "brick/prune/layer_problem.h"
#include "brick/prune/reconstruct.h"
#include "brick/prune/registry.h"
#include "brick/prune/stored_values.h"

namespace brick::prune {

// What the levels of a family have in common.
struct Family {
  const model::Model& parent;
  const PruneConfig& config;
  const Recipe& recipe;
  Pattern pattern;
  const Calibration& calibration;
  kernels::Context& context;
  ProgressSink& sink;
  int64_t levels_left = 0;                     // sparsities above 0 that follow the one at hand
  std::optional<LayerStatistics> first_layer;  // once known, while there are such
  std::vector<double> outlier_shares;          // of each layer, where OWL asks for them
};

class LevelPruner {
 public:
  LevelPruner(Family& family, double sparsity);

  // The pruned model without its BlockSpec.
  model::Model run(PruneReport& report);

 private:
  void prune_at_once(int64_t layer, DenseLayer weights, PruneReport& report);
  LayerStatistics gather(int64_t layer);
  void check_inputs(int64_t layer, model::Proj proj, const InputStatistics& inputs) const;
  void prepare(InputStatistics& inputs) const;
  void prune_layer(int64_t layer, const LayerStatistics* statistics, DenseLayer weights, PruneReport& report);
  void prune_in_turn(int64_t layer, DenseLayer weights, PruneReport& report);
  std::vector<double> choose_sparsities() const;
  tensor::Matrix prune_one(int64_t layer, model::Proj proj, const InputStatistics* inputs, const tensor::Matrix& weight,
                           PruneReport& report);
  MatrixOutcome prune_matrix(int64_t layer, model::Proj proj, const InputStatistics* inputs, tensor::MatView weight);
  tensor::Matrix store(int64_t layer, model::Proj proj, const InputStatistics* inputs, const tensor::Matrix& weight,
                       tensor::ConstMatView pruned, const MatrixOutcome& outcome, PruneReport& report);
  void rerun(int64_t layer);
  // A pruned weight as the calibration's products are fastest with it: as stored, or in float32.
  tensor::Matrix for_products(const tensor::Matrix& stored) const;
  MethodOptions options() const {
    return {family_.config.damping, family_.config.block_columns, family_.config.dsnot_skip};
  }
  bool is_last(int64_t layer) const { return layer + 1 == static_cast<int64_t>(block_.layers.size()); }
  model::Layer& layer_of(int64_t layer) { return block_.layers[static_cast<size_t>(layer)]; }

  Family& family_;
  double sparsity_;
  model::Model block_;
  std::vector<double> layer_sparsities_;
  std::optional<model::Transformer> transformer_;
  std::optional<Reconstructor> reconstructor_;
  tensor::Tensor x_, piece_;  // [tokens, D] inputs of the layer at hand; [largest piece, D]
};

}  // namespace brick::prune
