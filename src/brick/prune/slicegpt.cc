// SliceGPT (Ashkboos et al. 2024, arXiv 2401.15024): a network whose norms have no weights of their own computes the
// same in any orthonormal basis of its residual stream; in that of the signal's principal components, the last ones are
// deleted from every matrix.
//
// Differences:
// - One basis for the whole stream. The paper has one a block, and between them shortcut matrices that no Llama has and
//   that cost what they cost in every token. So a block is a plain Llama of smaller width, at the price of directions
//   that suit no layer quite.
// - The sum over all norms of their signals' products, each norm counting alike. The signal is what a norm gives,
//   without its weights, so that no token weighs more than another; the authors' code takes the stream before the norm,
//   where tokens of a large norm weigh more.
// - Each norm's readers are refitted to what was deleted (slicegpt.h), since a common basis leaves a layer's own signal
//   correlated across its border; --refit-steps 0 leaves that out. Damping is the paper's 0.01 of the mean diagonal; it
//   changes no eigenvector, so it counts in the refit alone.
#include "brick/prune/slicegpt.h"

#define EIGEN_DONT_PARALLELIZE  // threads are ours: parallel.h
#include <Eigen/Cholesky>
#include <Eigen/Eigenvalues>
#include <algorithm>
#include <cmath>

#include "brick/base/error.h"
#include "brick/base/parallel.h"
#include "brick/kernels/rows.h"
#include "brick/prune/norm_walk.h"
#include "brick/prune/statistics.h"
#include "brick/prune/stored_values.h"
#include "brick/prune/structured.h"
#include "brick/prune/structures.h"

namespace brick::prune {
namespace {

using Eigen::MatrixXd;
using tensor::ConstMatView;
using RowMajor = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using RowMajorF = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

Eigen::Map<const RowMajor> square(const Products& products) {
  const auto width = static_cast<Eigen::Index>(std::llround(std::sqrt(static_cast<double>(products.size()))));
  return {products.data(), width, width};
}

tensor::Tensor to_tensor(const MatrixXd& matrix) {
  tensor::Tensor out = tensor::matrix(matrix.rows(), matrix.cols());
  Eigen::Map<RowMajorF>(out.f32(), matrix.rows(), matrix.cols()) = matrix.cast<float>();
  return out;
}

Products products_of(StatisticsBuilder& builder, const std::string& norm) {
  InputStatistics sums = builder.take();
  const int64_t width = sums.width();
  Products out = std::move(sums.gram);
  for (int64_t i = 0; i < width; ++i)
    for (int64_t j = i; j < width; ++j) {
      const double mean = out[static_cast<size_t>(i * width + j)] / static_cast<double>(sums.tokens);
      out[static_cast<size_t>(i * width + j)] = out[static_cast<size_t>(j * width + i)] = mean;
      if (!std::isfinite(mean))
        fail(ErrorCode::kNumeric, "the signal of {} is not finite: its weights are damaged or overflow", norm);
    }
  return out;
}

// One a norm, in the order of their use.
std::vector<Products> signal_products(const StructureProblem& problem) {
  const int64_t width = problem.parent.config.hidden, tokens = problem.calibration.tokens();
  const auto layers = static_cast<int64_t>(problem.parent.layers.size());
  NormWalk walk(problem.parent, problem.calibration, problem.context);
  std::vector<Products> products;
  for (int64_t i = 0; i < layers; ++i) {
    StatisticsBuilder attention(Needs::kHessian, width, tokens), ffn(Needs::kHessian, width, tokens);
    walk.next_layer([&](int64_t norm, ConstMatView z) { (norm == 2 * i ? attention : ffn).add(z); });
    products.push_back(products_of(attention, fmt::format("layer {}'s first norm", i)));
    products.push_back(products_of(ffn, fmt::format("layer {}'s second norm", i)));
    problem.sink.progress("slicegpt", i + 1, layers, "layers", {});
  }
  StatisticsBuilder last(Needs::kHessian, width, tokens);
  walk.last([&](int64_t, ConstMatView z) { last.add(z); });
  products.push_back(products_of(last, "the last norm"));
  return products;
}

}  // namespace

tensor::Tensor principal_directions(std::span<const Products> products, int64_t width) {
  MatrixXd sum = square(products.front());
  for (const Products& more : products.subspan(1)) sum += square(more);
  const Eigen::SelfAdjointEigenSolver<MatrixXd> solver(sum);
  if (solver.info() != Eigen::Success)
    fail(ErrorCode::kNumeric, "the principal directions of the residual stream cannot be found");
  return to_tensor(solver.eigenvectors().rightCols(width).rowwise().reverse().transpose());
}

tensor::Tensor reader(const Products& products, ConstMatView stream, bool refit, double damping) {
  const MatrixXd q = Eigen::Map<const RowMajorF>(stream.data, stream.rows, stream.cols).cast<double>();  // Q^T
  const double wider = std::sqrt(static_cast<double>(stream.cols) / static_cast<double>(stream.rows));
  if (!refit) return to_tensor(wider * q);
  const MatrixXd read = q * square(products);  // Q^T S
  MatrixXd kept = read * q.transpose();
  const double share = kept.trace() / square(products).trace();
  const MatrixXd gone = read - kept * q;
  kept.diagonal().array() += damping * kept.trace() / static_cast<double>(kept.rows());
  const Eigen::LLT<MatrixXd> factor(kept);
  if (factor.info() != Eigen::Success)
    fail(ErrorCode::kNumeric, "the directions that stay have too little signal to predict the others; raise damping");
  return to_tensor(wider * std::sqrt(share) * (q + factor.solve(gone)));
}

StructureNeeds slicegpt_needs(const PruneConfig&) {
  return {.narrows = true, .rotates = true, .unit = "directions of the stream, by width_multiple"};
}

std::vector<std::string_view> slicegpt_settings(const PruneConfig&) {
  return {"piece_tokens", "width_multiple", "refit_steps", "damping"};
}

void check_slicegpt(const model::Model& parent, const PruneConfig& config) {
  check_width(parent, stream_width(config.sparsity, parent.config.hidden, config.width_multiple), config.values);
}

std::vector<model::Model> prune_slicegpt(const StructureProblem& problem) {
  const PruneConfig& config = problem.config;
  const int64_t hidden = problem.parent.config.hidden;
  const std::vector<Products> products = signal_products(problem);
  const tensor::Tensor directions = principal_directions(products, hidden);
  std::vector<model::Model> blocks;
  for (const double sparsity : problem.sparsities) {
    const int64_t width = stream_width(sparsity, hidden, config.width_multiple);
    Rotation rotation{tensor::matrix(width, hidden), std::vector<tensor::Tensor>(products.size())};
    kernels::copy_rows(directions.mat().row_range(0, width), rotation.stream.mat());
    parallel_try(static_cast<int64_t>(products.size()), [&](int64_t i) {
      const auto norm = static_cast<size_t>(i);
      rotation.readers[norm] = reader(products[norm], rotation.stream.mat(), config.refit_steps > 0, config.damping);
    });
    blocks.push_back(rotate(problem.parent, rotation, config.values));
  }
  return blocks;
}

}  // namespace brick::prune
