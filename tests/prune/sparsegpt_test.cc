// SparseGPT against optimal brain surgeon steps in double, written as slowly as they are derived.
#include <gtest/gtest.h>

#include <algorithm>

#include "problems.h"

namespace brick::prune {
namespace {

// float32 corrections over 40 columns against double.
constexpr double kWeightTolerance = 5e-4;

struct Reference {
  std::vector<double> weight;  // [out, in]
  tensor::Mask mask;
};

// Removing w_j from a row whose weights j.. are free: w_F -= w_j Hinv_F[:, 0] / Hinv_F[0, 0] with Hinv_F the
// inverse of H's rows and columns j.. (Hassibi & Stork 1993, eq. 5); its loss is w_j^2 / (2 Hinv_F[0, 0]).
// Blocks and thresholds as in method.md.
Reference slow_sparsegpt(const tensor::Tensor& weight, const std::vector<double>& h, double sparsity, int64_t block,
                         const Pattern& pattern) {
  const int64_t rows = weight.shape()[0], cols = weight.shape()[1];
  Reference out{std::vector<double>(weight.f32(), weight.f32() + rows * cols), tensor::Mask(rows, cols)};
  for (uint64_t& word : out.mask.words()) word = ~uint64_t{0};
  std::vector<std::vector<double>> inverses;
  for (int64_t j = 0; j < cols; ++j) {
    const int64_t n = cols - j;
    std::vector<double> free;
    for (int64_t a = j; a < cols; ++a)
      for (int64_t b = j; b < cols; ++b) free.push_back(h[static_cast<size_t>(a * cols + b)]);
    inverses.push_back(inverse_of(free, static_cast<size_t>(n)));
  }
  const auto w = [&](int64_t r, int64_t c) -> double& { return out.weight[static_cast<size_t>(r * cols + c)]; };
  const auto loss = [&](int64_t r, int64_t c) { return w(r, c) * w(r, c) / inverses[static_cast<size_t>(c)][0]; };
  for (int64_t begin = 0; begin < cols; begin += block) {
    const int64_t end = std::min(begin + block, cols);
    if (pattern.unstructured()) {
      std::vector<double> losses;
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = begin; c < end; ++c) losses.push_back(loss(r, c));
      std::sort(losses.begin(), losses.end());
      const double threshold = losses[static_cast<size_t>(static_cast<double>(losses.size()) * sparsity)];
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = begin; c < end; ++c) out.mask.set(r, c, loss(r, c) > threshold);
    }
    for (int64_t j = begin; j < end; ++j) {
      for (int64_t r = 0; r < rows; ++r) {
        if (!pattern.unstructured() && j % pattern.group == 0) {
          std::vector<std::pair<double, int64_t>> group;
          for (int64_t c = j; c < j + pattern.group; ++c) group.emplace_back(loss(r, c), c);
          std::sort(group.begin(), group.end());
          for (int64_t i = 0; i < pattern.drop; ++i) out.mask.set(r, group[static_cast<size_t>(i)].second, false);
        }
        if (out.mask.kept(r, j)) continue;
        const std::vector<double>& inverse = inverses[static_cast<size_t>(j)];
        const double step = w(r, j) / inverse[0];
        for (int64_t c = j + 1; c < cols; ++c) w(r, c) -= step * inverse[static_cast<size_t>(c - j)];
        w(r, j) = 0;
      }
    }
  }
  return out;
}

std::vector<double> hessian_of(const InputStatistics& inputs, double damping) {
  const auto n = static_cast<size_t>(inputs.width());
  std::vector<double> h(n * n);
  double mean = 0;
  for (size_t i = 0; i < n; ++i) mean += inputs.gram[i * n + i] / static_cast<double>(n);
  for (size_t i = 0; i < n; ++i)
    for (size_t j = i; j < n; ++j)
      h[i * n + j] = h[j * n + i] = inputs.gram[i * n + j] + (i == j ? damping * mean : 0.0);
  return h;
}

double largest_difference(const Pruned& got, const Reference& want) {
  double largest = 0;
  for (int64_t i = 0; i < got.weight.size(); ++i)
    largest =
        std::max(largest, std::fabs(static_cast<double>(got.weight.f32()[i]) - want.weight[static_cast<size_t>(i)]));
  return largest;
}

TEST(SparseGpt, EqualsSlowOptimalBrainSurgeon) {
  const tensor::Tensor weight = random_matrix(10, 40, 21);
  const InputStatistics inputs = statistics_of(correlated_inputs(160, 40, 22).mat(), Needs::kHessian);
  for (const auto& [pattern, sparsity, block] : {std::tuple{"unstructured", 0.25, 16},
                                                 {"unstructured", 0.5, 16},
                                                 {"unstructured", 0.75, 128},
                                                 {"2:4", 0.5, 16},
                                                 {"1:4", 0.25, 40}}) {
    const Reference want = slow_sparsegpt(weight, hessian_of(inputs, 0.01), sparsity, block, parse_pattern(pattern));
    const Pruned got = run("sparsegpt", weight, inputs, sparsity, pattern, {0.01, block});
    EXPECT_EQ(differing(got.outcome.mask, want.mask), 0) << pattern << " " << sparsity;
    EXPECT_LT(largest_difference(got, want), kWeightTolerance) << pattern << " " << sparsity;
  }
}

TEST(SparseGpt, ReferenceNoticesOneWrongEntryOfTheHessian) {
  const tensor::Tensor weight = random_matrix(10, 40, 21);
  const InputStatistics inputs = statistics_of(correlated_inputs(160, 40, 22).mat(), Needs::kHessian);
  std::vector<double> h = hessian_of(inputs, 0.01);
  h[3 * 40 + 5] *= 0.9;
  h[5 * 40 + 3] *= 0.9;
  const Reference wrong = slow_sparsegpt(weight, h, 0.5, 16, {});
  EXPECT_GT(largest_difference(run("sparsegpt", weight, inputs, 0.5, "unstructured", {0.01, 16}), wrong),
            10 * kWeightTolerance);
}

TEST(SparseGpt, IdentityHessianIsMagnitudeBlockByBlock) {
  const int64_t rows = 6, cols = 20, block = 8;
  const tensor::Tensor weight = random_matrix(rows, cols, 31);
  std::vector<double> gram(static_cast<size_t>(cols * cols));
  for (int64_t c = 0; c < cols; ++c) gram[static_cast<size_t>(c * cols + c)] = 3.0;
  const Pruned got = run("sparsegpt", weight, statistics_from_gram(gram), 0.5, "unstructured", {0.01, block});
  for (int64_t begin = 0; begin < cols; begin += block) {
    const int64_t end = std::min(begin + block, cols);
    tensor::Tensor part = tensor::matrix(rows, end - begin);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = begin; c < end; ++c) part.mat()(r, c - begin) = weight.mat()(r, c);
    const Pruned want = run("magnitude", part, {}, 0.5);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = begin; c < end; ++c) {
        EXPECT_EQ(got.outcome.mask.kept(r, c), want.outcome.mask.kept(r, c - begin));
        EXPECT_EQ(got.weight.mat()(r, c), want.weight.mat()(r, c - begin));
      }
    }
  }
}

TEST(SparseGpt, EachBlockLosesOneMoreThanTheShare) {
  const InputStatistics inputs = statistics_of(correlated_inputs(200, 72, 8).mat(), Needs::kHessian);
  const Pruned got = run("sparsegpt", random_matrix(11, 72, 9), inputs, 0.3, "unstructured", {0.01, 32});
  for (const auto& [begin, end] : {std::pair{0, 32}, {32, 64}, {64, 72}}) {
    int64_t dropped = 0;
    for (int64_t r = 0; r < 11; ++r)
      for (int64_t c = begin; c < end; ++c) dropped += got.outcome.mask.kept(r, c) ? 0 : 1;
    EXPECT_EQ(dropped, static_cast<int64_t>(11 * (end - begin) * 0.3) + 1);
  }
}

TEST(SparseGpt, LosesLessThanWandaAndWandaLessThanMagnitude) {
  const tensor::Tensor x = correlated_inputs(600, 96, 41), weight = random_matrix(48, 96, 42);
  const InputStatistics inputs = statistics_of(x.mat(), Needs::kHessian);
  for (const double sparsity : {0.25, 0.5, 0.75}) {
    const auto error = [&](const char* method) {
      const Pruned pruned = run(method, weight, inputs, sparsity, "unstructured", {0.01, 32});
      EXPECT_NEAR(pruned.sparsity(), sparsity, 0.01);
      return squared_output_error(x.mat(), weight.mat(), pruned.weight.mat());
    };
    const double magnitude = error("magnitude"), wanda = error("wanda"), sparsegpt = error("sparsegpt");
    EXPECT_LT(sparsegpt, 0.9 * wanda) << sparsity;
    EXPECT_LT(wanda, 0.98 * magnitude) << sparsity;
  }
}

TEST(SparseGpt, DeadColumnsGoFirst) {
  tensor::Tensor x = correlated_inputs(100, 24, 51);
  for (int64_t t = 0; t < 100; ++t) x.mat()(t, 5) = x.mat()(t, 17) = 0.0f;
  const InputStatistics inputs = statistics_of(x.mat(), Needs::kHessian);
  EXPECT_EQ(inputs.dead_columns(), 2);
  tensor::Tensor weight = random_matrix(8, 24, 52);
  for (int64_t r = 0; r < 8; ++r) weight.mat()(r, 5) = 100.0f;
  const Pruned got = run("sparsegpt", weight, inputs, 0.5);
  EXPECT_FALSE(got.outcome.fell_back);
  for (int64_t r = 0; r < 8; ++r) {
    EXPECT_FALSE(got.outcome.mask.kept(r, 5));
    EXPECT_FALSE(got.outcome.mask.kept(r, 17));
  }
}

TEST(SparseGpt, FallsBackToWandaWithANote) {
  // Not the products of any inputs: no damping that is tried makes it positive definite.
  const InputStatistics inputs = statistics_from_gram({1, 50, 0, 0, 0, 4, 0, 0, 0, 0, 9, 5, 0, 0, 0, 1});
  const tensor::Tensor weight = matrix_of(2, 4, {4, 1, 1, 9, 1, 1, 1, 1});
  const Pruned got = run("sparsegpt", weight, inputs, 0.5);
  EXPECT_TRUE(got.outcome.fell_back);
  EXPECT_NE(got.outcome.note.find("not positive definite"), std::string::npos);
  const Pruned wanda = run("wanda", weight, inputs, 0.5);
  EXPECT_EQ(differing(got.outcome.mask, wanda.outcome.mask), 0);
  EXPECT_EQ(row_of(got.outcome.mask, 0), "1001");
}

TEST(SparseGpt, FewerTokensThanInputsStillWork) {
  const tensor::Tensor x = correlated_inputs(7, 64, 61), weight = random_matrix(16, 64, 62);
  const Pruned got = run("sparsegpt", weight, statistics_of(x.mat(), Needs::kHessian), 0.5);
  EXPECT_FALSE(got.outcome.fell_back);
  const Pruned wanda = run("wanda", weight, statistics_of(x.mat(), Needs::kColumnNorms), 0.5);
  EXPECT_LT(squared_output_error(x.mat(), weight.mat(), got.weight.mat()),
            squared_output_error(x.mat(), weight.mat(), wanda.weight.mat()));
}

}  // namespace
}  // namespace brick::prune
