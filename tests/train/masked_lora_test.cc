// LoRA branches, masked and with dropout, against products written out in double and against central
// differences.
#include <gtest/gtest.h>

#include "brick/base/cpu.h"
#include "brick/kernels/vector_ops.h"
#include "brick/model/lora_branch.h"
#include "model/tiny_model.h"
#include "train/gradients.h"

namespace brick::train {
namespace {

using model::Adapter;
using model::Branch;
using model::LoraPair;
using model::Proj;
using tensor::Matrix;
using tensor::Tensor;
using Grid = std::vector<std::vector<double>>;

constexpr double kProduct = 2e-5;              // float32 sums of at most 80 products of normal numbers
constexpr double kRoundedProduct = 0.3;        // sums of up to 70 normal numbers rounded to 8 bits, twice
constexpr double kLoss = 1e-5;                 // float32, of about 5
constexpr double kAngle = 1e-6, kNorm = 1e-4;  // float32 backward against the same in another order
constexpr double kStep = 0.02;                 // of central differences, along a unit vector
constexpr double kCentral = 0.02;      // relative: the loss is float32 and kStep^2 of the third derivative remains
constexpr float kPerturbation = 0.1f;  // for the negative controls

Grid zeros(int64_t rows, int64_t cols) { return Grid(size_t(rows), std::vector<double>(size_t(cols))); }

Grid grid(const Tensor& t) {
  Grid out = zeros(t.shape()[0], t.shape()[1]);
  for (size_t r = 0; r < out.size(); ++r)
    for (size_t c = 0; c < out[r].size(); ++c) out[r][c] = t.mat()(int64_t(r), int64_t(c));
  return out;
}

Grid transpose(const Grid& x) {
  Grid out(x[0].size(), std::vector<double>(x.size()));
  for (size_t r = 0; r < x.size(); ++r)
    for (size_t c = 0; c < x[r].size(); ++c) out[c][r] = x[r][c];
  return out;
}

Grid times(const Grid& x, const Grid& y) {
  Grid out(x.size(), std::vector<double>(y[0].size()));
  for (size_t i = 0; i < x.size(); ++i)
    for (size_t k = 0; k < y.size(); ++k)
      for (size_t j = 0; j < y[k].size(); ++j) out[i][j] += x[i][k] * y[k][j];
  return out;
}

// scale * values where the mask keeps.
Grid keep(const tensor::MaskView& mask, double scale, Grid values) {
  for (size_t r = 0; r < values.size(); ++r)
    for (size_t c = 0; c < values[r].size(); ++c)
      values[r][c] = mask.kept(int64_t(r), int64_t(c)) ? scale * values[r][c] : 0;
  return values;
}

Grid plus(Grid x, const Grid& y, double scale = 1) {
  for (size_t r = 0; r < x.size(); ++r)
    for (size_t c = 0; c < x[r].size(); ++c) x[r][c] += scale * y[r][c];
  return x;
}

double largest_difference(const Tensor& x, const Grid& y) {
  double worst = 0;
  for (size_t r = 0; r < y.size(); ++r)
    for (size_t c = 0; c < y[r].size(); ++c)
      worst = std::max(worst, std::abs(x.mat()(int64_t(r), int64_t(c)) - y[r][c]));
  return worst;
}

Tensor normal(int64_t rows, int64_t cols, double deviation, Rng& rng) {
  return model::random_tensor(rows, cols, deviation, tensor::DType::kF32, rng);
}

// One linear layer with a branch. `in` spans more than one word of the mask.
struct Layer {
  static constexpr int64_t kTokens = 40, kIn = 70, kOut = 24, kRank = 3;
  Rng rng{5, stream_id({0x82})};
  tensor::Mask mask;
  Tensor dense = normal(kOut, kIn, 0.1, rng);
  Matrix weight;
  LoraPair pair{normal(kRank, kIn, 0.3, rng), normal(kOut, kRank, 0.3, rng)};
  Tensor x = normal(kTokens, kIn, 1, rng), dy = normal(kTokens, kOut, 1, rng);
  Branch branch{&pair, 1.5f, true, 0.0, 11, 12};

  explicit Layer(double dropout, double sparsity = 0.5) : mask(model::random_mask(kOut, kIn, sparsity, rng)) {
    branch.dropout = dropout;
    weight = Matrix::sparse(tensor::SparseMatrix::encode(dense.mat(), mask.view(), tensor::SparseCoding::kValues,
                                                         tensor::DType::kF32, nullptr));
  }

  // drop(x) as the plain branch shows it where W is 0 and A and B are the identity.
  Tensor dropped(kernels::Context& context, const Branch& like) const {
    LoraPair identity{tensor::matrix(kIn, kIn), tensor::matrix(kIn, kIn)};
    for (int64_t i = 0; i < kIn; ++i) identity.a.mat()(i, i) = identity.b.mat()(i, i) = 1;
    Tensor y = tensor::matrix(kTokens, kIn);
    const Branch shown{&identity, 1.0f, false, like.dropout, like.dropout_seed, like.dropout_stream};
    project(context, Matrix::dense(tensor::matrix(kIn, kIn)), shown, x.mat(), 0.0f, y.mat());
    return y;
  }
};

TEST(Dropout, DropsItsShareAndScalesTheRest) {
  Layer layer(0.3);
  kernels::Context context;
  const Tensor dropped = layer.dropped(context, layer.branch);
  int64_t zeros = 0;
  for (int64_t i = 0; i < dropped.size(); ++i) {
    if (dropped.f32()[i] == 0)
      ++zeros;
    else
      EXPECT_NEAR(dropped.f32()[i], layer.x.f32()[i] / 0.7, kProduct);
  }
  const double n = static_cast<double>(dropped.size());
  EXPECT_NEAR(static_cast<double>(zeros), 0.3 * n, 4 * std::sqrt(0.21 * n));  // four standard deviations
  layer.branch.dropout_stream = 13;
  EXPECT_GT(largest_difference(layer.dropped(context, layer.branch), grid(dropped)), 0.1);
}

void expect_as_written_out(kernels::Compute compute, double tolerance) {
  // At 80 % the kept weights alone are multiplied, where that kernel exists.
  for (const auto& [dropout, sparsity] : {std::pair{0.0, 0.5}, {0.3, 0.5}, {0.0, 0.8}, {0.3, 0.8}}) {
    Layer layer(dropout, sparsity);
    kernels::Context context(compute), exact;
    const Grid x = grid(layer.x), dy = grid(layer.dy), a = grid(layer.pair.a), b = grid(layer.pair.b);
    const Grid drop = dropout > 0 ? grid(layer.dropped(exact, layer.branch)) : x;
    const double c = layer.branch.scale;
    const Grid w = keep(layer.mask.view(), 1, grid(layer.dense)), delta = keep(layer.mask.view(), c, times(b, a));

    const auto run = [&](const Matrix& weight) {
      Tensor y = tensor::matrix(Layer::kTokens, Layer::kOut);
      project(context, weight, layer.branch, layer.x.mat(), 0.0f, y.mat());
      return largest_difference(y, plus(times(x, transpose(w)), times(drop, transpose(delta))));
    };
    EXPECT_LE(run(layer.weight), tolerance);
    // Negative control: a weight more.
    tensor::Mask more = layer.mask;
    for (int64_t i = 0; i < Layer::kIn; ++i) more.set(3, i, true);
    EXPECT_GT(run(Matrix::sparse(tensor::SparseMatrix::encode(
                  layer.dense.mat(), more.view(), tensor::SparseCoding::kValues, tensor::DType::kF32, nullptr))),
              kPerturbation);

    // dL/d(effective weight) = dy^T drop(x) on the mask; gradients and dx add to what is there.
    const Grid g = keep(layer.mask.view(), c, times(transpose(dy), drop));
    LoraPair gradient{normal(Layer::kRank, Layer::kIn, 1, layer.rng), normal(Layer::kOut, Layer::kRank, 1, layer.rng)};
    Tensor dx = normal(Layer::kTokens, Layer::kIn, 1, layer.rng);
    const Grid da = plus(grid(gradient.a), times(transpose(b), g)), db = plus(grid(gradient.b), times(g, transpose(a)));
    Grid through = times(dy, delta);  // then as drop() treats x
    for (size_t t = 0; t < through.size(); ++t)
      for (size_t i = 0; i < through[t].size(); ++i) through[t][i] *= drop[t][i] / x[t][i];
    const Grid wanted_dx = plus(plus(grid(dx), times(dy, w)), through);
    project_backward(context, layer.weight, layer.branch, layer.x.mat(), layer.dy.mat(), 1.0f, dx.mat(), &gradient);
    EXPECT_LE(largest_difference(gradient.a, da), tolerance) << dropout;
    EXPECT_LE(largest_difference(gradient.b, db), tolerance) << dropout;
    EXPECT_LE(largest_difference(dx, wanted_dx), tolerance) << dropout;
  }
}

TEST(MaskedBranch, ForwardAndBackwardAsWrittenOut) { expect_as_written_out(kernels::Compute::kF32, kProduct); }

TEST(MaskedBranch, InBfloat16WithinItsRounding) {
  if (!has_bf16_arithmetic()) GTEST_SKIP() << name(active_isa()) << " has no bfloat16 arithmetic";
  expect_as_written_out(kernels::Compute::kBf16, kRoundedProduct);
}

TEST(PlainBranch, InputGradientNeedsNoParameterGradient) {
  Layer layer(0.0);
  layer.branch.masked = false;
  kernels::Context context;
  const Grid w = plus(grid(layer.dense), times(grid(layer.pair.b), grid(layer.pair.a)), layer.branch.scale);
  const Grid wanted = times(grid(layer.dy), w);
  Matrix weight = Matrix::dense(std::move(layer.dense));
  for (const double dropout : {0.0, 1e-9}) {  // W + delta in one product; in two, as little is dropped
    layer.branch.dropout = dropout;
    Tensor dx = tensor::matrix(Layer::kTokens, Layer::kIn);
    project_backward(context, weight, layer.branch, layer.x.mat(), layer.dy.mat(), 0.0f, dx.mat(), nullptr);
    EXPECT_LE(largest_difference(dx, wanted), kProduct) << dropout;
  }
}

// A delta far below a rounding step of the weights still reaches the output, whatever the arithmetic.
TEST(MaskedBranch, SmallDeltasAreNotRoundedAway) {
  if (!has_bf16_arithmetic()) GTEST_SKIP() << name(active_isa()) << " has no bfloat16 arithmetic";
  Layer layer(0.0);
  kernels::scale(1e-5f, layer.pair.b.f32(), layer.pair.b.size());
  kernels::Context context(kernels::Compute::kBf16);
  const auto output = [&](const Branch& branch) {
    Tensor y = tensor::matrix(Layer::kTokens, Layer::kOut);
    project(context, layer.weight, branch, layer.x.mat(), 0.0f, y.mat());
    return y;
  };
  const Grid delta = keep(layer.mask.view(), layer.branch.scale, times(grid(layer.pair.b), grid(layer.pair.a)));
  const Grid moved = plus(grid(output(layer.branch)), grid(output({})), -1),
             wanted = times(grid(layer.x), transpose(delta));
  double product = 0, got = 0, want = 0;
  for (size_t t = 0; t < moved.size(); ++t)
    for (size_t i = 0; i < moved[t].size(); ++i) {
      product += moved[t][i] * wanted[t][i];
      got += moved[t][i] * moved[t][i];
      want += wanted[t][i] * wanted[t][i];
    }
  EXPECT_GT(product / std::sqrt(got * want), 0.99);
}

// A block with a masked adapter, and what it should amount to.
struct Masked {
  model::Model block = model::tiny_block(model::tiny_model());
  Adapter adapter =
      model::make_adapter(block, {.rank = 3, .alpha = 5, .targets = model::parse_targets("all"), .masked = true}, 1);
  std::vector<data::TokenSequence> sequences = random_sequences(3, block.config.vocab, 2);

  Masked() { model::randomise(adapter, 3, 0.2); }

  // Dense weights W * M + c M * (B A).
  model::Model written_out() const {
    model::Model dense = block;
    for (size_t l = 0; l < dense.layers.size(); ++l)
      for (Proj proj : model::kProjs) {
        Matrix& weight = dense.layers[l][proj];
        const LoraPair& pair = adapter.at(int64_t(l), proj);
        const Grid delta = keep(weight.sparse_view().mask, adapter.config.scale(), times(grid(pair.b), grid(pair.a)));
        Tensor sum = weight.to_f32();
        for (int64_t r = 0; r < weight.rows(); ++r)
          for (int64_t i = 0; i < weight.cols(); ++i)
            sum.mat()(r, i) += static_cast<float>(delta[size_t(r)][size_t(i)]);
        weight = Matrix::dense(std::move(sum));
      }
    return dense;
  }
};

// dL/dW of all linear weights of a dense model: the gradient of B where A is the identity, B is 0 and c is 1.
Adapter weight_gradients(const model::Model& dense, std::span<const data::TokenSequence> sequences) {
  const int64_t rank = std::max(dense.config.ffn, dense.config.hidden);
  Adapter probe =
      model::make_adapter(dense, {.rank = rank, .alpha = double(rank), .targets = model::parse_targets("all")}, 0);
  for_each_pair(probe, [&](int64_t, Proj, LoraPair& pair) {
    for (int64_t r = 0; r < rank; ++r)
      for (int64_t i = 0; i < pair.a.shape()[1]; ++i) pair.a.mat()(r, i) = r == i ? 1 : 0;
  });
  return loss_and_gradients(dense, {&probe, true}, sequences).gradients;
}

TEST(MaskedModel, LossOfTheWeightsWrittenOut) {
  const Masked masked;
  const double loss = loss_and_gradients(masked.block, {&masked.adapter, true}, masked.sequences).loss;
  const Adapter none = zeros_like(masked.adapter);
  EXPECT_NEAR(loss, loss_and_gradients(masked.written_out(), {&none, true}, masked.sequences).loss, kLoss);
  // Negative control: the delta outside the mask matters.
  Adapter unmasked = masked.adapter.clone();
  unmasked.config.masked = false;
  EXPECT_GT(std::abs(loss - loss_and_gradients(masked.block, {&unmasked, true}, masked.sequences).loss), 100 * kLoss);
}

TEST(MaskedModel, GradientsOfTheWeightsWrittenOut) {
  const Masked masked;
  const Adapter whole = weight_gradients(masked.written_out(), masked.sequences);
  Adapter wanted = zeros_like(masked.adapter);
  for_each_pair(wanted, [&](int64_t layer, Proj proj, LoraPair& out) {
    const LoraPair& pair = masked.adapter.at(layer, proj);
    const Matrix& weight = masked.block.layers[size_t(layer)][proj];
    Grid g = grid(whole.at(layer, proj).b);
    for (auto& row : g) row.resize(size_t(weight.cols()));
    g = keep(weight.sparse_view().mask, masked.adapter.config.scale(), std::move(g));
    const Grid a = times(transpose(grid(pair.b)), g), b = times(g, transpose(grid(pair.a)));
    for (size_t r = 0; r < a.size(); ++r) std::copy(a[r].begin(), a[r].end(), out.a.mat().row(int64_t(r)));
    for (size_t r = 0; r < b.size(); ++r) std::copy(b[r].begin(), b[r].end(), out.b.mat().row(int64_t(r)));
  });
  const auto same = [&](const Adapter& adapter) {
    const Difference worst =
        worst_difference(loss_and_gradients(masked.block, {&adapter, true}, masked.sequences).gradients, wanted);
    return worst.angle <= kAngle && worst.norm <= kNorm;
  };
  EXPECT_TRUE(same(masked.adapter));
  // Negative controls: one changed factor; no mask.
  Adapter changed = masked.adapter.clone();
  changed.at(1, Proj::kUp).b.f32()[0] += kPerturbation;
  EXPECT_FALSE(same(changed));
  Adapter unmasked = masked.adapter.clone();
  unmasked.config.masked = false;
  EXPECT_FALSE(same(unmasked));
}

// Along a direction that leans to the gradient, for each matrix alone. Returns the worst relative difference.
double worst_central_difference(const model::Model& model, Adapter& adapter, const Adapter& gradients,
                                std::span<const data::TokenSequence> sequences) {
  const auto loss = [&] { return mean_loss(model, {&adapter, true, 7, 3}, sequences); };
  Rng rng(9, stream_id({0x83}));
  double worst = 0;
  for_each_pair(adapter, [&](int64_t layer, Proj proj, LoraPair& pair) {
    for (auto part : {&LoraPair::a, &LoraPair::b}) {
      Tensor& values = pair.*part;
      const Tensor& gradient = gradients.at(layer, proj).*part;
      const Tensor old = values.clone();
      std::vector<double> direction(size_t(values.size()));
      double square = 0, slope = 0;
      for (size_t i = 0; i < direction.size(); ++i) {
        direction[i] = 2 * rng.uniform() * gradient.f32()[i];
        square += direction[i] * direction[i];
      }
      const auto loss_at = [&](double step) {
        for (size_t i = 0; i < direction.size(); ++i)
          values.f32()[i] = old.f32()[i] + static_cast<float>(step * direction[i] / std::sqrt(square));
        return loss();
      };
      for (size_t i = 0; i < direction.size(); ++i) slope += gradient.f32()[i] * direction[i] / std::sqrt(square);
      const double measured = (loss_at(kStep) - loss_at(-kStep)) / (2 * kStep);
      worst = std::max(worst, std::abs(measured - slope) / std::abs(slope));
      loss_at(0);
    }
  });
  return worst;
}

TEST(Dropout, GradientsAreThoseOfTheDroppedModel) {
  for (const bool masked : {false, true}) {
    Masked made;
    made.adapter.config.masked = masked;
    made.adapter.config.dropout = 0.25;
    const Adapter gradients = loss_and_gradients(made.block, {&made.adapter, true, 7, 3}, made.sequences).gradients;
    EXPECT_LE(worst_central_difference(made.block, made.adapter, gradients, made.sequences), kCentral);
    // Negative control: the gradients of another step's dropout.
    const Adapter others = loss_and_gradients(made.block, {&made.adapter, true, 7, 4}, made.sequences).gradients;
    EXPECT_GT(worst_central_difference(made.block, made.adapter, others, made.sequences), kCentral);
  }
}

TEST(Dropout, RepeatsForOneSeedAndStepInTrainingOnly) {
  Masked made;
  made.adapter.config.dropout = 0.25;
  const auto run = [&](bool training, uint64_t seed, uint64_t step,
                       model::Activations activations = model::Activations::kKeep) {
    return loss_and_gradients(made.block, {&made.adapter, training, seed, step}, made.sequences, activations);
  };
  const auto first = run(true, 7, 3);
  EXPECT_EQ(first.loss, run(true, 7, 3).loss);
  EXPECT_TRUE(same_bits(first.gradients, run(true, 7, 3).gradients));
  EXPECT_TRUE(same_bits(first.gradients, run(true, 7, 3, model::Activations::kRecompute).gradients));
  EXPECT_NE(first.loss, run(true, 8, 3).loss);
  EXPECT_NE(first.loss, run(true, 7, 4).loss);
  const double plain = run(false, 7, 3).loss;
  EXPECT_NE(first.loss, plain);
  EXPECT_EQ(plain, run(false, 8, 4).loss);
}

}  // namespace
}  // namespace brick::train
