#include "brick/prune/level_pruner.h"

#include <algorithm>
#include <cmath>

#include "brick/base/error.h"
#include "brick/base/process.h"
#include "brick/kernels/gemm.h"
#include "brick/kernels/kernel_table.h"
#include "brick/kernels/linear.h"
#include "brick/kernels/norm.h"
#include "brick/kernels/rows.h"
#include "brick/kernels/swiglu.h"
#include "brick/kernels/vector_ops.h"
#include "brick/prune/owl.h"
#include "brick/tensor/pack.h"

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

tensor::Tensor copy_of(const tensor::Matrix& dense) {
  tensor::Tensor copy = tensor::matrix(dense.rows(), dense.cols());
  kernels::copy_rows(dense_rows(dense), copy.mat());
  return copy;
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
    if (calibrated && family_.config.true_sequential)
      prune_in_turn(layer, std::move(weights), report);
    else
      prune_at_once(layer, std::move(weights), report);
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

void LevelPruner::prune_at_once(int64_t layer, DenseLayer weights, PruneReport& report) {
  const bool calibrated = family_.recipe.needs_calibration();
  const Stopwatch gathering;
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
  report.statistics_seconds += gathering.seconds();
  const Stopwatch solving;
  prune_layer(layer, statistics, std::move(weights), report);
  gathered = {};
  if (family_.levels_left == 0) family_.first_layer.reset();
  report.solve_seconds += solving.seconds();
  const Stopwatch running;
  if (calibrated && (!is_last(layer) || reconstructor_)) rerun(layer);
  if (reconstructor_) report.stream_errors.push_back(reconstructor_->stream_error(x_.mat()));
  report.rerun_seconds += running.seconds();
}

// Each weight's product is computed once, as soon as it is pruned.
void LevelPruner::prune_in_turn(int64_t layer, DenseLayer weights, PruneReport& report) {
  const std::span<const Proj> projs(model::kProjs);
  const float eps = block_.config.norm_eps;
  const std::vector<Calibration::Piece>& pieces = family_.calibration.pieces();
  const int64_t longest = family_.calibration.largest_piece();
  model::Layer& held = layer_of(layer);
  for (const Proj proj : projs) held[proj] = without_rows(held[proj].cols());
  std::array<tensor::Matrix, model::kProjCount> stored;
  std::vector<float> inverse_rms(static_cast<size_t>(longest));
  tensor::Tensor inputs;  // [tokens, in] of the weights that are next
  const Stopwatch total;
  double solving = 0;

  // fill(piece, x, in) computes a piece's inputs from its residual stream x, which it may carry on.
  const auto prune_next = [&](std::span<const Proj> same_inputs, auto&& fill) {
    const int64_t width = held[same_inputs.front()].cols();
    tensor::Tensor next = tensor::matrix(family_.calibration.tokens(), width);
    StatisticsBuilder builder(family_.recipe.needs(), width, family_.calibration.tokens(), family_.context.compute());
    for (const Calibration::Piece& piece : pieces) {
      const MatView in = next.mat().row_range(piece.begin, piece.end);
      fill(piece, x_.mat().row_range(piece.begin, piece.end), in);
      builder.add(in);
    }
    inputs = std::move(next);
    const Stopwatch clock;
    InputStatistics statistics = builder.take();
    check_inputs(layer, same_inputs.front(), statistics);
    prepare(statistics);
    for (const Proj proj : same_inputs) {
      const auto p = static_cast<size_t>(proj);
      stored[p] = prune_one(layer, proj, &statistics, weights[p], report);
      held[proj] = for_products(stored[p]);
      weights[p] = {};
    }
    solving += clock.seconds();
  };
  const auto add_product = [&](const Calibration::Piece& piece, Proj proj, const std::vector<float>& bias, MatView x) {
    kernels::linear(family_.context, held[proj], inputs.mat().row_range(piece.begin, piece.end), 1.0f, x);
    kernels::add_bias(bias, x);
  };

  prune_next(projs.first(3), [&](const Calibration::Piece&, MatView x, MatView in) {
    kernels::rms_norm(x, held.attention_norm.data(), eps, in, inverse_rms.data());
  });
  prune_next(projs.subspan(3, 1), [&](const Calibration::Piece& piece, MatView x, MatView in) {
    const MatView unused(piece_.f32(), x.rows, x.cols);
    kernels::copy_rows(x, unused);
    transformer_->layer_forward(layer, piece.offsets, unused, [&](int64_t, Proj proj, ConstMatView attended) {
      if (proj == Proj::kO) kernels::copy_rows(attended, in);
    });
  });
  prune_next(projs.subspan(4, 2), [&](const Calibration::Piece& piece, MatView x, MatView in) {
    add_product(piece, Proj::kO, held.o_bias, x);
    kernels::rms_norm(x, held.ffn_norm.data(), eps, in, inverse_rms.data());
  });
  tensor::Tensor gate_memory = tensor::matrix(longest, held.shape.ffn),
                 up_memory = tensor::matrix(longest, held.shape.ffn);
  prune_next(projs.last(1), [&](const Calibration::Piece& piece, MatView x, MatView in) {
    const MatView gate(gate_memory.f32(), x.rows, held.shape.ffn), up(up_memory.f32(), x.rows, held.shape.ffn);
    const kernels::Product products[] = {{&held[Proj::kGate], 0.0f, gate}, {&held[Proj::kUp], 0.0f, up}};
    kernels::linear(family_.context, products, inputs.mat().row_range(piece.begin, piece.end));
    kernels::swiglu(gate, up, in);
  });
  if (!is_last(layer))
    for (const Calibration::Piece& piece : pieces)
      add_product(piece, Proj::kDown, held.down_bias, x_.mat().row_range(piece.begin, piece.end));
  held.projections = std::move(stored);
  report.solve_seconds += solving;
  report.statistics_seconds += total.seconds() - solving;
}

LayerStatistics LevelPruner::gather(int64_t layer) {
  const Calibration& calibration = family_.calibration;
  // The layer's output is not needed: without rows its last weight, an eighth of the whole run's products,
  // costs nothing.
  layer_of(layer)[Proj::kDown] = without_rows(layer_of(layer).shape.ffn);
  std::array<std::optional<StatisticsBuilder>, std::tuple_size_v<LayerStatistics>> builders;
  for (const Calibration::Piece& piece : calibration.pieces()) {
    const MatView x(piece_.f32(), piece.end - piece.begin, block_.config.hidden);
    kernels::copy_rows(x_.mat().row_range(piece.begin, piece.end), x);
    transformer_->layer_forward(layer, piece.offsets, x, [&](int64_t, Proj proj, ConstMatView inputs) {
      std::optional<StatisticsBuilder>& builder = builders[input_index(proj)];
      if (!builder)
        builder.emplace(family_.recipe.needs(), inputs.cols, calibration.tokens(), family_.context.compute());
      builder->add(inputs);
    });
  }
  LayerStatistics statistics;
  for (const Proj proj : {Proj::kQ, Proj::kO, Proj::kGate, Proj::kDown}) {
    InputStatistics& inputs = statistics[input_index(proj)];
    inputs = builders[input_index(proj)]->take();
    check_inputs(layer, proj, inputs);
  }
  for (InputStatistics& inputs : statistics) prepare(inputs);
  return statistics;
}

void LevelPruner::check_inputs(int64_t layer, Proj proj, const InputStatistics& inputs) const {
  const std::vector<double>& sums = inputs.sum_squares;
  const auto bad = std::find_if(sums.begin(), sums.end(), [](double sum) { return !std::isfinite(sum); });
  if (bad != sums.end())
    fail(ErrorCode::kNumeric,
         "input {} of {} is NaN, infinite or too large in the calibration: the weights before it are "
         "damaged or overflow",
         bad - sums.begin(), model::weight_name(layer, proj));
}

void LevelPruner::prepare(InputStatistics& inputs) const {
  if (family_.recipe.method->prepare != nullptr) family_.recipe.method->prepare(inputs, options());
}

void LevelPruner::prune_layer(int64_t layer, const LayerStatistics* statistics, DenseLayer weights,
                              PruneReport& report) {
  const auto inputs_of = [&](Proj proj) { return statistics != nullptr ? &(*statistics)[input_index(proj)] : nullptr; };
  if (!family_.recipe.takes_layers()) {
    for (const Proj proj : model::kProjs) {
      tensor::Matrix& weight = weights[static_cast<size_t>(proj)];
      layer_of(layer)[proj] = prune_one(layer, proj, inputs_of(proj), weight, report);
      weight = {};  // frees it
    }
    return;
  }
  PrunedLayer pruned;
  const Method& method = *family_.recipe.method;
  for (const Proj proj : model::kProjs) {
    const auto p = static_cast<size_t>(proj);
    pruned.weights[p] = copy_of(weights[p]);
    if (method.prune_layer == nullptr)
      pruned.outcomes[p] = prune_matrix(layer, proj, inputs_of(proj), pruned.weights[p].mat());
  }
  if (method.prune_layer != nullptr)
    method.prune_layer({block_, layer, layer_sparsities_[static_cast<size_t>(layer)], family_.pattern, family_.config,
                        *statistics, family_.calibration, x_.mat(), family_.context},
                       pruned);
  if (reconstructor_) reconstructor_->run(layer, weights, pruned, x_.mat());
  for (const Proj proj : model::kProjs) {
    const auto p = static_cast<size_t>(proj);
    layer_of(layer)[proj] =
        store(layer, proj, inputs_of(proj), weights[p], pruned.weights[p].mat(), pruned.outcomes[p], report);
    weights[p] = {};
    pruned.weights[p] = {};
  }
}

tensor::Matrix LevelPruner::prune_one(int64_t layer, Proj proj, const InputStatistics* inputs,
                                      const tensor::Matrix& weight, PruneReport& report) {
  tensor::Tensor pruned = copy_of(weight);
  const MatrixOutcome outcome = prune_matrix(layer, proj, inputs, pruned.mat());
  return store(layer, proj, inputs, weight, pruned.mat(), outcome, report);
}

MatrixOutcome LevelPruner::prune_matrix(int64_t layer, Proj proj, const InputStatistics* inputs, MatView weight) {
  return family_.recipe.method->prune({model::weight_name(layer, proj), proj, weight, inputs,
                                       layer_sparsities_[static_cast<size_t>(layer)], family_.pattern, options()});
}

tensor::Matrix LevelPruner::store(int64_t layer, Proj proj, const InputStatistics* inputs, const tensor::Matrix& weight,
                                  ConstMatView pruned, const MatrixOutcome& outcome, PruneReport& report) {
  const std::string name = model::weight_name(layer, proj);
  const tensor::Matrix& parent = family_.parent.layers[static_cast<size_t>(layer)][proj];
  const Storage storage = choose_storage(family_.config.values, parent, family_.recipe.keeps_values(), name);
  if (!kernels::all_finite(pruned.data, pruned.rows * pruned.cols))
    fail(ErrorCode::kNumeric, "{}: pruning gave NaN or infinite weights; raise --damping or use wanda", name);
  if (storage.coding != tensor::SparseCoding::kParent &&
      tensor::overflows(storage.dtype, pruned.data, pruned.rows * pruned.cols))
    fail(ErrorCode::kNumeric, "{} has weights beyond {}, too large for {}; take --values bf16 or f32", name,
         tensor::largest_value(storage.dtype), tensor::name(storage.dtype));
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

tensor::Matrix LevelPruner::for_products(const tensor::Matrix& stored) const {
  const bool kept_alone =
      stored.is_sparse() && kernels::sparse_product_wins(stored.sparse_view().mask, family_.calibration.largest_piece(),
                                                         family_.context.compute());
  return kept_alone ? stored : decode_matrix(stored);
}

void LevelPruner::rerun(int64_t layer) {
  const std::array<tensor::Matrix, model::kProjCount> stored = layer_of(layer).projections;
  for (const Proj proj : model::kProjs) layer_of(layer)[proj] = for_products(stored[static_cast<size_t>(proj)]);
  for (const Calibration::Piece& piece : family_.calibration.pieces())
    transformer_->layer_forward(layer, piece.offsets, x_.mat().row_range(piece.begin, piece.end));
  layer_of(layer).projections = stored;
}

}  // namespace brick::prune
