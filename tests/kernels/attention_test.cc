#include "brick/kernels/attention.h"

#include <gtest/gtest.h>

#include "kernels/reference.h"
#include "kernels/test_util.h"

namespace brick::kernels {
namespace {

// Products over at most 64 dimensions and 200 keys in float32, exponentials of scores of a few units.
constexpr double kForwardTolerance = 2e-6;
// The backward recomputes the probabilities from the rounded log-sum-exp and takes a difference of sums.
constexpr double kBackwardTolerance = 5e-6;

using Spans = std::vector<AttentionSpan>;

// Lengths are (queries, keys) pairs, laid one after the other.
Spans packed(std::initializer_list<std::pair<int64_t, int64_t>> lengths) {
  Spans spans;
  int64_t query = 0, key = 0;
  for (auto [queries, keys] : lengths) {
    spans.push_back({query, queries, key, keys});
    query += queries;
    key += keys;
  }
  return spans;
}

struct Outcome {
  Grid o, log_sum_exp, dq, dk, dv;
};

struct Case {
  std::string label;
  AttentionShape shape;
  Spans spans;
  Grid q{0, 0}, k{0, 0}, v{0, 0}, d_o{0, 0};

  Case(std::string name, AttentionShape sizes, Spans sequences)
      : label(std::move(name)), shape(sizes), spans(std::move(sequences)) {
    int64_t queries = 0, keys = 0;
    for (const AttentionSpan& span : spans) {
      queries = std::max(queries, span.query_begin + span.queries);
      keys = std::max(keys, span.key_begin + span.keys);
    }
    q = Grid::random(queries, shape.heads * shape.head_dim, 1, 1.5);
    k = Grid::random(keys, shape.kv_heads * shape.head_dim, 2, 1.5);
    v = Grid::random(keys, shape.kv_heads * shape.head_dim, 3);
    d_o = Grid::random(queries, shape.heads * shape.head_dim, 4);
  }

  Outcome run() const {
    Context context;
    Outcome out{{q.rows(), q.cols()},
                {q.rows(), shape.heads},
                {q.rows(), q.cols()},
                {k.rows(), k.cols()},
                {v.rows(), v.cols()}};
    std::vector<float> dense(static_cast<size_t>(q.rows() * shape.heads));
    attention(context, shape, spans, q.view(), k.view(), v.view(), out.o.view(), dense.data());
    for (int64_t t = 0; t < q.rows(); ++t)
      for (int64_t h = 0; h < shape.heads; ++h) out.log_sum_exp(t, h) = dense[static_cast<size_t>(t * shape.heads + h)];
    attention_backward(context, shape, spans, q.view(), k.view(), v.view(), out.o.view(), dense.data(), d_o.view(),
                       out.dq.view(), out.dk.view(), out.dv.view());
    return out;
  }

  ref::AttentionResult<double> want() const { return ref::attention(shape, spans, q.exact(), k.exact(), v.exact()); }

  // sum d_o * o with one operand replaced by complex numbers.
  auto loss(const Grid& replaced) const {
    return [this, &replaced, cq = ref::Array<ref::Complex>(q.exact()), ck = ref::Array<ref::Complex>(k.exact()),
            cv = ref::Array<ref::Complex>(v.exact()), weights = d_o.exact()](const ref::Array<ref::Complex>& z) {
      return ref::inner(
          weights,
          ref::attention(shape, spans, &replaced == &q ? z : cq, &replaced == &k ? z : ck, &replaced == &v ? z : cv).o);
    };
  }
};

std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.label; }
std::string label(const ::testing::TestParamInfo<Case>& info) { return info.param.label; }

class Attention : public ::testing::TestWithParam<Case> {};

TEST_P(Attention, ForwardMatchesDoubleReference) {
  const Case& c = GetParam();
  const Outcome got = c.run();
  const ref::AttentionResult<double> want = c.want();
  expect_within("attention", worst_error(got.o, want.o), kForwardTolerance);
  expect_within("attention log_sum_exp", worst_error(got.log_sum_exp, want.log_sum_exp), kForwardTolerance);
}

TEST_P(Attention, ForwardNeedsNoLogSumExp) {
  const Case& c = GetParam();
  Context context;
  Grid o(c.q.rows(), c.q.cols());
  attention(context, c.shape, c.spans, c.q.view(), c.k.view(), c.v.view(), o.view(), nullptr);
  EXPECT_EQ(o.memory(), c.run().o.memory());
}

INSTANTIATE_TEST_SUITE_P(Small, Attention,
                         ::testing::Values(Case("Mha", {2, 2, 8}, packed({{5, 5}, {1, 1}, {9, 9}})),
                                           Case("Gqa", {4, 2, 8}, packed({{7, 7}, {3, 3}})),
                                           Case("Mqa", {3, 1, 8}, packed({{6, 6}, {2, 2}})),
                                           Case("OddHeadDim", {2, 1, 5}, packed({{4, 4}})),
                                           Case("HeadDim64", {2, 1, 64}, packed({{4, 4}, {2, 2}})),
                                           Case("OneTokenOfDecode", {4, 2, 8}, packed({{1, 11}})),
                                           Case("PackedDecode", {2, 1, 8}, packed({{1, 7}, {4, 9}, {2, 2}})),
                                           // The second sequence lies first; a sequence without queries takes no part.
                                           Case("AnyOrder", {2, 2, 8}, {{4, 3, 0, 3}, {0, 4, 3, 5}}),
                                           Case("EmptySpan", {2, 2, 8}, {{0, 3, 0, 3}, {3, 0, 3, 0}, {3, 2, 3, 2}})),
                         label);

INSTANTIATE_TEST_SUITE_P(LongerThanABlock, Attention,
                         ::testing::Values(Case("ExactlyOneBlock", {2, 1, 8}, packed({{64, 64}})),
                                           Case("OneMore", {2, 1, 8}, packed({{65, 65}, {3, 3}})),
                                           Case("Packed", {4, 2, 8}, packed({{130, 130}, {17, 17}, {64, 64}})),
                                           Case("WithCache", {2, 1, 64}, packed({{70, 131}, {129, 129}}))),
                         label);

// Every element of the three gradients, for cases small enough.
class AttentionGradient : public ::testing::TestWithParam<Case> {};

TEST_P(AttentionGradient, GradientMatchesComplexStep) {
  const Case& c = GetParam();
  const Outcome got = c.run();
  expect_within("attention dq", worst_error(got.dq, ref::gradient(c.q.exact(), c.loss(c.q))), kBackwardTolerance);
  expect_within("attention dk", worst_error(got.dk, ref::gradient(c.k.exact(), c.loss(c.k))), kBackwardTolerance);
  expect_within("attention dv", worst_error(got.dv, ref::gradient(c.v.exact(), c.loss(c.v))), kBackwardTolerance);
}

INSTANTIATE_TEST_SUITE_P(Small, AttentionGradient,
                         ::testing::Values(Case("Mha", {2, 2, 8}, packed({{5, 5}, {1, 1}, {9, 9}})),
                                           Case("Gqa", {4, 2, 8}, packed({{7, 7}, {3, 3}})),
                                           Case("Mqa", {3, 1, 8}, packed({{6, 6}, {2, 2}})),
                                           Case("OddHeadDim", {2, 1, 5}, packed({{4, 4}})),
                                           Case("HeadDim64", {2, 1, 64}, packed({{4, 4}, {2, 2}})),
                                           Case("KeysBeforeTheQueries", {2, 1, 8}, packed({{1, 7}, {4, 9}})),
                                           Case("AnyOrder", {2, 2, 8}, {{4, 3, 0, 3}, {0, 4, 3, 5}})),
                         label);

// Longer ones along random directions: an error of one element by the gradient's own size would show as 1e-2.
class AttentionSlope : public ::testing::TestWithParam<Case> {};

TEST_P(AttentionSlope, GradientMatchesComplexStepAlongRandomDirections) {
  const Case& c = GetParam();
  const Outcome got = c.run();
  const auto check = [&](const char* what, const Grid& operand, const Grid& gradient) {
    ASSERT_TRUE(gradient.gaps_intact());
    const auto loss = c.loss(operand);
    for (uint64_t stream : {10, 11}) {
      const ref::Array<double> direction = random_direction(operand.rows(), operand.cols(), stream);
      const double slope = ref::slope(operand.exact(), direction, loss);
      expect_within(what, slope_error(gradient.exact(), direction, slope), kBackwardTolerance);
    }
  };
  check("attention slope along q", c.q, got.dq);
  check("attention slope along k", c.k, got.dk);
  check("attention slope along v", c.v, got.dv);
}

INSTANTIATE_TEST_SUITE_P(LongerThanABlock, AttentionSlope,
                         ::testing::Values(Case("OneMore", {2, 1, 8}, packed({{65, 65}, {3, 3}})),
                                           Case("Packed", {4, 2, 8}, packed({{130, 130}, {17, 17}, {64, 64}})),
                                           Case("WithCache", {2, 1, 64}, packed({{70, 131}}))),
                         label);

TEST(AttentionCausality, LaterKeysDoNotReachEarlierQueries) {
  const Case original("", {2, 1, 8}, packed({{70, 70}, {5, 5}}));
  Case changed = original;
  changed.k(66, 3) += 10.0f;
  changed.v(66, 3) += 10.0f;
  const Outcome a = original.run(), b = changed.run();
  for (int64_t t = 0; t < 75; ++t) {
    bool equal = true;
    for (int64_t c = 0; c < 16; ++c) equal = equal && a.o(t, c) == b.o(t, c);
    EXPECT_EQ(equal, t < 66 || t >= 70) << t;  // the other sequence does not see it either
  }
}

TEST(AttentionStability, LargeScoresDoNotOverflow) {
  Case c("", {1, 1, 8}, packed({{6, 6}}));
  for (int64_t t = 0; t < 6; ++t)
    for (int64_t i = 0; i < 8; ++i) c.q(t, i) *= 20.0f;  // scores of up to a hundred
  const Outcome got = c.run();
  // Scores of a hundred are exact to 2^-24 of their size, and the probabilities to that difference.
  constexpr double kLooseTolerance = 2e-5;
  expect_within("attention of large scores", worst_error(got.o, c.want().o), kLooseTolerance);
  EXPECT_TRUE(std::isfinite(got.dq(5, 0)) && std::isfinite(got.dk(0, 0)) && std::isfinite(got.dv(0, 0)));
}

TEST(AttentionNegativeControl, OnePerturbedValueIsSeen) {
  for (const Spans& spans : {packed({{9, 9}, {4, 6}}), packed({{65, 65}})}) {
    const Case right("", {2, 1, 8}, spans);
    const Outcome good = right.run();
    Case wrong = right;
    wrong.k(2, 5) += 0.05f;
    const Outcome bad = wrong.run();
    EXPECT_GT(worst_error(bad.o, right.want().o), 10 * kForwardTolerance);
    EXPECT_GT(worst_error(bad.log_sum_exp, right.want().log_sum_exp), 10 * kForwardTolerance);
    EXPECT_GT(worst_error(bad.dq, good.dq.exact()), 10 * kBackwardTolerance);
    EXPECT_GT(worst_error(bad.dk, good.dk.exact()), 10 * kBackwardTolerance);
    EXPECT_GT(worst_error(bad.dv, good.dv.exact()), 10 * kBackwardTolerance);
    // A single wrong element of a gradient is seen by the comparison along a direction too.
    const ref::Array<double> direction = random_direction(right.k.rows(), right.k.cols(), 12);
    ref::Array<double> gradient = good.dk.exact();
    const double slope = ref::slope(right.k.exact(), direction, right.loss(right.k));
    EXPECT_LE(slope_error(gradient, direction, slope), kBackwardTolerance);
    gradient(1, 1) += 0.01 * std::sqrt(ref::inner(gradient, gradient));
    EXPECT_GT(slope_error(gradient, direction, slope), 10 * kBackwardTolerance);
  }
}

}  // namespace
}  // namespace brick::kernels
