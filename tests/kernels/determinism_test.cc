// The same inputs twice give the same bits, whatever the threads did in between.
#include <gtest/gtest.h>

#include "brick/kernels/attention.h"
#include "brick/kernels/cross_entropy.h"
#include "brick/kernels/gemm.h"
#include "brick/kernels/linear.h"
#include "kernels/test_util.h"

namespace brick::kernels {
namespace {

constexpr int kRepeats = 5;

// `run` returns a Grid.
template <class Run>
void expect_same_bits(Run&& run) {
  const Grid first = run();
  for (int i = 1; i < kRepeats; ++i) ASSERT_EQ(run().memory(), first.memory()) << "run " << i;
}

TEST(Determinism, Gemm) {
  for (Trans trans_a : {Trans::kNo, Trans::kYes}) {
    // A long inner dimension and a small result: where an implementation would split the sum between threads.
    const Grid a = trans_a == Trans::kYes ? Grid::random(5000, 33, 1) : Grid::random(33, 5000, 1);
    const Grid b = Grid::random(5000, 17, 2);
    expect_same_bits([&] {
      Grid c(33, 17);
      gemm(trans_a, Trans::kNo, 1.0f, a.view(), b.view(), 0.0f, c.view());
      return c;
    });
  }
  const Grid a = Grid::random(300, 257, 3), b = Grid::random(200, 257, 4);
  expect_same_bits([&] {
    Grid c(300, 200);
    gemm(Trans::kNo, Trans::kYes, 1.0f, a.view(), b.view(), 0.0f, c.view());
    return c;
  });
}

TEST(Determinism, Linear) {
  tensor::Tensor values = tensor::matrix(200, 96);
  Rng rng(58);
  for (int64_t i = 0; i < values.size(); ++i) values.f32()[i] = static_cast<float>(rng.normal());
  const tensor::Matrix weight = tensor::Matrix::dense(std::move(values));
  for (int64_t tokens : {2, 40}) {
    const Grid x = Grid::random(tokens, 96, 1), dy = Grid::random(tokens, 200, 2);
    expect_same_bits([&] {
      Context context;
      Grid y(tokens, 200);
      linear(context, weight, x.view(), 0.0f, y.view());
      return y;
    });
    expect_same_bits([&] {
      Context context;
      Grid dx(tokens, 96);
      linear_backward(context, weight, dy.view(), 0.0f, dx.view());
      return dx;
    });
  }
}

TEST(Determinism, Attention) {
  const AttentionShape shape{4, 2, 8};
  const std::vector<AttentionSpan> spans{{0, 130, 0, 130}, {130, 9, 130, 9}, {139, 70, 139, 70}};
  const Grid q = Grid::random(209, 32, 1), k = Grid::random(209, 16, 2), v = Grid::random(209, 16, 3);
  const Grid d_o = Grid::random(209, 32, 4);
  std::vector<float> log_sum_exp(209 * 4);
  Context context;
  Grid o(209, 32);
  expect_same_bits([&] {
    attention(context, shape, spans, q.view(), k.view(), v.view(), o.view(), log_sum_exp.data());
    return o;
  });
  for (int wanted : {0, 1, 2})
    expect_same_bits([&] {
      std::array<Grid, 3> out{Grid(209, 32), Grid(209, 16), Grid(209, 16)};
      const tensor::ConstMatView result = std::as_const(o).view();
      attention_backward(context, shape, spans, q.view(), k.view(), v.view(), result, log_sum_exp.data(), d_o.view(),
                         out[0].view(), out[1].view(), out[2].view());
      return out[static_cast<size_t>(wanted)];
    });
}

TEST(Determinism, CrossEntropy) {
  const Grid logits = Grid::random(33, 1003, 1, 3.0);
  const std::vector<int32_t> targets(33, 7);
  expect_same_bits([&] {
    Grid out = logits;
    std::vector<float> losses(33);
    cross_entropy_backward(out.view(), targets.data(), 0.1f, losses.data());
    for (int64_t t = 0; t < 33; ++t) out(t, 0) += losses[static_cast<size_t>(t)];
    return out;
  });
}

}  // namespace
}  // namespace brick::kernels
