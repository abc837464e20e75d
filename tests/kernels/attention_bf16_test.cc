// Beside attention in float32 over the same rounded values, which attention_test.cc holds against references.
#include "brick/kernels/attention_bf16.h"

#include <gtest/gtest.h>

#include "brick/base/cpu.h"
#include "kernels/bf16_util.h"

namespace brick::kernels {
namespace {

constexpr double kForward = 3 * kBf16Half;   // weights and results are rounded
constexpr double kBackward = 8 * kBf16Half;  // weights, their gradients and results, of the largest value
constexpr double kLogSumExp = 2e-6;

using Spans = std::vector<AttentionSpan>;

struct Outcome {
  Grid o, log_sum_exp, dq, dk, dv;
};

struct Case {
  AttentionShape shape;
  Spans spans;
  Grid q, k, v, d_o;

  Case(AttentionShape sizes, Spans sequences, int64_t queries, int64_t keys)
      : shape(sizes),
        spans(std::move(sequences)),
        q(rounded(Grid::random(queries, shape.heads * shape.head_dim, 1, 1.5))),
        k(rounded(Grid::random(keys, shape.kv_heads * shape.head_dim, 2, 1.5))),
        v(rounded(Grid::random(keys, shape.kv_heads * shape.head_dim, 3))),
        d_o(rounded(Grid::random(queries, shape.heads * shape.head_dim, 4))) {}

  Outcome empty() const {
    return {{q.rows(), q.cols()},
            {q.rows(), shape.heads},
            {q.rows(), q.cols()},
            {k.rows(), k.cols()},
            {v.rows(), v.cols()}};
  }
  Outcome in_float32() const {
    Context context;
    Outcome out = empty();
    std::vector<float> sums(static_cast<size_t>(q.rows() * shape.heads));
    attention(context, shape, spans, q.view(), k.view(), v.view(), out.o.view(), sums.data());
    attention_backward(context, shape, spans, q.view(), k.view(), v.view(), out.o.view(), sums.data(), d_o.view(),
                       out.dq.view(), out.dk.view(), out.dv.view());
    return with_sums(std::move(out), sums);
  }
  Outcome in_bf16() const {
    Context context(Compute::kBf16);
    Outcome out = empty();
    std::vector<float> sums(static_cast<size_t>(q.rows() * shape.heads));
    const Bf16Grid q16(q), k16(k), v16(v), d16(d_o);
    Bf16Grid o16(q.rows(), q.cols()), dq16(q.rows(), q.cols());
    attention(context, shape, spans, q16.view(), k16.view(), v16.view(), o16.view(), sums.data());
    attention_backward(context, shape, spans, q16.view(), k16.view(), v16.view(), std::as_const(o16).view(),
                       sums.data(), d16.view(), dq16.view(), out.dk.view(), out.dv.view());
    out.o = o16.values();
    out.dq = dq16.values();
    return with_sums(std::move(out), sums);
  }
  Outcome with_sums(Outcome out, const std::vector<float>& sums) const {
    for (int64_t t = 0; t < q.rows(); ++t)
      for (int64_t h = 0; h < shape.heads; ++h) out.log_sum_exp(t, h) = sums[static_cast<size_t>(t * shape.heads + h)];
    return out;
  }
};

class AttentionBf16 : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!has_bf16_arithmetic()) GTEST_SKIP() << "no bfloat16 arithmetic on " << name(active_isa());
  }
};

TEST_F(AttentionBf16, MatchesFloat32) {
  for (const Case& c : {Case({2, 2, 8}, {{0, 5, 0, 5}, {5, 1, 5, 1}, {6, 9, 6, 9}}, 15, 15),
                        Case({4, 2, 40}, {{0, 7, 0, 7}, {7, 3, 7, 3}}, 10, 10), Case({2, 1, 5}, {{0, 4, 0, 4}}, 4, 4),
                        Case({9, 3, 64}, {{0, 130, 0, 130}, {130, 64, 130, 64}, {194, 17, 194, 17}}, 211, 211),
                        Case({2, 1, 64}, {{0, 70, 0, 131}, {70, 129, 131, 129}}, 199, 260),
                        Case({2, 1, 128}, {{0, 65, 0, 65}}, 65, 65), Case({1, 1, 8}, {{0, 500, 0, 500}}, 500, 500),
                        // The second sequence lies first; one without queries takes no part.
                        Case({2, 2, 8}, {{4, 3, 0, 3}, {0, 4, 3, 5}}, 7, 8),
                        Case({2, 2, 8}, {{0, 3, 0, 3}, {3, 0, 3, 0}, {3, 2, 3, 2}}, 5, 5)}) {
    const Outcome want = c.in_float32(), got = c.in_bf16();
    expect_within("bf16 attention", worst_error(got.o, want.o.exact()), kForward);
    expect_within("bf16 attention log_sum_exp", worst_error(got.log_sum_exp, want.log_sum_exp.exact()), kLogSumExp);
    expect_within("bf16 attention dq", worst_error(got.dq, want.dq.exact()), kBackward);
    expect_within("bf16 attention dk", worst_error(got.dk, want.dk.exact()), kBackward);
    expect_within("bf16 attention dv", worst_error(got.dv, want.dv.exact()), kBackward);
  }
}

TEST_F(AttentionBf16, LaterKeysDoNotReachEarlierQueries) {
  const Case original({2, 1, 8}, {{0, 70, 0, 70}, {70, 5, 70, 5}}, 75, 75);
  Case changed = original;
  changed.k(66, 3) += 10.0f;
  changed.v(66, 3) += 10.0f;
  const Outcome a = original.in_bf16(), b = changed.in_bf16();
  for (int64_t t = 0; t < 75; ++t) {
    bool equal = true;
    for (int64_t c = 0; c < 16; ++c) equal = equal && a.o(t, c) == b.o(t, c);
    EXPECT_EQ(equal, t < 66 || t >= 70) << t;
  }
}

TEST_F(AttentionBf16, LargeScoresDoNotOverflow) {
  Case c({1, 1, 8}, {{0, 6, 0, 6}}, 6, 6);
  for (int64_t t = 0; t < 6; ++t)
    for (int64_t i = 0; i < 8; ++i) c.q(t, i) *= 32.0f;
  const Outcome got = c.in_bf16();
  expect_within("bf16 attention of large scores", worst_error(got.o, c.in_float32().o.exact()), kForward);
  EXPECT_TRUE(std::isfinite(got.dq(5, 0)) && std::isfinite(got.dk(0, 0)) && std::isfinite(got.dv(0, 0)));
}

TEST_F(AttentionBf16, NegativeControlOnePerturbedKeyIsSeen) {
  const Case right({2, 1, 8}, {{0, 65, 0, 65}}, 65, 65);
  Case wrong = right;
  wrong.k(2, 5) += 2.0f;
  const Outcome good = right.in_float32(), bad = wrong.in_bf16();
  EXPECT_GT(worst_error(bad.o, good.o.exact()), 2 * kForward);
  EXPECT_GT(worst_error(bad.dk, good.dk.exact()), 2 * kBackward);
}

}  // namespace
}  // namespace brick::kernels
