#include "brick/prune/level_pruner.h"

#include <algorithm>
#include <cmath>

#include "brick/base/error.h"
#include "brick/base/process.h"
#include "brick/kernels/gemm.h"
#include "brick/kernels/vector_ops.h"
#include "brick/prune/owl.h"

namespace brick::prune {
namespace {

using model::Proj;
using tensor::ConstMatView;
using tensor::MatView;

// ||X (W - W')^T|| / ||X W^T||; 0 where the outputs are all 0.
double output_error(ConstMatView x, ConstMatView before, ConstMatView after) {
  tensor::Tensor memory = tensor::matrix(x.rows, before.rows);
  const MatView outputs = memory.mat();
  kernels::gemm(kernels::Trans::kNo, kernels::Trans::kYes, 1.0f, x, before, 0.0f, outputs);
  const double whole = squared_norm(outputs);
  kernels::gemm(kernels::Trans::kNo, kernels::Trans::kYes, -1.0f, x, after, 1.0f, outputs);
  return whole > 0 ? std::sqrt(squared_norm(outputs) / whole) : 0.0;
}

void add_note(PruneReport& report, ProgressSink& sink, std::string note) {
  sink.warn(note);
  report.notes.push_back(std::move(note));
}

}  // namespace

LevelPruner::LevelPruner(Family& family, double sparsity)
    : family_(family), sparsity_(sparsity), block_(family.parent), layer_sparsities_(choose_sparsities()) {
  if (!family.recipe.needs_calibration()) return;
  const Calibration& calibration = family.calibration;
  transformer_.emplace(block_, family.context, calibration.largest_piece());
  x_ = tensor::matrix(calibration.tokens(), block_.config.hidden);
  piece_ = tensor::matrix(calibration.largest_piece(), block_.config.hidden);
  if (!family.recipe.reconstruct) return;
  const PruneConfig& config = family.config;
  reconstructor_.emplace(
      block_, *transformer_, calibration,
      ReconstructOptions{config.damping,
                         config.refit_steps,
                         {config.descent_epochs, config.descent_batch, config.descent_rate, config.seed}});
}

std::vector<double> LevelPruner::choose_sparsities() const {
  if (!family_.recipe.owl) return std::vector<double>(block_.layers.size(), sparsity_);
  std::vector<int64_t> sizes;
  for (const model::Layer& layer : block_.layers) {
    int64_t& size = sizes.emplace_back();
    for (const tensor::Matrix& weight : layer.projections) size += weight.rows() * weight.cols();
  }
  return owl_sparsities(family_.outlier_shares, sizes, sparsity_, family_.config.owl_spread);
}

model::Model LevelPruner::run(PruneReport& report) {
  const Stopwatch total;
  if (family_.recipe.owl) report.layer_sparsities = layer_sparsities_;
  const Calibration& calibration = family_.calibration;
  const bool calibrated = family_.recipe.needs_calibration();
  if (calibrated) {
    report.calibration_tokens = calibration.tokens();
    calibration.embed(*transformer_, x_.mat());
  }
  const std::string task = fmt::format("{} {:g}", family_.config.method, sparsity_);
  const auto layers = static_cast<int64_t>(block_.layers.size());
  for (int64_t layer = 0; layer < layers; ++layer) {
    const Stopwatch clock;
    DenseLayer weights = decode_layer(family_.parent, layer);
    layer_of(layer).projections = weights;
    if (reconstructor_) reconstructor_->see_dense(layer);
    LayerStatistics gathered;
    const LayerStatistics* statistics = nullptr;
    if (calibrated) {
      const bool shared = layer == 0 && (family_.first_layer || family_.levels_left > 0);
      if (shared && !family_.first_layer) family_.first_layer = gather(layer);
      if (!shared) gathered = gather(layer);
      statistics = shared ? &*family_.first_layer : &gathered;
    }
    report.statistics_seconds += clock.seconds();
    const Stopwatch solving;
    prune_layer(layer, statistics, std::move(weights), report);
    gathered = {};
    if (family_.levels_left == 0) family_.first_layer.reset();
    report.solve_seconds += solving.seconds();
    const Stopwatch running;
    if (calibrated && (layer + 1 < layers || reconstructor_)) rerun(layer);
    if (reconstructor_) report.stream_errors.push_back(reconstructor_->stream_error(x_.mat()));
    report.rerun_seconds += running.seconds();
    family_.sink.progress(task, layer + 1, layers, "layers",
                          calibrated ? fmt::format("{:.0f} tokens/s", static_cast<double>(calibration.tokens()) /
                                                                          std::max(clock.seconds(), 1e-9))
                                     : std::string());
  }
  report.seconds += total.seconds();
  const int64_t linear = block_.linear_parameters();
  report.sparsity = static_cast<double>(block_.parameters() - block_.nonzeros()) / static_cast<double>(linear);
  return std::move(block_);
}

LayerStatistics LevelPruner::gather(int64_t layer) {
  const Calibration& calibration = family_.calibration;
  // The layer's output is not needed: without rows its last weight, an eighth of the whole run's products,
  // costs nothing.
  layer_of(layer)[Proj::kDown] = without_rows(layer_of(layer).shape.ffn);
  std::array<std::optional<StatisticsBuilder>, std::tuple_size_v<LayerStatistics>> builders;
  for (const Calibration::Piece& piece : calibration.pieces()) {
    const MatView x(piece_.f32(), piece.end - piece.begin, block_.config.hidden);
    copy_rows(x_.mat().row_range(piece.begin, piece.end), x);
    transformer_->layer_forward(layer, piece.offsets, x, [&](int64_t, Proj proj, ConstMatView inputs) {
      std::optional<StatisticsBuilder>& builder = builders[input_index(proj)];
      if (!builder) builder.emplace(family_.recipe.needs(), inputs.cols, calibration.tokens());
      builder->add(inputs);
    });
  }
  LayerStatistics statistics;
  for (size_t i = 0; i < statistics.size(); ++i) statistics[i] = builders[i]->take();
  check_inputs(layer, statistics);
  if (family_.recipe.method->prepare != nullptr)
    for (InputStatistics& inputs : statistics)
      family_.recipe.method->prepare(inputs, {family_.config.damping, family_.config.block_columns});
  return statistics;
}

void LevelPruner::check_inputs(int64_t layer, const LayerStatistics& statistics) const {
  for (const Proj proj : {Proj::kQ, Proj::kO, Proj::kGate, Proj::kDown}) {
    const std::vector<double>& sums = statistics[input_index(proj)].sum_squares;
    const auto bad = std::find_if(sums.begin(), sums.end(), [](double sum) { return !std::isfinite(sum); });
    if (bad != sums.end())
      fail(ErrorCode::kNumeric,
           "input {} of {} is NaN, infinite or too large in the calibration: the weights before it are "
           "damaged or overflow",
           bad - sums.begin(), family_.name(layer, proj));
  }
}

void LevelPruner::prune_layer(int64_t layer, const LayerStatistics* statistics, DenseLayer weights,
                              PruneReport& report) {
  PrunedLayer pruned;
  const Method& method = *family_.recipe.method;
  const bool together = method.prune_layer != nullptr || reconstructor_;
  const auto inputs_of = [&](Proj proj) { return statistics != nullptr ? &(*statistics)[input_index(proj)] : nullptr; };
  const auto finish = [&](Proj proj) {
    const auto p = static_cast<size_t>(proj);
    layer_of(layer)[proj] =
        store(layer, proj, inputs_of(proj), weights[p], pruned.weights[p].mat(), pruned.outcomes[p], report);
    weights[p] = {};  // frees it
    pruned.weights[p] = {};
  };
  for (const Proj proj : model::kProjs) {
    const auto p = static_cast<size_t>(proj);
    pruned.weights[p] = tensor::matrix(weights[p].rows(), weights[p].cols());
    copy_rows(dense_rows(weights[p]), pruned.weights[p].mat());
    if (method.prune_layer == nullptr)
      pruned.outcomes[p] = prune_matrix(layer, proj, inputs_of(proj), pruned.weights[p].mat());
    if (!together) finish(proj);
  }
  if (!together) return;
  if (method.prune_layer != nullptr)
    method.prune_layer({block_, layer, layer_sparsities_[static_cast<size_t>(layer)], family_.pattern, family_.config,
                        *statistics, family_.calibration, x_.mat(), family_.context},
                       pruned);
  if (reconstructor_) reconstructor_->run(layer, weights, pruned, x_.mat());
  for (const Proj proj : model::kProjs) finish(proj);
}

MatrixOutcome LevelPruner::prune_matrix(int64_t layer, Proj proj, const InputStatistics* inputs, MatView weight) {
  return family_.recipe.method->prune({family_.name(layer, proj),
                                       weight,
                                       inputs,
                                       layer_sparsities_[static_cast<size_t>(layer)],
                                       family_.pattern,
                                       {family_.config.damping, family_.config.block_columns}});
}

tensor::Matrix LevelPruner::store(int64_t layer, Proj proj, const InputStatistics* inputs, const tensor::Matrix& weight,
                                  ConstMatView pruned, const MatrixOutcome& outcome, PruneReport& report) {
  const std::string name = family_.name(layer, proj);
  const tensor::Matrix& parent = family_.parent.layers[static_cast<size_t>(layer)][proj];
  const Storage storage = choose_storage(family_.config.values, parent, family_.recipe.keeps_values(), name);
  if (!kernels::all_finite(pruned.data, pruned.rows * pruned.cols))
    fail(ErrorCode::kNumeric, "{}: pruning gave NaN or infinite weights; raise --damping or use wanda", name);
  tensor::Matrix stored = store_pruned(storage, parent, pruned, outcome.mask.view());

  MatrixReport entry;
  entry.layer = layer;
  entry.proj = proj;
  const auto size = static_cast<double>(weight.rows() * weight.cols());
  entry.sparsity = 1.0 - static_cast<double>(stored.nonzeros()) / size;
  entry.fell_back = outcome.fell_back;
  if (inputs != nullptr) {
    entry.dead_columns = inputs->dead_columns();
    entry.damping = inputs->factor.found() ? inputs->factor.damping : 0.0;
    entry.output_error = output_error(inputs->sample.mat(), dense_rows(weight), dense_rows(decode_matrix(stored)));
  }
  if (!outcome.note.empty()) add_note(report, family_.sink, outcome.note);
  if (entry.damping > family_.config.damping)
    add_note(report, family_.sink,
             fmt::format("{}: the Hessian of its inputs was not positive definite; damping raised to {:g}", name,
                         entry.damping));
  report.matrices.push_back(entry);
  return stored;
}

void LevelPruner::rerun(int64_t layer) {
  const std::array<tensor::Matrix, model::kProjCount> stored = layer_of(layer).projections;
  for (const Proj proj : model::kProjs) layer_of(layer)[proj] = decode_matrix(stored[static_cast<size_t>(proj)]);
  for (const Calibration::Piece& piece : family_.calibration.pieces())
    transformer_->layer_forward(layer, piece.offsets, x_.mat().row_range(piece.begin, piece.end));
  layer_of(layer).projections = stored;
}

}  // namespace brick::prune
