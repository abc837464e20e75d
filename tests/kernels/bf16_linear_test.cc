#include "brick/kernels/bf16_linear.h"

#include <gtest/gtest.h>

#include "brick/base/cpu.h"
#include "brick/kernels/packed_block.h"
#include "kernels/bf16_util.h"

namespace brick::kernels {
namespace {

constexpr double kSums = 2e-6;                         // float32 sums of at most 700 exact products
constexpr double kBranch = 4 * kBf16Half;              // h or dh, c B or A, and the result are rounded
constexpr double kDithered = kBranch + 2 * kBf16Half;  // W + delta is moved by up to a whole unit
constexpr int64_t kTokenCounts[] = {5, 32, 33, 200};

struct Layer {
  Grid w, a, b;
  tensor::Matrix matrix;
  Grid da, db;

  // `sparsity`: of a mask, if not 0.
  Layer(int64_t out, int64_t in, int64_t rank, uint64_t stream, double sparsity = 0)
      : w(rounded(Grid::random(out, in, stream))),
        a(Grid::random(rank, in, stream + 1)),
        b(Grid::random(out, rank, stream + 2, 0.1)),
        da(Grid::random(rank, in, stream + 3)),
        db(Grid::random(out, rank, stream + 4)) {
    Rng rng(5, stream);
    tensor::Mask mask(out, in);
    tensor::Tensor tensor = tensor::matrix(out, in);
    for (int64_t r = 0; r < out; ++r)
      for (int64_t c = 0; c < in; ++c) {
        mask.set(r, c, rng.uniform() >= sparsity);
        if (!mask.view().kept(r, c)) w(r, c) = 0;
        tensor.mat()(r, c) = w(r, c);
      }
    matrix = sparsity == 0
                 ? tensor::Matrix::dense(std::move(tensor))
                 : tensor::Matrix::sparse(tensor::SparseMatrix::encode(
                       tensor.mat(), mask.view(), tensor::SparseCoding::kValues, tensor::DType::kBF16, nullptr));
  }
  bool kept(int64_t o, int64_t i, bool masked) const {
    return !masked || !matrix.is_sparse() || matrix.sparse_view().mask.kept(o, i);
  }
};

struct Case {
  int64_t in, rank;
  float scale = 0.5f;
  bool masked = false;
  std::vector<Layer> layers;

  Case(int64_t inputs, const std::vector<int64_t>& outputs, int64_t rank_each) : in(inputs), rank(rank_each) {
    uint64_t stream = 10;
    for (const int64_t out : outputs) layers.emplace_back(out, in, rank, stream += 10);
  }
  int64_t out() const {
    int64_t sum = 0;
    for (const Layer& layer : layers) sum += layer.w.rows();
    return sum;
  }
  std::vector<LoraWeight> weights() {
    std::vector<LoraWeight> list;
    for (Layer& layer : layers) {
      list.push_back({&layer.matrix});
      if (rank == 0) continue;
      list.back() = {
          &layer.matrix,   scale, std::as_const(layer.a).view(), std::as_const(layer.b).view(), layer.da.view(),
          layer.db.view(), masked};
    }
    return list;
  }
  // W + c B A, all layers one below the other.
  ref::Array<double> effective() const {
    ref::Array<double> all(out(), in);
    int64_t row = 0;
    for (const Layer& layer : layers)
      for (int64_t o = 0; o < layer.w.rows(); ++o, ++row)
        for (int64_t i = 0; i < in; ++i) {
          all(row, i) = layer.w(o, i);
          for (int64_t r = 0; r < rank && layer.kept(o, i, masked); ++r)
            all(row, i) += double{scale} * layer.b(o, r) * layer.a(r, i);
        }
    return all;
  }
  // dA and dB of each layer, added to what is there.
  struct Gradients {
    ref::Array<double> da, db;
  };
  std::vector<Gradients> gradients(const Grid& x, const Grid& dy) const {
    std::vector<Gradients> all;
    int64_t first = 0;
    for (const Layer& layer : layers) {
      ref::Array<double> da = layer.da.exact(), db = layer.db.exact();
      for (int64_t o = 0; o < layer.w.rows(); ++o)
        for (int64_t i = 0; i < in; ++i) {
          if (!layer.kept(o, i, masked)) continue;
          double g = 0;
          for (int64_t t = 0; t < x.rows(); ++t) g += double{dy(t, first + o)} * x(t, i);
          for (int64_t r = 0; r < rank; ++r) {
            db(o, r) += double{scale} * g * layer.a(r, i);
            da(r, i) += double{scale} * layer.b(o, r) * g;
          }
        }
      all.push_back({da, db});
      first += layer.w.rows();
    }
    return all;
  }
};

ref::Array<double> plus(ref::Array<double> a, const Grid& b) {
  for (int64_t r = 0; r < a.rows; ++r)
    for (int64_t c = 0; c < a.cols; ++c) a(r, c) += b(r, c);
  return a;
}

class Bf16Linear : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!has_bf16_arithmetic()) GTEST_SKIP() << "no bfloat16 arithmetic on " << name(active_isa());
  }
  // Both directions of make() and the pairs' gradients. In a mask those are of exact products.
  template <class Make>
  void expect_as_written_out(const std::string& what, int64_t tokens, Make&& make, double tolerance) {
    Case c = make(), again = make();
    const Grid x = rounded(Grid::random(tokens, c.in, 1)), dy = rounded(Grid::random(tokens, c.out(), 2));
    Bf16Grid x16(x, 200), dy16(dy, 200);
    Grid y(tokens, c.out()), dx(tokens, c.in);
    linear(context, c.weights(), x16.view(), 0.0f, y.view());
    expect_within(what, worst_error(y, ref::linear(x.exact(), c.effective())), tolerance);
    const auto want = c.gradients(x, dy);
    linear_backward(context, c.weights(), x16.view(), dy16.view(), dx.view());
    expect_within(what + ", backward", worst_error(dx, ref::linear_backward(dy.exact(), c.effective())), tolerance);
    // Without dx the gradients are the same.
    linear_backward(context, again.weights(), x16.view(), dy16.view(), tensor::MatView());
    for (size_t i = 0; i < c.layers.size(); ++i) {
      const bool in_mask = c.masked && c.layers[i].matrix.is_sparse();
      const std::string pair = what + (in_mask ? ", in its mask" : "");
      expect_within(pair + " dA", worst_error(c.layers[i].da, want[i].da), in_mask ? 10 * kSums : kBranch);
      expect_within(pair + " dB", worst_error(c.layers[i].db, want[i].db), in_mask ? 10 * kSums : kBranch);
      EXPECT_EQ(again.layers[i].da.memory(), c.layers[i].da.memory());
      EXPECT_EQ(again.layers[i].db.memory(), c.layers[i].db.memory());
    }
  }

  Context context{Compute::kBf16};
};

TEST_F(Bf16Linear, WithoutPairsOnlySumsAreRounded) {
  for (const int64_t tokens : kTokenCounts)
    for (auto [in, outs] : {std::pair<int64_t, std::vector<int64_t>>{24, {10}}, {64, {64, 7, 70}}, {100, {700}}}) {
      Case c(in, outs, 0);
      const auto weights = c.weights();
      const Grid x = rounded(Grid::random(tokens, in, 1)), dy = rounded(Grid::random(tokens, c.out(), 2));
      Bf16Grid x16(x), dy16(dy);
      for (const float beta : {0.0f, 1.0f}) {
        Grid y = beta == 0.0f ? Grid(tokens, c.out()) : Grid::random(tokens, c.out(), 3);
        const ref::Array<double> product = ref::linear(x.exact(), c.effective());
        const ref::Array<double> want = beta == 0.0f ? product : plus(product, y);
        linear(context, weights, x16.view(), beta, y.view());
        expect_within("bf16_linear", worst_error(y, want), kSums);
      }
      Grid dx(tokens, in);
      linear_backward(context, weights, {}, dy16.view(), dx.view());
      expect_within("bf16_linear backward", worst_error(dx, ref::linear_backward(dy.exact(), c.effective())), kSums);
      Bf16Grid narrow(tokens, in), narrow_y(tokens, c.out());
      linear_backward(context, weights, {}, dy16.view(), narrow.view());
      EXPECT_EQ(narrow.values().memory(), rounded(dx).memory());
      linear(context, weights, x16.view(), 0.0f, narrow_y.view());
      expect_within("bf16_linear rounded", worst_error(narrow_y.values(), ref::linear(x.exact(), c.effective())),
                    1.01 * kBf16Half);
    }
}

TEST_F(Bf16Linear, AWeightOfSeveralPiecesIsRoundedOnce) {
  Case c(1024, {5000}, 8);
  const auto weights = c.weights();
  const Grid dy = rounded(Grid::random(5, 5000, 2));
  Bf16Grid x16(rounded(Grid::random(5, 1024, 1))), dy16(dy), narrow(5, 1024);
  Grid dx(5, 1024);
  linear_backward(context, weights, x16.view(), dy16.view(), dx.view());
  linear_backward(context, weights, x16.view(), dy16.view(), narrow.view());
  expect_within("bf16_linear in pieces", worst_error(dx, ref::linear_backward(dy.exact(), c.effective())), kBranch);
  EXPECT_EQ(narrow.values().memory(), rounded(dx).memory());
}

TEST_F(Bf16Linear, AWeightWithoutRowsLeavesTheOutputAlone) {
  Case c(90, {0}, 0);
  Bf16Grid x(rounded(Grid::random(40, 90, 1)));
  Grid y = Grid::random(40, 70, 2);
  const std::vector<float> before = y.memory();
  linear(context, c.weights(), x.view(), 1.0f, y.view());
  EXPECT_EQ(y.memory(), before);
}

TEST_F(Bf16Linear, WhatStoodInTheRoomDoesNotMatter) {
  Case c(90, {33}, 8), again(90, {33}, 8);
  const Grid x = rounded(Grid::random(40, 90, 1)), dy = rounded(Grid::random(40, 33, 2));
  Bf16Grid x16(x, 200), dy16(dy, 200), x_nan(x, 200), dy_nan(dy, 200);
  for (Bf16Grid* grid : {&x_nan, &dy_nan})
    for (int64_t t = 0; t < 40; ++t) std::fill_n(grid->view().row(t) + grid->view().cols, 200, uint16_t{0x7FC0});
  Grid y(40, 33), y_nan(40, 33), dx(40, 90), dx_nan(40, 90);
  linear(context, c.weights(), x16.view(), 0.0f, y.view());
  linear(context, c.weights(), x_nan.view(), 0.0f, y_nan.view());
  linear_backward(context, c.weights(), x16.view(), dy16.view(), dx.view());
  linear_backward(context, again.weights(), x_nan.view(), dy_nan.view(), dx_nan.view());
  EXPECT_EQ(y.memory(), y_nan.memory());
  EXPECT_EQ(dx.memory(), dx_nan.memory());
  EXPECT_EQ(c.layers[0].da.memory(), again.layers[0].da.memory());
}

TEST_F(Bf16Linear, PairsAreAddedAndTheirGradientsAccumulate) {
  for (const int64_t tokens : kTokenCounts)
    for (const int64_t rank : {1, 8, 40})
      expect_as_written_out(
          "bf16_linear with pairs", tokens,
          [&] {
            return Case(90, {33, 64, 10}, rank);
          },
          kBranch);
}

// Two layers with masks and a dense one between them.
Case masked_case(int64_t rank) {
  Case c(90, {}, rank);
  c.masked = true;
  c.layers.emplace_back(133, 90, rank, 20, 0.75);
  c.layers.emplace_back(64, 90, rank, 30);
  c.layers.emplace_back(10, 90, rank, 40, 0.5);
  return c;
}

TEST_F(Bf16Linear, MaskedPairsKeepTheMask) {
  for (const int64_t tokens : kTokenCounts)
    for (const int64_t rank : {1, 8, 40}) {
      expect_as_written_out(
          "bf16_linear masked", tokens, [&] { return masked_case(rank); }, kDithered);
      // Negative control: the same pairs without the mask.
      Case c = masked_case(rank);
      const Grid x = rounded(Grid::random(tokens, 90, 1));
      Bf16Grid x16(x, 200);
      Grid y(tokens, c.out());
      c.masked = false;
      linear(context, c.weights(), x16.view(), 0.0f, y.view());
      c.masked = true;
      EXPECT_GT(worst_error(y, ref::linear(x.exact(), c.effective())), 2 * kDithered);
    }
}

TEST_F(Bf16Linear, AMaskedDeltaOfZeroChangesNothing) {
  Layer layer(64, 90, 8, 20, 0.5);
  const tensor::Tensor values = layer.matrix.to_f32();
  tensor::Tensor fine = values.clone();  // not values of bfloat16
  for (int64_t i = 0; i < fine.size(); ++i) fine.f32()[i] *= 1.001f;
  const tensor::Matrix weight = tensor::Matrix::sparse(tensor::SparseMatrix::encode(
      fine.mat(), layer.matrix.sparse_view().mask, tensor::SparseCoding::kValues, tensor::DType::kF32, nullptr));
  const Grid none(64, 8, 0.0f);
  Bf16Grid x(rounded(Grid::random(40, 90, 1)), 200);
  Grid with(40, 64), without(40, 64);
  const LoraWeight masked{&weight, 1.0f, std::as_const(layer.a).view(), none.view(), {}, {}, true}, plain{&weight};
  linear(context, {&masked, 1}, x.view(), 0.0f, with.view());
  linear(context, {&plain, 1}, x.view(), 0.0f, without.view());
  EXPECT_EQ(with.memory(), without.memory());
}

// Both directions multiply the same rounded matrix: with the identity each entry of the results is one product.
TEST_F(Bf16Linear, ForwardAndBackwardDitherAlike) {
  Case c(64, {}, 8);
  c.masked = true;
  c.layers.emplace_back(40, 64, 8, 20, 0.5);
  c.layers.emplace_back(24, 64, 8, 30, 0.5);
  Grid identity(64, 64, 0.0f);
  for (int64_t i = 0; i < 64; ++i) identity(i, i) = 1;
  Bf16Grid x(identity, 200), dy(identity, 200);
  Grid y(64, 64), dx(64, 64);
  linear(context, c.weights(), x.view(), 0.0f, y.view());
  for (auto& layer : c.layers) layer.da = Grid(8, 64), layer.db = Grid(layer.w.rows(), 8);
  linear_backward(context, c.weights(), x.view(), dy.view(), dx.view());
  for (int64_t o = 0; o < 64; ++o)
    for (int64_t i = 0; i < 64; ++i) ASSERT_EQ(y(i, o), dx(o, i)) << o << " " << i;
}

// How much of a delta reaches the output: the slope of what moved in what should have.
TEST_F(Bf16Linear, AMaskedDeltaBelowTheRoundingOfTheWeightsCountsOnAverage) {
  Case c(512, {}, 8);
  c.masked = true;
  c.layers.emplace_back(512, 512, 8, 20, 0.5);
  for (int64_t o = 0; o < 512; ++o)
    for (int64_t r = 0; r < 8; ++r)
      c.layers[0].b(o, r) *= 1e-2f;  // the delta is about 1e-3 of W, a quarter of its unit
  const Grid x = rounded(Grid::random(200, 512, 1));
  Bf16Grid x16(x, 200);
  Grid with(200, 512), without(200, 512);
  linear(context, c.weights(), x16.view(), 0.0f, with.view());
  const ref::Array<double> whole = ref::linear(x.exact(), c.effective());
  Case plain = c;
  plain.rank = 0;
  linear(context, plain.weights(), x16.view(), 0.0f, without.view());
  const ref::Array<double> base = ref::linear(x.exact(), plain.effective());
  double product = 0, square = 0;
  for (int64_t t = 0; t < 200; ++t)
    for (int64_t o = 0; o < 512; ++o) {
      const double delta = whole(t, o) - base(t, o);
      product += delta * (with(t, o) - without(t, o));
      square += delta * delta;
    }
  EXPECT_NEAR(product / square, 1, 0.05);
}

TEST_F(Bf16Linear, ADeltaBelowTheRoundingOfTheWeightsCounts) {
  Case c(64, {64}, 8);
  for (int64_t o = 0; o < 64; ++o)
    for (int64_t r = 0; r < 8; ++r) c.layers[0].b(o, r) *= 1e-3f;  // about 1e-4 of W
  const Grid x = rounded(Grid::random(40, 64, 1));
  Bf16Grid x16(x, 200);
  Grid with(40, 64), without(40, 64);
  linear(context, c.weights(), x16.view(), 0.0f, with.view());
  Case plain(64, {64}, 0);
  linear(context, plain.weights(), x16.view(), 0.0f, without.view());
  ref::Array<double> delta = ref::linear(x.exact(), c.effective());
  const ref::Array<double> base = ref::linear(x.exact(), plain.effective());
  Grid got(40, 64);
  for (int64_t r = 0; r < 40; ++r)
    for (int64_t o = 0; o < 64; ++o) {
      delta(r, o) -= base(r, o);
      got(r, o) = with(r, o) - without(r, o);
    }
  expect_within("bf16_linear, small delta alone", worst_error(got, delta), 2e-2);
}

TEST_F(Bf16Linear, NegativeControlOnePerturbedWeightIsSeen) {
  Case c(64, {64, 7}, 0);
  const Grid x = rounded(Grid::random(40, 64, 1));
  Bf16Grid x16(x);
  const ref::Array<double> want = ref::linear(x.exact(), c.effective());
  c.layers[1] = Layer(7, 64, 0, 77);
  Grid y(40, 71);
  linear(context, c.weights(), x16.view(), 0.0f, y.view());
  EXPECT_GT(worst_error(y, want), 10 * kSums);
}

}  // namespace
}  // namespace brick::kernels
