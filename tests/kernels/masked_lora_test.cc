#include "brick/kernels/masked_lora.h"

#include <gtest/gtest.h>

#include "kernels/test_util.h"

namespace brick::kernels {
namespace {

constexpr double kTolerance = 1e-5;  // float32 sums of up to 200 products
constexpr float kScale = 1.5f;

// Widths below, at and above each instruction set's lanes, and over the mask's words.
class MaskedLora : public ::testing::TestWithParam<int64_t> {
 protected:
  int64_t n() const { return GetParam(); }
  static constexpr int64_t kRank = 5;
  Grid a = Grid::random(kRank, n(), 1), b = Grid::random(1, kRank, 2), row = Grid::random(1, n(), 3);
  std::vector<uint64_t> mask = random_mask();

  std::vector<uint64_t> random_mask() const {
    Rng rng(71, 1);
    std::vector<uint64_t> words(static_cast<size_t>((n() + 63) / 64));
    for (int64_t c = 0; c < n(); ++c)
      if (rng.uniform() < 0.5) words[static_cast<size_t>(c / 64)] |= uint64_t{1} << (c % 64);
    return words;
  }
  bool kept(const uint64_t* words, int64_t c) const { return words == nullptr || (words[c / 64] >> (c % 64) & 1) != 0; }

  ref::Array<double> want_delta(const uint64_t* words) const {
    ref::Array<double> out = row.exact();
    for (int64_t c = 0; c < n(); ++c)
      for (int64_t r = 0; r < kRank && kept(words, c); ++r) out(0, c) += double{kScale} * b(0, r) * a(r, c);
    return out;
  }
};

TEST_P(MaskedLora, DeltaRowMatchesDoubleReference) {
  for (const uint64_t* words : {static_cast<const uint64_t*>(mask.data()), static_cast<const uint64_t*>(nullptr)}) {
    Grid out = row;
    add_delta_row(words, kScale, b.view().row(0), a.view(), out.view().row(0));
    expect_within("add_delta_row", worst_error(out, want_delta(words)), kTolerance);
  }
}

TEST_P(MaskedLora, BackwardMatchesDoubleReference) {
  Grid g = row, db = Grid::random(1, kRank, 4), da = Grid::random(kRank, n(), 5);
  ref::Array<double> want_g = g.exact(), want_db = db.exact(), want_da = da.exact();
  for (int64_t c = 0; c < n(); ++c) {
    if (!kept(mask.data(), c)) want_g(0, c) = 0;
    for (int64_t r = 0; r < kRank; ++r) {
      want_db(0, r) += double{kScale} * want_g(0, c) * a(r, c);
      want_da(r, c) += double{kScale} * want_g(0, c) * b(0, r);
    }
  }
  masked_row_backward(mask.data(), kScale, b.view().row(0), a.view(), g.view().row(0), db.view().row(0), da.view());
  expect_within("masked_row_backward g", worst_error(g, want_g), 0.0);
  expect_within("masked_row_backward db", worst_error(db, want_db), kTolerance);
  expect_within("masked_row_backward da", worst_error(da, want_da), kTolerance);
}

TEST_P(MaskedLora, NegativeControlAFlippedBitIsSeen) {
  Grid out = row;
  const auto want = want_delta(mask.data());
  mask[0] ^= 1;
  add_delta_row(mask.data(), kScale, b.view().row(0), a.view(), out.view().row(0));
  EXPECT_GT(worst_error(out, want), 10 * kTolerance);
}

// masked_gradient() of two rows, of which the second keeps all but column 0.
TEST_P(MaskedLora, GradientOfListsMatchesDoubleReference) {
  const int64_t kRows = 2;
  tensor::Mask both(kRows, n());
  for (int64_t c = 0; c < n(); ++c) {
    both.set(0, c, kept(mask.data(), c));
    both.set(1, c, c != 0);
  }
  const KeptRows rows{both.view(), 0, kRows};
  std::vector<float> memory(static_cast<size_t>(list_floats(rows)));
  const KeptLists lists = list_by_column(rows, memory.data());
  const Grid dense = Grid::random(kRows, n(), 9), b2 = Grid::random(kRows, kRank, 10);
  std::vector<float> g(static_cast<size_t>(lists.count()), 7.0f);  // what padding has must not matter
  Grid db = Grid::random(kRows, kRank, 11), da = Grid::random(kRank, n(), 12);
  ref::Array<double> want_db = db.exact(), want_da = da.exact();
  for (int64_t s = 0; s < lists.stretches; ++s)
    for (int64_t c = 0; c < n(); ++c)
      for (int64_t k = 0; k < lists.kept(s, c); ++k) {
        const int64_t place = lists.begin[s * n() + c] + k, o = lists.weights[place].offset / kTokensAtATime;
        g[static_cast<size_t>(place)] = dense(o, c);
        for (int64_t r = 0; r < kRank; ++r) {
          want_db(o, r) += double{kScale} * dense(o, c) * a(r, c);
          want_da(r, c) += double{kScale} * dense(o, c) * b2(o, r);
        }
      }
  std::vector<float> scratch(static_cast<size_t>(masked_gradient_floats(kRank, kRows)));
  masked_gradient(lists, g.data(), kScale, b2.view(), a.view(), db.view(), da.view(), scratch.data());
  expect_within("masked_gradient db", worst_error(db, want_db), kTolerance);
  expect_within("masked_gradient da", worst_error(da, want_da), kTolerance);
}

INSTANTIATE_TEST_SUITE_P(Widths, MaskedLora, ::testing::Values(1, 3, 4, 8, 15, 16, 17, 63, 64, 65, 100, 200));

}  // namespace
}  // namespace brick::kernels
